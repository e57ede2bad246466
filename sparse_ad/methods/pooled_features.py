"""Pooled features: the channels of a frozen network, each by its mean, std and maximum.

Source: Rippel, Mertens & Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep
Features for Anomaly Detection", ICPR 2020.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.methods.lifts.descriptors import Descriptor, described, require_shrinkage
from sparse_ad.methods.lifts.maps import Shape
from sparse_ad.types import Features, Method

FLOOR = 0.01  # activations below this count as none; those of the networks are around 1


@dataclass(frozen=True)
class PooledFeatures:
    """One Gaussian of pooled features: mean, std and maximum of each channel of each layer.

        score = (v - m)^T (C + shrinkage tr(C)/d I)^-1 (v - m) / d
        v = f(mean, std, max of each channel),   f(a) = sign(a) log(1 + |a| / 0.01)  or  f(a) = a

    m and C are mean and covariance of the v of training images. Statistics of positive values have
    a long tail to one side, which a Gaussian has not; their logarithms have less of it.

    Source: Rippel et al., section 3: a Gaussian of pooled features of a frozen network.
    Differs: theirs are means alone, of deep layers, without the logarithm.
    """

    shrinkage: float = 0.01  # added to the covariance: this fraction of its mean variance
    logarithm: bool = False  # take logarithms of the statistics, and of activations in the map

    def __post_init__(self):
        require_shrinkage(self.shrinkage)

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`."""
        describe = partial(statistics, self.logarithm)
        return described(describe, self.shrinkage, features, shape)


def statistics(logarithm: bool, layer: Float[Array, "h w c"]) -> Descriptor:
    """Returns mean, std and maximum of each channel; positions are described by the layer."""
    both = jnp.mean(layer, axis=(0, 1)), jnp.std(layer, axis=(0, 1))
    whole = jnp.concatenate([*both, jnp.max(layer, axis=(0, 1))])
    plain = Descriptor(whole, layer)
    return jax.tree.map(signed_log, plain) if logarithm else plain


def signed_log(values: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns sign(a) log(1 + |a| / FLOOR): nearly linear below FLOOR, and defined everywhere."""
    return jnp.sign(values) * jnp.log1p(jnp.abs(values) / FLOOR)
