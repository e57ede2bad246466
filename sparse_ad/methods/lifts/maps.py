"""What a detector needs to know of its features: the shapes of the maps, and their number."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparse_ad.devices import mesh
from sparse_ad.errors import UserError
from sparse_ad.types import Features

Shape = tuple[int, int, int]  # height, width, channels


def map_shapes(features: Features, shape: Shape) -> dict[str, Shape]:
    """Returns the shape of each map of one image, in the order of the layers of the features."""
    images = jax.ShapeDtypeStruct((mesh().size, *shape), jnp.float32)
    maps = jax.eval_shape(features.extract, images)
    names = features.layers or maps  # a traced dict is sorted by its keys
    return {layer: maps[layer].shape[-3:] for layer in names}


def only(maps: Mapping[str, Any]) -> Any:
    """Returns the one map there is, or what there is of it.

    Raises: UserError where there are several.
    """
    if len(maps) != 1:
        layers = ", ".join(maps)
        raise UserError(
            f"features.fuse = False: leaves {layers} apart; this detector needs one map"
        )
    return next(iter(maps.values()))


def require_pixels(features: Features) -> None:
    """Raises UserError unless features are the pixels themselves."""
    if not features.raw:
        remedy = "this detector looks at images, not at the maps of a network; choose pixels"
        raise UserError(f"features = {features.identity!r}: {remedy}")
