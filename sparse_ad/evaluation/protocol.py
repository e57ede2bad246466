"""The protocol: a threshold from held-out normal images, then metrics on the test images."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sparse_ad.data.images import Images
from sparse_ad.errors import UserError, require
from sparse_ad.evaluation import image_metrics, pixel_metrics, thresholds
from sparse_ad.evaluation.bootstrap import undefined
from sparse_ad.evaluation.error_units import ErrorUnits
from sparse_ad.evaluation.results import (
    About,
    Calibration,
    CalibrationScore,
    Counts,
    ImageMetrics,
    Oracle,
    PixelMetrics,
    Results,
    Scale,
    ScoreRow,
    Skipped,
)
from sparse_ad.evaluation.scoring import (
    ScoredImage,
    check_readable,
    measure_costs,
    score_images,
    summarise_info,
)
from sparse_ad.methods.compiled import Score
from sparse_ad.types import Example, Params, Splits

NO_MAP = np.zeros((0, 0), np.float32)
NO_TEST = undefined("no test images")
NO_QUALITY = {  # the fields of Results that are measured on image scores, without test images
    "image": ImageMetrics(NO_TEST, NO_TEST, NO_TEST, NO_TEST),
    "kinds": {},
    "oracle": Oracle(None, None),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """How a fitted detector is calibrated and measured."""

    # images scored in one call, all where there are fewer; a multiple of the number of devices
    batch_size: int = 8
    false_alarm_rate: float = 0.05  # fraction of normal images that may be flagged, 0..1
    bootstrap: int = 1000  # resamples behind every interval
    max_unreadable: float = 0.05  # fraction of images that may be unreadable; more are an error
    calibration: ErrorUnits = ErrorUnits()

    def __post_init__(self):
        fraction = "give a fraction between 0 and 1"
        rate, unreadable = self.false_alarm_rate, self.max_unreadable
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(0 < rate < 1, "false_alarm_rate", rate, f"{fraction}, both excluded")
        require(self.bootstrap >= 1, "bootstrap", self.bootstrap, "must be at least 1")
        require(0 <= unreadable <= 1, "max_unreadable", unreadable, fraction)


class Measured(NamedTuple):
    """The scored test images, as far as they are kept."""

    readable: list[ScoredImage]  # without their pixels
    skipped: tuple[Skipped, ...]
    pixel: PixelMetrics
    seconds: list[float]  # of the scoring calls


def calibrate(
    score: Score, params: Params, examples: Sequence[Example], images: Images, options: Evaluation
) -> Calibration:
    """Scores held-out normal images: sets the threshold and the colour scale of heat maps.

    Raises: UserError without images, with too many unreadable ones, or scores not finite.
    """
    if not examples:
        raise UserError("no calibration images: raise data.calibration_fraction")
    seconds, scored, medians, maxima = [], [], [], []
    batches = images, options.batch_size
    for image in score_images(score, params, examples, *batches, "calibrate", seconds):
        if not image.problem:
            kept = image.map[~image.ignored]
            medians.append(float(np.median(kept)))
            maxima.append(np.max(kept))
        scored.append(_without_pixels(image))
    skipped = check_readable(scored, options.max_unreadable)
    readable = [image for image in scored if not image.problem]
    scores = [
        CalibrationScore(image.example.path, image.score, float(peak))
        for image, peak in zip(readable, maxima, strict=True)
    ]
    compiling = measure_costs(seconds, options.batch_size, params).compile_seconds
    return decide(scores, medians, skipped, options)._replace(compile_seconds=compiling)


def decide(
    scores: Sequence[CalibrationScore],
    medians: Sequence[float],
    skipped: tuple[Skipped, ...],
    options: Evaluation,
) -> Calibration:
    """Sets threshold and colour scale by the scores, peaks and medians of normal images."""
    rate = options.false_alarm_rate
    peaks = np.array([each.peak for each in scores])
    return Calibration(
        threshold=thresholds.set_threshold(np.array([each.score for each in scores]), rate),
        scale=set_scale(np.array(medians), peaks, rate),
        scores=tuple(scores),
        skipped=skipped,
        compile_seconds=0.0,
        evaluation=dataclasses.asdict(options),
    )


def set_scale(
    medians: Float[np.ndarray, " m"], maxima: Float[np.ndarray, " m"], false_alarm_rate: float
) -> Scale:
    """Sets the colour scale from the medians and maxima of the maps of normal images.

    `low` is the median of the medians; `limit` is exceeded anywhere on a normal image with at most
    the false-alarm rate (the same quantile as the threshold, of the maxima); `high` lies as far
    above it again. So the upper half of the colours is kept for what normal images hardly ever
    reach.
    """
    low = float(np.median(medians))
    limit = max(thresholds.set_threshold(maxima, false_alarm_rate).value, low)
    margin = max(limit - low, 1e-6 * max(1.0, abs(low)))  # all maps flat: any scale will do
    return Scale(low, low + margin, low + 2 * margin)


def evaluate(
    score: Score,
    params: Params,
    splits: Splits,
    calibration: Calibration,
    images: Images,
    options: Evaluation,
    seed: int,
    about: About,
) -> tuple[Results, list[ScoreRow]]:
    """Measures the detector on the test images at the threshold of `calibration`.

    Only `oracle` has seen test labels before it decided anything. `seed`: of the bootstrap.
    Without test images metrics are undefined, and the rows are those of the calibration images.

    Returns: results, and a row for each image that could be read.
    Raises: UserError with too many unreadable images (or a whole class), or scores not finite.
    """
    examples = measured_images(splits)
    measured = measure(score, params, examples, calibration.scale.low, images, options, seed)
    rows = [_row(image, calibration.threshold.value) for image in measured.readable]
    rows = rows if splits.test else _calibration_rows(rows, calibration)
    tested = rows if splits.test else []
    skipped = measured.skipped if splits.test else ()  # else: calibration images, counted there
    cost = measure_costs(measured.seconds, options.batch_size, params)
    # Where calibration ran in this process, it was the one that waited for the compiler.
    compiling = max(cost.compile_seconds, calibration.compile_seconds)
    results = Results(
        **about._asdict(),
        counts=_count(about.fit.images, calibration, tested, skipped),
        threshold=calibration.threshold,
        scale=calibration.scale,
        **(_image_quality(rows, options.bootstrap, seed) if splits.test else NO_QUALITY),
        pixel=measured.pixel,
        score_info=summarise_info([image.info for image in measured.readable]),
        cost=cost._replace(compile_seconds=compiling),
        skipped=calibration.skipped + skipped,
        left_out=splits.left_out,
        copies=splits.copies,
        error_units=calibration.error_units,
    )
    return results, rows


def measured_images(splits: Splits) -> tuple[Example, ...]:
    """Returns the images that are measured: the test images, or else the calibration images."""
    return splits.test or splits.calibration


def measure(
    score: Score,
    params: Params,
    examples: Sequence[Example],
    origin: float,
    images: Images,
    options: Evaluation,
    seed: int,
) -> Measured:
    """Scores the test images and measures their maps; `origin`: see `pixel_metrics.count_pixels`.

    Anomalous images whose mask is not known, or marks nothing that is not ignored, are left out of
    the pixel metrics and counted there as `left_out`; normal ones count as normal throughout.
    Ignored pixels do not count. Marks on ignored pixels alone are a warning.
    Raises: UserError with too many unreadable images, or scores not finite.
    """
    seconds, scored, counts, left_out, hidden = [], [], [], 0, 0
    batches = images, options.batch_size
    for image in score_images(score, params, examples, *batches, "evaluate", seconds):
        marked = (image.mask & ~image.ignored).any()
        if not image.problem and image.example.label == 1 and not marked:
            left_out, hidden = left_out + 1, hidden + image.mask.any()
        elif not image.problem:
            counted = image.map, image.mask, origin, image.ignored
            counts.append(pixel_metrics.count_pixels(*counted))
        scored.append(_without_pixels(image))
    if hidden:
        log.warning(
            "%d anomalous images are marked on ignored pixels alone: they count as anomalous",
            hidden,
        )
    skipped = check_readable(scored, options.max_unreadable)
    readable = [image for image in scored if not image.problem]
    pixel = pixel_metrics.measure_pixels(counts, options.bootstrap, seed)
    return Measured(readable, skipped, pixel._replace(left_out=left_out), seconds)


def _image_quality(rows: Sequence[ScoreRow], resamples: int, seed: int) -> dict[str, Any]:
    """The fields of Results that are measured on image scores: image, kinds, oracle."""
    label, score, group, kind = (
        np.array([getattr(row, name) for row in rows])
        for name in ("label", "score", "group", "kind")
    )
    bootstrap = rows[0].threshold, resamples, seed
    return {
        "image": image_metrics.measure_images(label, score, group, *bootstrap),
        "kinds": image_metrics.measure_kinds(label, score, group, kind, *bootstrap),
        "oracle": thresholds.find_oracle(label, score),
    }


def _row(image: ScoredImage, threshold: float) -> ScoreRow:
    example = image.example
    return ScoreRow(
        path=example.path,
        kind=example.kind,
        group=example.group,
        label=example.label,
        score=None if image.problem else image.score,
        threshold=threshold,
        flagged=None if image.problem else image.score > threshold,
    )


def _calibration_rows(rows: Sequence[ScoreRow], calibration: Calibration) -> list[ScoreRow]:
    """Rows of calibration images with the scores that set the threshold.

    They differ where errors are calibrated: an image does not take part in its own units there.
    """
    scores = {each.path: each.score for each in calibration.scores}
    known = ((row, scores[row.path]) for row in rows)
    return [row._replace(score=score, flagged=score > row.threshold) for row, score in known]


def _count(
    train: int, calibration: Calibration, rows: Sequence[ScoreRow], skipped: Sequence[Skipped]
) -> Counts:
    anomalous = sum(row.label == 1 for row in rows)
    return Counts(
        train=train,
        calibration=calibration.threshold.calibration_images,
        test_normal=len(rows) - anomalous,
        test_anomalous=anomalous,
        test_skipped=len(skipped),
    )


def _without_pixels(image: ScoredImage) -> ScoredImage:
    """What may be kept of every image: memory must not grow with their resolution."""
    example = image.example._replace(image=b"", mask=None, ignore=None)
    nothing = dict.fromkeys(("image", "mask", "map", "ignored"), NO_MAP)
    return image._replace(example=example, **nothing)
