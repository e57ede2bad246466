"""Mean colour: a check that no detector may lose to. Nothing of shape or texture is seen."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.methods.lifts.descriptors import Descriptor, described, require_shrinkage
from sparse_ad.methods.lifts.maps import Shape, require_pixels
from sparse_ad.types import Features, Method


@dataclass(frozen=True)
class MeanColour:
    """How far is the mean colour of an image from that of training images?

        score = (v - m)^T (C + shrinkage tr(C)/d I)^-1 (v - m) / d,   v = mean of all pixels

    m and C are mean and covariance of the v of training images: a squared Mahalanobis distance.

    Source: ours.
    """

    shrinkage: float = 1e-3  # added to the covariance: this fraction of its mean variance

    def __post_init__(self):
        require_shrinkage(self.shrinkage)

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`. Raises: UserError unless it sees pixels."""
        require_pixels(features)
        return described(describe_colour, self.shrinkage, features, shape)


def describe_colour(image: Float[Array, "h w c"]) -> Descriptor:
    """Returns the mean of all pixels, and every pixel as it is."""
    return Descriptor(jnp.mean(image, axis=(0, 1)), image)
