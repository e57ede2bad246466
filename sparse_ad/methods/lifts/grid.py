"""From a grid of errors to scores, and from the views of a part to those of a detector."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sparse_ad.types import ErrorGrid, Maps, Params, Scores, VectorModel, Views


def score_grid(grid: ErrorGrid, params: Params, maps: Maps) -> Scores:
    """Returns the scores of one image whose errors lie on a grid.

    score = pool(errors), map = to_map(errors)
    """
    errors, info = grid.errors(params, maps)
    return Scores(grid.pool(errors.ravel()), grid.to_map(errors), info)


def lift_views(source: Views | VectorModel, lifts: Mapping[str, Callable], *bound: Any) -> Views:
    """Returns a view of every name in `lifts` that `source` has: lifts[name], bound to the values.

    What the source does not have is not there afterwards either.
    """
    there = {name for name in lifts if getattr(source, name) is not None}
    return Views(**{name: partial(lifts[name], *bound) for name in lifts if name in there})
