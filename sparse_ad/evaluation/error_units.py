"""Statistics of the errors of normal images at each position: the units that errors are scored in.

All are linear in sums over images, so that leaving an image out is a subtraction. On the host, in
float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from sparse_ad.errors import require, require_choice
from sparse_ad.methods.lifts.calibrated import NormalErrors

FEW = 8  # images: with fewer, statistics of positions say little
FLOORS = (1e-6, 1e6)  # so that float32 holds errors in these units
ROUNDING = 1e-12  # of the mean square: errors that vary less, in float32, do not vary


@dataclass(frozen=True)
class ErrorUnits:
    """The errors of held-out normal images as the unit that errors are scored in.

        z = (e - mean) / sqrt(std^2 + (floor * std of all errors)^2)

    Few images leave the statistics of a position uncertain: they are shrunk to those of positions
    at the same distance to the border of the grid, and these to those of all positions.
    """

    # whose mean and std: none: scores are raw errors | whole: of all errors of a layer | border: of
    # positions at the same distance to the border | position: of each position
    by: str = "none"
    prior: float = 5.0  # calibration images that the wider statistic counts as
    smooth: int = 3  # side of a mean filter over the statistics of positions; odd; 1: none
    floor: float = 0.25  # of the std of all errors, added in squares: what quiet places are given

    def __post_init__(self):
        require_choice("by", self.by, LEVELS)
        finite = 0 <= self.prior < np.inf
        require(finite, "prior", self.prior, "give a finite number of images, 0 or more")
        odd = self.smooth >= 1 and self.smooth % 2 == 1
        require(odd, "smooth", self.smooth, "give an odd number of positions; 1: no filter")
        low, high = FLOORS
        remedy = f"give a number from {low:g} to {high:g}"
        require(low <= self.floor <= high, "floor", self.floor, remedy)


class Sums(NamedTuple):
    """Sums over images at each position of a layer."""

    count: Float[np.ndarray, "*t i j"]  # images whose error counts there
    first: Float[np.ndarray, "*t i j"]  # of errors
    second: Float[np.ndarray, "*t i j"]  # of their squares


class Level(NamedTuple):
    """Mean error and mean squared error, of each position or of all, and what they rest on."""

    images: Float[np.ndarray, "*s"]  # that count, as a mean over positions
    first: Float[np.ndarray, "*s"]
    second: Float[np.ndarray, "*s"]


LayerSums = Mapping[str, Sums]


def sums_of(
    errors: Float[np.ndarray, "*t i j"], counted: Bool[np.ndarray, "*t i j"] | None
) -> Sums:
    """Returns the sums of one image; `counted` None: all its errors count."""
    exact = errors.astype(np.float64)
    there = np.ones_like(exact) if counted is None else counted.astype(np.float64)
    return Sums(there, exact * there, exact**2 * there)


def normal_errors(options: ErrorUnits, sums: LayerSums) -> NormalErrors:
    """Returns mean and std of each layer [*t i j], std with its floor, in float32."""
    layers = {name: layer_statistics(options, layer) for name, layer in sums.items()}
    mean, std = (
        {name: pair[index].astype(np.float32) for name, pair in layers.items()} for index in (0, 1)
    )
    return NormalErrors(mean, std)


def layer_statistics(
    options: ErrorUnits, sums: Sums
) -> tuple[Float[np.ndarray, "*t i j"], Float[np.ndarray, "*t i j"]]:
    """Returns mean and std of a layer.

        std = sqrt(m2 - m1^2 + (floor s0)^2),   s0: std of all errors of the layer

    m1, m2: the moments of each position, shrunk to wider ones. A layer that never varies has std 1.
    """
    everything = level = of_all(sums)
    for narrower in LEVELS[options.by]:
        level = shrink(narrower(options.smooth, sums), level, options.prior)
    mean, variance = level.first, variance_of(level)
    widest = variance_of(everything)
    std = np.sqrt(variance + options.floor**2 * widest) if widest > 0 else np.ones_like(variance)
    shape = sums.count.shape
    return np.broadcast_to(mean, shape), np.broadcast_to(std, shape)


def constant_layers(sums: LayerSums) -> list[str]:
    """Returns the layers whose errors never vary: they have std 1."""
    return [name for name, layer in sums.items() if not variance_of(of_all(layer)) > 0]


def variance_of(level: Level) -> Float[np.ndarray, "*s"]:
    """Returns m2 - m1^2; 0 where it is within the rounding of float32."""
    variance = level.second - level.first**2
    return np.where(variance > ROUNDING * level.second, variance, 0.0)


def shrink(own: Level, wider: Level, prior: float) -> Level:
    """Returns moments shrunk to wider ones, which count as `prior` images.

    m = (n own + prior wider) / (n + prior),   n: the images that the own moments rest on
    """
    total = own.images + prior
    weight = np.where(own.images > 0, own.images / np.where(total > 0, total, 1.0), 0.0)
    moments = (
        weight * narrow + (1 - weight) * wide
        for narrow, wide in zip(own[1:], wider[1:], strict=True)
    )
    return Level(own.images, *moments)


def of_all(sums: Sums) -> Level:
    """Returns the moments of all errors of a layer, as arrays without axes."""
    return ratios(Sums(*(np.asarray(values.sum()) for values in sums)), sums.count.size)


def of_border(smooth: int, sums: Sums) -> Level:
    """Returns for each position the moments of those at its distance to the border [i j].

    Of the grid of its tile: what a network pads is the border of a tile. All tiles share them.
    """
    height, width = sums.count.shape[-2:]
    ring = distance_to_border(height, width)
    rings = np.broadcast_to(ring, sums.count.shape).ravel()
    totals = Sums(*(np.bincount(rings, values.ravel()) for values in sums))
    level = ratios(totals, np.bincount(rings))
    return Level(*(values[ring] for values in level))


def of_positions(smooth: int, sums: Sums) -> Level:
    """Returns the moments of each position, smoothed over neighbours in the grid of its tile."""
    places = box_sums(np.ones_like(sums.count), smooth)
    return ratios(Sums(*(box_sums(values, smooth) for values in sums)), places)


def ratios(sums: Sums, places: int | Int[np.ndarray, "*s"] | Float[np.ndarray, "*s"]) -> Level:
    """Returns the moments of sums over so many places; 0 where no error counts."""
    count = np.where(sums.count > 0, sums.count, 1.0)
    return Level(sums.count / places, sums.first / count, sums.second / count)


def distance_to_border(height: int, width: int) -> Int[np.ndarray, "i j"]:
    """Returns how many positions lie between each position and the nearest side."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (height, width))
    return np.minimum(rows[:, None], columns)


def box_sums(values: Float[np.ndarray, "*t i j"], side: int) -> Float[np.ndarray, "*t i j"]:
    """Returns sums over side x side neighbours, at the border over those that there are."""
    for axis in (-2, -1):
        values = ndimage.correlate1d(values, np.ones(side), axis, mode="constant")
    return values


LEVELS: dict[str, tuple[Callable[[int, Sums], Level], ...]] = {  # from wide to narrow
    "none": (),
    "whole": (),
    "border": (of_border,),
    "position": (of_border, of_positions),
}
