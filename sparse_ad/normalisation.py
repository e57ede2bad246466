"""What is taken out of patches before they are modelled: mean, contrast, unit."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require_choice

SCALES = ("global", "image", "patch", "none")
GREY_LEVEL = 1.0 / 255.0  # less contrast than this is noise, and is not blown up


class Normalisation(NamedTuple):
    """How images and patches are normalised, and how that is undone."""

    measure: Callable[[Float[Array, "m d"]], Float[Array, ""]]  # raw patches -> the common unit
    unit: Callable[[Float[Array, ""], Float[Array, "h w c"]], Float[Array, ""]]  # of one image
    split: Callable  # patches [... d] -> vectors [... d], offset [... 1], contrast [... 1]


def deviation(values: Float[Array, "... d"]) -> Float[Array, "... 1"]:
    """Returns the root mean square along the last axis, at least one grey level."""
    spread = jnp.sqrt(jnp.mean(values**2, axis=-1, keepdims=True))
    return jnp.maximum(spread, GREY_LEVEL)


def normalisation(config) -> Normalisation:
    """Returns the normalisation that `remove_mean` and `scale` describe.

    A patch x of an image with unit u becomes (x / u - offset) / contrast. scale: "global": u is
    the deviation of patches drawn from the first batch of training images; "image": the image's
    own standard deviation, where exposure varies; "patch": contrast is each patch's own deviation
    (contrast normalisation); "none": u = contrast = 1.

    Errors: UserError that names the field, its value and the choices.
    """
    require_choice("method.scale", config.scale, SCALES)

    def split(patches):
        mean = jnp.mean(patches, axis=-1, keepdims=True)
        offset = mean if config.remove_mean else jnp.zeros_like(mean)
        centred = patches - offset
        contrast = deviation(centred) if config.scale == "patch" else jnp.ones_like(mean)
        return centred / contrast, offset, contrast

    def measure(patches):
        if config.scale != "global":
            return jnp.ones((), patches.dtype)
        return deviation(split(patches)[0].ravel())[0]

    def unit(common, image):
        if config.scale != "image":
            return common
        return deviation((image - jnp.mean(image)).ravel())[0]

    return Normalisation(measure, unit, split)
