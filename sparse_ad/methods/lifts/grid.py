"""Scores of detectors whose errors lie on one grid."""

from sparse_ad.types import ErrorGrid, Maps, Params, Scores


def score_grid(grid: ErrorGrid, params: Params, maps: Maps) -> Scores:
    """Returns the score and map of one image."""
    errors, diagnostics = grid.errors(params, maps)
    return Scores(grid.pool(errors.ravel()), grid.to_map(errors), diagnostics)
