"""What is removed from patches before they are modelled: their mean, their contrast, a unit.

(x / u - offset) / contrast        for a patch x of an image with unit u
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require_choice

GREY_LEVEL = 1.0 / 255.0  # less contrast than this is noise, and is not amplified
FLAT = 1e-4  # of the largest value of a channel: a smaller std is rounding


@dataclass(frozen=True)
class Normalise:
    """How images and patches are normalised: (x / u - offset) / contrast of a patch x.

    offset is the mean of the patch, or 0. The scale says what u and contrast are. "global": u is
    the RMS of patches drawn from the first training images, offset removed; "image": the std of
    the image, where exposure varies; "patch": contrast is the RMS of the patch itself, offset
    removed; "none": neither divides. What does not divide is 1.
    """

    remove_mean: bool = True  # of each patch
    scale: str = "global"  # global | image | patch | none: whose contrast is divided out

    def __post_init__(self):
        require_choice("scale", self.scale, SCALES)


class Scale(NamedTuple):
    """The three divisors; all but one are 1."""

    of_training: Callable[[Float[Array, "m d"]], Float[Array, ""]]  # patches without their offsets
    of_image: Callable[[Float[Array, ""], Float[Array, "h w c"]], Float[Array, ""]]
    of_patch: Callable[[Float[Array, "... d"]], Float[Array, "... 1"]]  # without their offsets


def rms(values: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
    """Returns the root mean square along the last axis, at least one grey level."""
    return jnp.maximum(jnp.sqrt(jnp.mean(values**2, axis=-1, keepdims=True)), GREY_LEVEL)


def rms_of_all(values: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns the root mean square of all values, at least one grey level."""
    return rms(values.ravel())[0]


def image_std(training_unit: Float[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Returns the std of an image, at least one grey level."""
    return rms_of_all(image - jnp.mean(image))


def keep(training_unit: Float[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Returns the unit that all images have in common."""
    return training_unit


def one(values: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns 1."""
    return jnp.ones((), values.dtype)


def ones(values: Float[Array, "*n d"]) -> Float[Array, "*n 1"]:
    """Returns 1 for each vector."""
    return jnp.ones((*values.shape[:-1], 1), values.dtype)


SCALES = {
    "global": Scale(rms_of_all, keep, ones),
    "image": Scale(one, image_std, ones),
    "patch": Scale(one, keep, rms),
    "none": Scale(one, keep, ones),
}


class Normalised(NamedTuple):
    """Patches (in units of their image) as vectors: patch = vector * contrast + offset."""

    vectors: Float[Array, "*n d"]
    offset: Float[Array, "*n 1"]
    contrast: Float[Array, "*n 1"]


def normalise(options: Normalise, patches: Float[Array, "*n d"]) -> Normalised:
    """Returns the patches without their offset and contrast."""
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    offset = mean if options.remove_mean else jnp.zeros_like(mean)
    centred = patches - offset
    contrast = SCALES[options.scale].of_patch(centred)
    return Normalised(centred / contrast, offset, contrast)


def training_unit(options: Normalise, patches: Float[Array, "m d"]) -> Float[Array, ""]:
    """Returns the unit that all images have in common, given patches of training images."""
    return SCALES[options.scale].of_training(normalise(options, patches).vectors)


def image_unit(
    options: Normalise, common: Float[Array, ""], image: Float[Array, "h w c"]
) -> Float[Array, ""]:
    """Returns the unit of an image, given the common one."""
    return SCALES[options.scale].of_image(common, image)


def mean_and_std(
    maps: Float[Array, "*n h w c"], axes: tuple[int, ...]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns mean and std along axes, which are kept; std is 1 without contrast."""
    mean = jnp.mean(maps, axis=axes, keepdims=True)
    std = jnp.sqrt(jnp.mean((maps - mean) ** 2, axis=axes, keepdims=True))
    largest = jnp.max(jnp.abs(maps), axis=axes, keepdims=True)
    return mean, jnp.where(std > FLAT * largest, std, 1.0)


def standardise_channels(maps: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
    """Returns each channel of each map at its own mean 0 and std 1."""
    mean, std = mean_and_std(maps, (-3, -2))
    return (maps - mean) / std
