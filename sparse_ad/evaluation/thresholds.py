"""Thresholds on the image score: set on held-out normal images, or by an oracle on test labels."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from sparse_ad.errors import UserError, require
from sparse_ad.evaluation.bootstrap import undefined
from sparse_ad.evaluation.results import Choice, Interval, Oracle, Rates, Threshold


def set_threshold(scores: Float[np.ndarray, " m"], false_alarm_rate: float) -> Threshold:
    """Sets the threshold that a new normal image exceeds with at most the false-alarm rate.

        threshold = the ceil((m + 1)(1 - rate))-th smallest of the m calibration scores

    The guarantee holds for any score distribution, on average over calibration sets, as long as
    calibration and new normal images are exchangeable: images of one group (lesion, driver) are
    not independent, and many of few groups guarantee less than their number says. With fewer than
    (1 - rate) / rate images no score of theirs can guarantee it: the largest is used, and
    `guaranteed` is False.

    Raises: UserError for a rate outside 0..1 or no calibration scores.
    Source: Angelopoulos and Bates, "A gentle introduction to conformal prediction and
    distribution-free uncertainty quantification", arXiv 2107.07511, section 1.
    """
    rate = false_alarm_rate
    require(
        0 < rate < 1, "false_alarm_rate", rate, "give a fraction between 0 and 1, both excluded"
    )
    if not len(scores):
        raise UserError("no calibration images: raise data.calibration_fraction or add images")
    exact = Fraction(str(float(rate)))  # (19 + 1)(1 - 0.05) must be 19, not 19.000000000000004
    rank = math.ceil((len(scores) + 1) * (1 - exact))
    return Threshold(
        value=float(np.sort(scores)[min(rank, len(scores)) - 1]),
        guaranteed=rank <= len(scores),
        false_alarm_rate=float(rate),
        calibration_images=len(scores),
        images_needed=math.ceil((1 - exact) / exact),
    )


def flag(score: Float[np.ndarray, " n"], threshold: float) -> Bool[np.ndarray, " n"]:
    """Returns which images are called anomalous: score > threshold."""
    return np.asarray(score, np.float64) > threshold  # float32 would round the threshold


def measure_rates(
    label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"], threshold: float
) -> Rates:
    """Measures R1 and R2, the fractions of normal and of anomalous images classified correctly.

    With Wilson's 95 % interval: unlike a bootstrap it does not collapse to a point when every
    image is right. It treats images as independent, which those of one lesion or driver are not:
    there it is too narrow.
    """
    flagged = flag(score, threshold)
    return Rates(r1=_fraction(~flagged[label == 0]), r2=_fraction(flagged[label == 1]))


def find_oracle(label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> Oracle:
    """Finds the thresholds that the test labels would choose: an upper bound, never a result.

    `f1`: the largest F1 = 2 precision recall / (precision + recall); `balanced`: the largest
    (R1 + R2) / 2. Images are flagged when score > threshold.
    """
    score = np.asarray(score, np.float64)
    if len(np.unique(label)) < 2:
        return Oracle(None, None)
    precision, recall, at_least = precision_recall_curve(label, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    false_positive, true_positive, or_more = roc_curve(label, score, drop_intermediate=False)
    balanced = (1 - false_positive + true_positive) / 2
    return Oracle(
        f1=_choice(label, score, f1[:-1], at_least),
        balanced=_choice(label, score, balanced[1:], or_more[1:]),
    )


def _choice(label, score, criterion, at_least) -> Choice:
    """The best of thresholds that mean score >= threshold, expressed as score > threshold."""
    best = int(np.argmax(criterion))
    threshold = float(np.nextafter(at_least[best], -np.inf))
    flagged = flag(score, threshold)
    r1, r2 = (float((flagged[label == value] == value).mean()) for value in (0, 1))
    return Choice(float(criterion[best]), threshold, r1, r2)


def _fraction(correct: Bool[np.ndarray, " n"]) -> Interval:
    if not len(correct):
        return undefined("no such images")
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    return Interval(float(correct.mean()), float(interval.low), float(interval.high))
