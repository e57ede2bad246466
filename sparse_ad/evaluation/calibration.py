"""Calibration: thresholds from held-out normal images, by raw errors or in units of these images.

In units of them, an image is scored by statistics that it does not take part in: its own sums are
subtracted from those of all. The network runs once: errors are kept on the host.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool
from tqdm import tqdm

from sparse_ad.batching import batched
from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.devices import by_image
from sparse_ad.errors import UserError
from sparse_ad.evaluation import protocol
from sparse_ad.evaluation.error_units import (
    FEW,
    ErrorUnits,
    LayerSums,
    Sums,
    constant_layers,
    normal_errors,
    sums_of,
)
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.evaluation.results import Calibration, CalibrationScore, ErrorUnitsUsed
from sparse_ad.evaluation.scoring import check_readable, not_finite
from sparse_ad.methods.compiled import Score
from sparse_ad.methods.lifts.calibrated import NormalErrors, to_units
from sparse_ad.methods.lifts.grid import ONE, count_positions, score_errors, score_kept_errors
from sparse_ad.types import ErrorGrid, Errors, Example, HostErrors, Method, Params, Scores

log = logging.getLogger(__name__)


class NormalImage(NamedTuple):
    """The errors of one calibration image, on the host."""

    example: Example
    problem: str  # why it could not be read; "" if it could
    errors: HostErrors
    ignored: Bool[np.ndarray, "h w"] | None = None  # None: no pixel is
    counted: Mapping[str, Bool[np.ndarray, "... _ _"]] | None = None  # None: all errors count


def calibrate(
    method: Method,
    score: Score,
    params: Params,
    examples: Sequence[Example],
    images: Images,
    options: Evaluation,
) -> tuple[Calibration, NormalErrors | None]:
    """Sets threshold and colour scale by held-out normal images, in the units asked for.

    `score`: the compiled score of the method. Returns: what the images decide, and the units, None
    where scores are raw errors: asked for, or for lack of images, which is a warning.
    Raises: as `protocol.calibrate`.
    """
    plain = partial(protocol.calibrate, score, params, examples, images, options)
    units, grid = options.calibration, method.grid
    if units.by == "none" or grid is None:
        return plain(), None
    if not examples:
        raise UserError("no calibration images: raise data.calibration_fraction")
    measured = list(measure_errors(method, grid, params, examples, images, options.batch_size))
    skipped = check_readable(measured, options.max_unreadable)
    readable = [image for image in measured if not image.problem]
    sums = add_up(readable)
    used = choose_units(units, len(readable), constant_layers(sums))
    if used.note:
        log.warning("evaluation.calibration: %s", used.note)
    if used.by == "none":
        return plain()._replace(error_units=used), None
    scored = list(leave_one_out(units, grid, readable, sums))
    calibration = protocol.decide(*summarise(readable, scored), skipped, options)
    return calibration._replace(error_units=used), normal_errors(units, sums)


def choose_units(units: ErrorUnits, images: int, constant: Sequence[str]) -> ErrorUnitsUsed:
    """Returns the units that so many images allow for, and what they fall short of.

    `constant`: the layers whose errors are the same everywhere in all images.
    """
    if images < 2:
        note = "one calibration image leaves no other to calibrate by: scores are raw errors"
        return ErrorUnitsUsed("none", units.by, images, 0.0, note)
    narrow = units.by != "whole"
    weight = images / (images + units.prior) if narrow else 1.0
    notes = []
    if units.by == "position" and images < FEW:
        rest = "; the rest are those of positions as far from the border, and of all"
        notes.append(
            f"of only {images} calibration images, statistics of a position weigh {weight:.0%}"
            f"{rest if weight < 1 else ''}"
        )
    if constant:
        names = [name for name in constant if name != ONE]
        which = f" of {', '.join(names)}" if names else ""
        notes.append(
            f"errors{which} are the same everywhere in all calibration images, so that their std "
            "is taken to be 1"
        )
    return ErrorUnitsUsed(units.by, units.by, images, weight, "; ".join(notes))


def measure_errors(
    method: Method,
    grid: ErrorGrid,
    params: Params,
    examples: Sequence[Example],
    images: Images,
    batch_size: int,
) -> Iterator[NormalImage]:
    """Yields the errors of each image, in order; those that cannot be read have a problem.

    Raises: UserError that names an image whose errors are not finite.
    """
    compiled = by_image(batched(grid.errors, method.together))
    count = jax.jit(partial(count_positions, grid))
    with tqdm(total=len(examples), desc="calibrate", unit="image", delay=1) as bar:
        for batch in scoring_batches(examples, images, batch_size):
            errors, _ = compiled(params, method.features.extract(batch.image))
            errors = jax.tree.map(np.asarray, errors)
            for row in np.flatnonzero(batch.index >= 0).tolist():
                bar.update()
                example = examples[batch.index[row]]._replace(image=b"", mask=None, ignore=None)
                if not batch.valid[row]:
                    yield NormalImage(example, batch.problem[row], {})
                    continue
                own = {name: values[row].copy() for name, values in errors.items()}
                ignored = batch.ignored[row].copy() if batch.ignored[row].any() else None
                counted = None if ignored is None else jax.device_get(count(own, ignored))
                yield check_finite(NormalImage(example, "", own, ignored, counted))


def check_finite(image: NormalImage) -> NormalImage:
    """Returns the image. Raises: UserError that names it where its errors are not finite."""
    if not all(np.isfinite(values).all() for values in image.errors.values()):
        nothing = np.zeros((1, 1))
        raise UserError(not_finite(image.example, np.nan, nothing, np.zeros((1, 1), bool)))
    return image


def sums_of_image(image: NormalImage) -> dict[str, Sums]:
    """Returns the sums of one image, by layer."""
    counted = image.counted or dict.fromkeys(image.errors)
    return {name: sums_of(values, counted[name]) for name, values in image.errors.items()}


def add_up(images: Sequence[NormalImage]) -> dict[str, Sums]:
    """Returns the sums of all images, by layer."""
    if not images:
        return {}
    total = sums_of_image(images[0])
    for image in images[1:]:
        total = jax.tree.map(np.add, total, sums_of_image(image))
    return total


def normal_errors_of_others(units: ErrorUnits, sums: LayerSums, image: NormalImage) -> NormalErrors:
    """Returns mean and std of all images but one, given the sums of all."""
    return normal_errors(units, jax.tree.map(np.subtract, sums, sums_of_image(image)))


def leave_one_out(
    units: ErrorUnits, grid: ErrorGrid, images: Sequence[NormalImage], sums: LayerSums
) -> Iterator[Scores]:
    """Yields the scores of each image, in units of the others."""
    plain, kept = jax.jit(partial(score_in_units, grid)), jax.jit(partial(score_kept_in, grid))
    for image in images:
        normal = normal_errors_of_others(units, sums, image)
        if image.ignored is None:
            yield jax.device_get(plain(normal, image.errors))
        else:
            yield jax.device_get(kept(normal, image.errors, image.ignored))


def score_in_units(grid: ErrorGrid, normal: NormalErrors, errors: Errors) -> Scores:
    """Returns the scores of one image in units of normal images."""
    return score_errors(grid, to_units(normal, errors))


def score_kept_in(
    grid: ErrorGrid, normal: NormalErrors, errors: Errors, ignored: Bool[Array, "h w"]
) -> Scores:
    """Returns the scores of one image with ignored pixels in units of normal images."""
    return score_kept_errors(grid, to_units(normal, errors), ignored)


def summarise(
    images: Sequence[NormalImage], scored: Sequence[Scores]
) -> tuple[list[CalibrationScore], list[float]]:
    """Returns score and peak of each image, and the medians of their maps.

    Raises: UserError that names an image of which nothing counts.
    """
    scores, medians = [], []
    for image, result in zip(images, scored, strict=True):
        score, anomaly_map = float(result.image), np.asarray(result.map)
        ignored = np.zeros(anomaly_map.shape, bool) if image.ignored is None else image.ignored
        if not (np.isfinite(score) and np.isfinite(anomaly_map).all()):
            raise UserError(not_finite(image.example, score, anomaly_map, ignored))
        kept = anomaly_map[~ignored]
        medians.append(float(np.median(kept)))
        scores.append(CalibrationScore(image.example.path, score, float(np.max(kept))))
    return scores, medians
