"""What lifts share: scores of a grid of errors, views of a part as those of a detector, sums."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparse_ad.types import ErrorGrid, Maps, Method, Params, Scores, VectorModel, Views

KEPT = 0.99  # of the influence of an error on the map: all of it, but for a few pixels


def score_grid(grid: ErrorGrid, params: Params, maps: Maps) -> Scores:
    """Returns the scores of one image whose errors lie on a grid.

    score = pool(errors), map = to_map(errors)
    """
    errors, info = grid.errors(params, maps)
    return Scores(grid.pool(errors.ravel()), grid.to_map(errors), info)


def score_kept(method: Method, params: Params, image: tuple[Maps, Bool[Array, "h w"]]) -> Scores:
    """Returns the scores of one image (its maps, its ignored pixels) without its ignored pixels.

    Errors that do not lie on kept pixels do not count: see `count_positions`. The map has the means
    of the other errors, so that a pixel beside ignored ones keeps its value; a kept pixel that no
    error reaches is 0. Without any error that counts the score is NaN. Where errors lie on no grid,
    the score counts what ignored pixels were filled in with. Ignored pixels of the map are 0.
    """
    maps, ignored = image
    if method.grid is None:
        scores = method.score(params, maps)
        return scores._replace(map=jnp.where(ignored, 0.0, scores.map))
    errors, info = method.grid.errors(params, maps)
    counted = count_positions(method.grid, errors, ignored)
    errors = jnp.where(counted, errors, 0.0)
    share = method.grid.to_map(counted.astype(errors.dtype))
    mean = method.grid.to_map(errors) / jnp.where(share > 0.0, share, 1.0)
    score = method.grid.pool(errors.ravel(), counted.ravel())
    return Scores(score, jnp.where(ignored, 0.0, mean), info)


def count_positions(
    grid: ErrorGrid, errors: Float[Array, "i j"], ignored: Bool[Array, "h w"]
) -> Bool[Array, "i j"]:
    """Returns which positions count: at least KEPT of their influence on the map is on kept pixels.

    The influence of a position on a set of pixels is the sum of the map there for an error of 1.
    Positions without any influence count. A patch that is in part filled in may look like nothing
    that was trained on: its error would rival that of a defect.
    """
    like = jax.ShapeDtypeStruct(errors.shape, errors.dtype)
    influence = jax.linear_transpose(grid.to_map, like)
    (kept,), (all_,) = (
        influence(pixels.astype(errors.dtype)) for pixels in (~ignored, jnp.ones_like(ignored))
    )
    return kept >= KEPT * all_


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
