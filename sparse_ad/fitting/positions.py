"""Whether masks of ignored pixels leave a detector anything to score; asked before the fit."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sparse_ad.data.decode import image_shape
from sparse_ad.data.ignored import ignored_at
from sparse_ad.devices import mesh
from sparse_ad.errors import UserError
from sparse_ad.fitting.setup import Setup
from sparse_ad.methods.lifts.grid import count_positions
from sparse_ad.types import ErrorGrid, Example


def check_positions(setup: Setup, examples: Iterable[Example]) -> None:
    """Raises UserError that names an image whose ignore mask leaves no error to score.

    Masks that cannot be used with their image are not looked at here: decoding names them.
    """
    grid, checked = setup.method.grid, set()
    if grid is None:
        return
    has_positions = jax.jit(partial(any_position, grid, error_shapes(setup, grid)))
    for example in examples:
        if example.ignore is None or (key := mask_key(setup, example)) in checked:
            continue
        checked.add(key)
        if key[1] is None:
            continue
        ignored = ignored_at(example, setup.images.pair, setup.images)
        if not has_positions(jnp.asarray(ignored)):
            raise UserError(
                f"{example.path}: no patch lies on pixels that are not ignored (data.ignore): "
                "ignore fewer pixels, or make patches smaller"
            )


def mask_key(setup: Setup, example: Example) -> tuple[object, tuple[int, int] | None]:
    """Returns what tells a mask from others: its file, or the image, and the size."""
    is_file = isinstance(example.ignore, Path)
    return example.ignore if is_file else example.path, shape_of(setup, example)


def shape_of(setup: Setup, example: Example) -> tuple[int, int] | None:
    """Returns (height, width) of an image; None where it cannot be read."""
    with suppress(UserError):
        return image_shape(example.image, example.path, setup.images)


def error_shapes(setup: Setup, grid: ErrorGrid) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and type of the errors of one image, by layer; nothing is computed."""
    method = setup.method
    images = jax.ShapeDtypeStruct((mesh().size, *setup.images.shape), jnp.float32)
    maps = jax.eval_shape(method.features.extract, images)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), maps)
    params = jax.eval_shape(method.finish, jax.random.key(0), setup.state_like())
    return jax.eval_shape(grid.errors, params, one)[0]


def any_position(
    grid: ErrorGrid, like: dict[str, jax.ShapeDtypeStruct], ignored: Bool[Array, "h w"]
) -> Bool[Array, ""]:
    """Returns whether enough errors of an image count for a score."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return ~jnp.isnan(grid.pool(zeros, count_positions(grid, like, ignored)))
