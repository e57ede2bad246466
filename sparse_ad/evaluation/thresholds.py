"""Thresholds on the image score: set on held-out normal images, or (apart) on the test labels."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from sparse_ad.errors import require


def set_threshold(scores: Float[np.ndarray, " m"], rate: float) -> dict[str, Any]:
    """Sets the threshold that a new normal image passes with probability at most `rate`.

        threshold = the ceil((m + 1)(1 - rate))-th smallest of the m calibration scores

    The promise holds for any score distribution, on average over calibration sets, as long as
    calibration and new normal images are exchangeable: images of one group (lesion, driver) are
    not independent, and many of few groups promise less than their number says. With fewer than
    (1 - rate) / rate images no score of theirs can promise it: the largest is used, and
    `guaranteed` is False.

    Returns: value, guaranteed, false_alarm_rate, calibration_images, images_needed.
    Raises: UserError for a rate outside 0..1 or no calibration scores.
    Source: Angelopoulos and Bates, "A gentle introduction to conformal prediction and
    distribution-free uncertainty quantification", arXiv 2107.07511, section 1.
    """
    field = "evaluation.false_alarm_rate"
    require(0 < rate < 1, field, rate, "give a share between 0 and 1, both excluded")
    require(
        len(scores) > 0, "calibration images", 0, "raise data.calibration_fraction or add images"
    )
    exact = Fraction(str(float(rate)))  # (19 + 1)(1 - 0.05) must be 19, not 19.000000000000004
    rank = math.ceil((len(scores) + 1) * (1 - exact))
    return {
        "value": float(np.sort(scores)[min(rank, len(scores)) - 1]),
        "guaranteed": rank <= len(scores),
        "false_alarm_rate": float(rate),
        "calibration_images": len(scores),
        "images_needed": math.ceil((1 - exact) / exact),
    }


def flag(score: Float[np.ndarray, " n"], threshold: float) -> Bool[np.ndarray, " n"]:
    """Tells which images are called anomalous: score > threshold."""
    return np.asarray(score, np.float64) > threshold  # float32 would round the threshold


def measure_shares(
    label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"], threshold: float
) -> dict[str, Any]:
    """Measures R1 and R2: the shares of normal and of anomalous images on the right side.

    Each is {"value", "low", "high"} with Wilson's 95 % interval: unlike a bootstrap it does not
    collapse to a point when every image is right. It takes images for independent, which those of
    one lesion or driver are not: there it is too narrow.
    """
    flagged = flag(score, threshold)
    label = np.asarray(label)
    return {"r1": _share(~flagged[label == 0]), "r2": _share(flagged[label == 1])}


def find_oracle(label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Finds the thresholds that the test labels would choose: an upper bound, never a result.

    `f1`: the largest F1 = 2 precision recall / (precision + recall); `balanced`: the largest
    (R1 + R2) / 2. Each: value, threshold (flagged when score > threshold), r1, r2. Both are None
    when a class is missing.
    """
    label, score = np.asarray(label), np.asarray(score, np.float64)
    if len(np.unique(label)) < 2:
        return {"f1": None, "balanced": None}
    precision, recall, at_least = precision_recall_curve(label, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    alarms, hits, or_more = roc_curve(label, score, drop_intermediate=False)
    balanced = (1 - alarms + hits) / 2
    return {
        "f1": _choice(label, score, f1[:-1], at_least),
        "balanced": _choice(label, score, balanced[1:], or_more[1:]),
    }


def _choice(label, score, quality, at_least) -> dict[str, Any]:
    """The best of thresholds that mean score >= threshold, said as score > threshold."""
    best = int(np.argmax(quality))
    threshold = float(np.nextafter(at_least[best], -np.inf))
    shares = measure_shares(label, score, threshold)
    return {
        "value": float(quality[best]),
        "threshold": threshold,
        "r1": shares["r1"]["value"],
        "r2": shares["r2"]["value"],
    }


def _share(right: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    if not len(right):
        return {"value": None, "low": None, "high": None, "reason": "no such images"}
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {"value": float(right.mean()), "low": interval.low, "high": interval.high}
