"""MLF-SC as its published code indexed patches until April 2020: a dictionary for each patch.

Source: the code published with Imamura et al., MLF-SC, before the fix of April 2020, which the
table in the paper predates.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from sparse_ad.errors import UserError
from sparse_ad.methods.lifts.maps import Shape, map_shapes
from sparse_ad.methods.mlf_sc import MlfSc, mlf_sc
from sparse_ad.sparse.channels import windows
from sparse_ad.types import Features, Maps, Method


@dataclass(frozen=True)
class MlfSc2020(MlfSc):
    """MLF-SC whose dictionary c learns from all channels of patch c, not all patches of channel c.

        training maps, standardised [n h w C] -> patches [P s s C] -> dictionary c learns from
        patch c mod P of each batch: C "images" of s x s, one for each channel

    P counts the patches of all images of a batch, C the channels of all layers, stacked. Scoring is
    that of MlfSc.

    Source: the published code until April 2020.
    Differs: there a batch was the whole training set.
    """

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`.

        Raises: as `MlfSc.build`; UserError where the maps of the layers differ in size.
        """
        sizes = {layer[:2] for layer in map_shapes(features, shape).values()}
        if len(sizes) > 1:
            listed = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
            remedy = "this detector needs layers of one size; set it so that they agree"
            raise UserError(f"features.shrink: leaves maps of {listed}; {remedy}")
        size, stride = self.patches.size, self.patches.stride
        return mlf_sc(self, features, shape, partial(swap_axes, size=size, stride=stride))


def swap_axes(maps: Maps, size: int, stride: int) -> Maps:
    """Returns maps whose channel c holds patch c of the batch, one "image" for each channel of it.

    With C channels in all layers together, each result is [C size size c]. Layers are of one size.
    """
    stacked = jnp.concatenate(list(maps.values()), axis=-1)
    rows, columns = windows(stacked.shape[1:], size, stride)
    total = stacked.shape[0] * rows * columns

    def cut(index):
        image, position = index // (rows * columns), index % (rows * columns)
        start = (image, position // columns * stride, position % columns * stride, 0)
        return jax.lax.dynamic_slice(stacked, start, (1, size, size, stacked.shape[-1]))[0]

    swapped, first = {}, 0
    for name, layer in maps.items():
        indices = (first + jnp.arange(layer.shape[-1])) % total
        patches = jax.vmap(cut)(indices)  # [c s s C]
        swapped[name] = jnp.transpose(patches, (3, 1, 2, 0))
        first += layer.shape[-1]
    return swapped
