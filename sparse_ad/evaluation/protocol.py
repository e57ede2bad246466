"""The protocol: a threshold from held-out normal images, then figures on the test images."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sparse_ad.devices import check_batch
from sparse_ad.errors import UserError, require
from sparse_ad.evaluation import image_metrics, pixel_metrics, thresholds
from sparse_ad.evaluation.scoring import (
    Score,
    ScoredImage,
    check_readable,
    measure_costs,
    score_images,
)
from sparse_ad.system.workdir import environment_of
from sparse_ad.types import Example, Params, Splits

Row = dict[str, Any]  # of scores.csv: path, kind, group, label, score, threshold, flagged
NO_MAP = np.zeros((0, 0), np.float32)


class Prediction(NamedTuple):
    """What is said of one new image."""

    row: Row  # score and flagged are None where the image could not be read
    image: Float[np.ndarray, "h w c"]  # 0..1
    map: Float[np.ndarray, "h w"]
    problem: str  # why it could not be read; "" where all is well


def check(config: Any) -> None:
    """Raises UserError for a field of the `evaluation` section that is out of range."""
    check_batch("evaluation.batch_size", config.batch_size)
    share = "give a share between 0 and 1"
    rate, unreadable = config.false_alarm_rate, config.max_unreadable
    require(0 < rate < 1, "evaluation.false_alarm_rate", rate, f"{share}, both excluded")
    require(0 <= unreadable <= 1, "evaluation.max_unreadable", unreadable, share)
    require(config.bootstrap >= 1, "evaluation.bootstrap", config.bootstrap, "give 1 or more")


def calibrate(
    score: Score, params: Params, examples: Sequence[Example], config: Any
) -> dict[str, Any]:
    """Scores held-out normal images: sets the threshold and the colour scale of heat maps.

    The scale, in units of the map: `low` is the median of the images' median pixels; `limit` is
    exceeded anywhere on a normal image at most at the false-alarm rate (the same quantile as the
    threshold, of the maps' maxima); `high` lies as far above it again. So the upper half of the
    colours is kept for what normal images hardly ever reach.

    Returns: threshold (see `set_threshold`), scale {low, limit, high}, scores [{path, score}],
    skipped, compile_seconds; plain values, to be kept as JSON with the fitted model.
    Raises: UserError without images, with too many unreadable ones, or scores not finite.
    """
    require(len(examples) > 0, "calibration images", 0, "raise data.calibration_fraction")
    seconds, images, medians, maxima = [], [], [], []
    for image in score_images(score, params, examples, config, "calibrate", seconds):
        if not image.problem:
            medians.append(np.median(image.map))
            maxima.append(np.max(image.map))
        images.append(_without_pixels(image))
    skipped = check_readable(images, config.evaluation.max_unreadable)
    rate = config.evaluation.false_alarm_rate
    scored = [image for image in images if not image.problem]
    low = float(np.median(medians))
    limit = max(thresholds.set_threshold(np.array(maxima), rate)["value"], low)
    margin = max(limit - low, 1e-6 * max(1.0, abs(low)))  # all maps flat: any scale will do
    return {
        "threshold": thresholds.set_threshold(np.array([image.score for image in scored]), rate),
        "scale": {"low": low, "limit": low + margin, "high": low + 2 * margin},
        "scores": [{"path": image.example.path, "score": image.score} for image in scored],
        "skipped": skipped,
        "compile_seconds": _costs(seconds, config, params)["compile_seconds"],
    }


def evaluate(
    score: Score,
    params: Params,
    splits: Splits,
    calibration: dict[str, Any],
    config: Any,
    fit_record: dict[str, Any],
) -> tuple[dict[str, Any], list[Row]]:
    """Measures the detector on the test images at the threshold of `calibration`.

    Anomalous images whose mask is not known, or marks nothing, are left out of the pixel figures
    and counted there as `left_out`; normal ones count as normal pixels throughout. Only `oracle`
    has seen test labels before it decided anything.

    Returns: (results, rows): results as plain values for results.json, a row for each image that
    could be read.
    Raises: UserError without test images, with too many unreadable ones (or a whole class), or
    scores not finite.
    """
    require(len(splits.test) > 0, "test images", 0, "check data.name and data.root")
    origin = calibration["scale"]["low"]
    seconds, images, counts, left_out = [], [], [], 0
    for image in score_images(score, params, splits.test, config, "evaluate", seconds):
        if not image.problem and image.example.label == 1 and not image.mask.any():
            left_out += 1
        elif not image.problem:
            counts.append(pixel_metrics.count_pixels(image.map, image.mask, origin))
        images.append(_without_pixels(image))
    skipped = check_readable(images, config.evaluation.max_unreadable)
    scored = [image for image in images if not image.problem]
    rows = [_row(image, calibration["threshold"]["value"]) for image in scored]
    cost = _costs(seconds, config, params)
    results = {
        "name": config.name,
        "config": config.to_dict(),
        "environment": environment_of(config),
        "fit": fit_record,
        "counts": _count(splits, calibration, rows, skipped),
        "threshold": calibration["threshold"],
        "scale": calibration["scale"],
        **_quality(rows, config),
        "pixel": pixel_metrics.measure_pixels(counts, config.evaluation.bootstrap, config.seed)
        | {"left_out": left_out},
        "score_info": _mean_info(scored),
        # Where calibration ran in this process, it was the one that waited for the compiler.
        "cost": cost
        | {"compile_seconds": max(cost["compile_seconds"], calibration["compile_seconds"])},
        "skipped": calibration["skipped"] + skipped,
    }
    return results, rows


def predict(
    score: Score,
    params: Params,
    examples: Sequence[Example],
    calibration: dict[str, Any],
    config: Any,
) -> Iterator[Prediction]:
    """Scores new images one after the other, flagged at the threshold of the calibration scores.

    That is for the false-alarm rate of `config`, which need not be the one evaluated with.

    Labels are not looked at. Raises: UserError without images, when none can be read, or when a
    score is not finite.
    """
    require(len(examples) > 0, "images to predict", 0, "give a folder that holds images")
    scores = np.array([each["score"] for each in calibration["scores"]])
    threshold = thresholds.set_threshold(scores, config.evaluation.false_alarm_rate)["value"]
    problem, read = "", 0
    for image in score_images(score, params, examples, config, "predict"):
        read, problem = read + (not image.problem), problem or image.problem
        yield Prediction(_row(image, threshold), image.image, image.map, image.problem)
    if not read:
        raise UserError(f"none of {len(examples)} images can be read (first: {problem})")


def _quality(rows: Sequence[Row], config: Any) -> dict[str, Any]:
    """The image figures: image, kinds, oracle."""
    label, score, group = (
        np.array([row[name] for row in rows]) for name in ("label", "score", "group")
    )
    kind, bootstrap = [row["kind"] for row in rows], (config.evaluation.bootstrap, config.seed)
    threshold = rows[0]["threshold"]
    kinds = image_metrics.measure_kinds(label, score, group, kind, *bootstrap)
    for name, figures in kinds.items():
        of_kind = (label == 1) & (np.array(kind, dtype=object) == name)
        figures["r2"] = thresholds.measure_shares(label[of_kind], score[of_kind], threshold)["r2"]
    return {
        "image": image_metrics.measure_images(label, score, group, *bootstrap)
        | thresholds.measure_shares(label, score, threshold),
        "kinds": kinds,
        "oracle": thresholds.find_oracle(label, score),
    }


def _row(image: ScoredImage, threshold: float) -> Row:
    return {
        "path": image.example.path,
        "kind": image.example.kind,
        "group": image.example.group,
        "label": image.example.label,
        "score": None if image.problem else image.score,
        "threshold": threshold,
        "flagged": None if image.problem else image.score > threshold,
    }


def _count(
    splits: Splits, calibration: dict[str, Any], rows: Sequence[Row], skipped: Sequence[Any]
) -> dict[str, int]:
    anomalous = sum(row["label"] == 1 for row in rows)
    return {
        "train": len(splits.train),
        "calibration": calibration["threshold"]["calibration_images"],
        "test_normal": len(rows) - anomalous,
        "test_anomalous": anomalous,
        "test_skipped": len(skipped),
    }


def _mean_info(scored: Sequence[ScoredImage]) -> dict[str, float]:
    return {name: float(np.mean([image.info[name] for image in scored])) for name in scored[0].info}


def _costs(seconds: Sequence[float], config: Any, params: Params) -> dict[str, Any]:
    return measure_costs(seconds, config.evaluation.batch_size, params)


def _without_pixels(image: ScoredImage) -> ScoredImage:
    """What may be kept of every image: memory must not grow with their resolution."""
    example = image.example._replace(image=b"", mask=None)
    return image._replace(example=example, image=NO_MAP, mask=NO_MAP, map=NO_MAP)
