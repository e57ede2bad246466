"""Scales channels of maps to mean 0 and std 1: by their image, by training images, or not."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.normalisation import mean_and_std, standardise_channels


class MeanStd(NamedTuple):
    """Mean and std of each channel of training images."""

    mean: Float[Array, " c"]
    std: Float[Array, " c"]


class Standardisation(NamedTuple):
    """What is measured on training images, and how maps [... h w c] are standardised by it."""

    measure: Callable[[Float[Array, "n h w c"]], MeanStd]
    apply: Callable[[MeanStd, Float[Array, "*n h w c"]], Float[Array, "*n h w c"]]


def nothing(maps: Float[Array, "n h w c"]) -> MeanStd:
    """Returns mean 0 and std 1."""
    shape = maps.shape[-1:]
    return MeanStd(jnp.zeros(shape, maps.dtype), jnp.ones(shape, maps.dtype))


def of_training(maps: Float[Array, "n h w c"]) -> MeanStd:
    """Returns mean and std of each channel."""
    return MeanStd(*(values.ravel() for values in mean_and_std(maps, (0, 1, 2))))


def unchanged(training: MeanStd, maps: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
    """Returns the maps as they are."""
    return maps


def by_image(training: MeanStd, maps: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
    """Returns each channel of each image at its own mean 0 and std 1."""
    return standardise_channels(maps)


def by_training(training: MeanStd, maps: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
    """Returns each channel less the mean of training images, divided by their std."""
    mean, std = (values.reshape(*(1,) * (maps.ndim - 1), -1) for values in training)
    return (maps - mean) / std


STANDARDISE = {
    "none": Standardisation(nothing, unchanged),
    "image": Standardisation(nothing, by_image),
    "training": Standardisation(of_training, by_training),
}
