"""Entropy of the grey histogram: a check of the simplest kind."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.data.decode import LUMA
from sparse_ad.methods.lifts.descriptors import Descriptor, described, require_shrinkage
from sparse_ad.methods.lifts.maps import Shape, require_pixels
from sparse_ad.sparse.problems import product
from sparse_ad.types import Features, Method

BINS = 64  # grey levels that the entropy tells apart


@dataclass(frozen=True)
class Entropy:
    """How far is the entropy of the grey histogram, in bits, from that of training images?

        H = - sum_b p_b log2 p_b = mean over pixels of -log2 p_(bin of the pixel)
        score = (H - m)^2 / ((1 + shrinkage) C)

    m and C are mean and variance of the H of training images; the map has the same of the terms of
    that mean. An entropy is as suspicious below that of training images as above: a defect may be
    flatter than what it covers, or busier.

    Source: ours.
    """

    shrinkage: float = 1e-3  # added to the variance: this fraction of it

    def __post_init__(self):
        require_shrinkage(self.shrinkage)

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`. Raises: UserError unless it sees pixels."""
        require_pixels(features)
        return described(describe_entropy, self.shrinkage, features, shape)


def describe_entropy(image: Float[Array, "h w c"]) -> Descriptor:
    """Returns the entropy of the grey histogram, and the surprise of each pixel: its terms."""
    luma = jnp.asarray(LUMA, image.dtype)
    grey = product(image, luma) if image.shape[-1] == len(LUMA) else image[..., 0]
    bins = jnp.clip(jnp.floor(grey * BINS).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.bincount(bins.ravel(), length=BINS)  # whole numbers: added in any order
    counts = counts.astype(grey.dtype)
    surprise = -jnp.log2(jnp.maximum(counts, 1) / bins.size)
    fraction = counts / bins.size
    return Descriptor(jnp.sum(fraction * surprise)[None], surprise[bins][..., None])
