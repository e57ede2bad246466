"""The lift from a detector to one whose errors are in units of those of normal images.

errors [*t i j] -> (errors - mean) / std, of each position -> score, map
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.methods.lifts.grid import lift_views, score_grid
from sparse_ad.types import (
    Diagnostics,
    ErrorGrid,
    Errors,
    Explanation,
    HostErrors,
    Maps,
    Method,
    NormalMaps,
    Params,
)


class NormalErrors(NamedTuple):
    """The errors of normal images at each position, by layer [*t i j]."""

    mean: Errors | HostErrors
    std: Errors | HostErrors  # above 0 everywhere


class Calibrated(NamedTuple):
    """The parameters of a calibrated detector."""

    detector: Params
    normal: NormalErrors


def calibrated(method: Method, grid: ErrorGrid) -> Method:
    """Returns the detector that scores z = (errors - mean) / std in place of errors.

    `grid`: that of the method. Its params are `Calibrated`: those of the method, to which held-out
    normal images add mean and std (`evaluation.calibration`). Fitting is that of the method, and so
    are its views, but for what each layer contributes, which is in these units as well.
    """
    in_units = grid._replace(errors=partial(errors_in_units, grid))
    views = lift_views(method.views, VIEWS, in_units)
    return method._replace(
        score=partial(score_grid, in_units),
        views=views._replace(normal=partial(draw_normal, grid)),
        grid=in_units,
    )


def to_units(normal: NormalErrors, errors: Errors) -> Errors:
    """Returns (errors - mean) / std, by layer."""
    return {
        name: (values - normal.mean[name]) / normal.std[name] for name, values in errors.items()
    }


def errors_in_units(grid: ErrorGrid, params: Calibrated, maps: Maps) -> tuple[Errors, Diagnostics]:
    """Returns the errors of one image in units of those of normal images."""
    errors, info = grid.errors(params.detector, maps)
    return to_units(params.normal, errors), info


def draw_normal(grid: ErrorGrid, params: Calibrated) -> NormalMaps:
    """Returns mean and std as anomaly maps: where several layers add up, their sums."""
    return NormalMaps(*(grid.to_map(jax.tree.map(jnp.asarray, part)) for part in params.normal))


def of_image(view: Callable, grid: ErrorGrid, params: Calibrated, maps: Maps) -> Array:
    """Returns the view that the detector has of one image."""
    return view(params.detector, maps)


def atoms(view: Callable, grid: ErrorGrid, params: Calibrated) -> Float[Array, "k h w c"]:
    """Returns the atoms of the detector."""
    return view(params.detector)


def explain(
    view: Callable, grid: ErrorGrid, params: Calibrated, maps: Maps
) -> dict[str, Explanation]:
    """Returns what each layer contributes, in these units but for its channels."""
    layers, (errors, _) = view(params.detector, maps), grid.errors(params, maps)
    zero = jax.tree.map(jnp.zeros_like, errors)
    return {
        name: layer._replace(
            errors=errors[name].ravel(), map=grid.to_map({**zero, name: errors[name]})
        )
        for name, layer in layers.items()
    }


VIEWS = {"reconstruct": of_image, "latent": of_image, "atoms": atoms, "explain": explain}
