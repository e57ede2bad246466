"""What lifts share: scores of a grid of errors, views of a part as those of a detector, sums."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.types import ErrorGrid, Maps, Params, Scores, VectorModel, Views


def score_grid(grid: ErrorGrid, params: Params, maps: Maps) -> Scores:
    """Returns the scores of one image whose errors lie on a grid.

    score = pool(errors), map = to_map(errors)
    """
    errors, info = grid.errors(params, maps)
    return Scores(grid.pool(errors.ravel()), grid.to_map(errors), info)


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
