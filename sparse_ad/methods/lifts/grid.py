"""What lifts share: scores of a grid of errors, views of a part as those of a detector, sums."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparse_ad.types import (
    Counted,
    Diagnostics,
    ErrorGrid,
    Errors,
    Maps,
    Method,
    Params,
    Scores,
    VectorModel,
    Views,
)

ONE = "all"  # the layer of detectors that have one map of errors
KEPT = 0.99  # of the influence of an error on the map: all of it, but for a few pixels


def one_map(errors: Callable, pool: Callable, to_map: Callable) -> ErrorGrid:
    """Returns the grid of a detector that has one map of errors, from functions of that map.

    errors(params, maps) -> (errors [i j], diagnostics); pool(errors [p], counted [p] or None) ->
    image score; to_map(errors [i j]) -> anomaly map [h w], linear.
    """
    return ErrorGrid(
        partial(errors_of_map, errors), partial(pool_map, pool), partial(draw_map, to_map)
    )


def errors_of_map(
    errors: Callable, params: Params, maps: Maps
) -> tuple[dict[str, Float[Array, "i j"]], Diagnostics]:
    """Returns the errors of one image as those of its one layer."""
    values, info = errors(params, maps)
    return {ONE: values}, info


def pool_map(pool: Callable, errors: Errors, counted: Counted | None = None) -> Float[Array, ""]:
    """Returns the image score of the one map of errors."""
    return pool(errors[ONE].ravel(), None if counted is None else counted[ONE].ravel())


def draw_map(to_map: Callable, errors: Errors) -> Float[Array, "h w"]:
    """Returns the anomaly map of the one map of errors."""
    return to_map(errors[ONE])


def score_grid(grid: ErrorGrid, params: Params, maps: Maps) -> Scores:
    """Returns the scores of one image whose errors lie on a grid."""
    errors, info = grid.errors(params, maps)
    return score_errors(grid, errors)._replace(info=info)


def score_errors(grid: ErrorGrid, errors: Errors) -> Scores:
    """Returns the scores of one image, given its errors.

    score = pool(errors), map = to_map(errors)
    """
    return Scores(grid.pool(errors), grid.to_map(errors))


def score_kept(method: Method, params: Params, image: tuple[Maps, Bool[Array, "h w"]]) -> Scores:
    """Returns the scores of one image (its maps, its ignored pixels) without its ignored pixels.

    See `score_kept_errors`. Where errors lie on no grid, the score counts what ignored pixels were
    filled in with. Ignored pixels of the map are 0.
    """
    maps, ignored = image
    if method.grid is None:
        scores = method.score(params, maps)
        return scores._replace(map=jnp.where(ignored, 0.0, scores.map))
    errors, info = method.grid.errors(params, maps)
    return score_kept_errors(method.grid, errors, ignored)._replace(info=info)


def score_kept_errors(grid: ErrorGrid, errors: Errors, ignored: Bool[Array, "h w"]) -> Scores:
    """Returns the scores of one image without its ignored pixels, given its errors.

        map = to_map(counted errors) / to_map(counted) * to_map(1)

    Errors that do not lie on kept pixels do not count: see `count_positions`. The map has the means
    of the other errors, times the sum of the weights of the layers, so that a pixel beside ignored
    ones keeps its value; a kept pixel that no error reaches is 0, as are ignored ones. Without any
    error that counts the score is NaN.
    """
    counted = count_positions(grid, errors, ignored)
    kept = jax.tree.map(lambda error, there: jnp.where(there, error, 0.0), errors, counted)
    share, whole = (
        grid.to_map(jax.tree.map(lambda error, there: there.astype(error.dtype), errors, some))
        for some in (counted, jax.tree.map(jnp.ones_like, counted))
    )
    mean = grid.to_map(kept) / jnp.where(share > 0.0, share, 1.0) * whole
    return Scores(grid.pool(errors, counted), jnp.where(ignored, 0.0, mean))


def count_positions(grid: ErrorGrid, like: Any, ignored: Bool[Array, "h w"]) -> Counted:
    """Returns which positions count: at least KEPT of their influence on the map is on kept pixels.

    `like`: errors, or their shapes and types, by layer. The influence of a position on a set of
    pixels is the sum of the map there for an error of 1. Positions without any influence count. A
    patch that is in part filled in may look like nothing that was trained on: its error would rival
    that of a defect.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    influence = jax.linear_transpose(grid.to_map, shapes)
    dtype = jax.eval_shape(grid.to_map, shapes).dtype
    (kept,), (all_,) = (
        influence(pixels.astype(dtype)) for pixels in (~ignored, jnp.ones_like(ignored))
    )
    return jax.tree.map(lambda some, whole: some >= KEPT * whole, kept, all_)


def lift_views(source: Views | VectorModel, lifts: Mapping[str, Callable], *bound: Any) -> Views:
    """Returns lifts[name](view of the source, *bound, ...) for every view that the source has.

    What the source does not have is not there afterwards either.
    """
    views = {name: getattr(source, name) for name in lifts}
    there = {name: view for name, view in views.items() if view is not None}
    return Views(**{name: partial(lifts[name], view, *bound) for name, view in there.items()})


def total(values: Iterable[Float[Array, "*s"]]) -> Float[Array, "*s"]:
    """Returns the sum of arrays, from the first to the last."""
    return reduce(jnp.add, values)
