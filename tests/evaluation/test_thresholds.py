"""The threshold keeps its promise, and the oracle is what a search over all thresholds finds."""

import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.evaluation import thresholds
from sparse_ad.evaluation.results import Interval, Oracle


@pytest.mark.parametrize(
    ("count", "rate", "rank", "guaranteed"),
    [
        (19, 0.05, 19, True),
        (18, 0.05, 18, False),
        (39, 0.05, 38, True),
        (9, 0.1, 9, True),
        (9, 0.3, 7, True),
    ],
)
def test_rank_is_exact(count, rate, rank, guaranteed):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    threshold = thresholds.set_threshold(scores, rate)
    assert threshold.value == rank
    assert threshold.guaranteed is guaranteed
    assert threshold.images_needed == np.ceil((1 - rate) / rate - 1e-9)


@pytest.mark.parametrize("count", [19, 20, 50])
def test_coverage(count):
    """With continuous scores the false-alarm rate is exactly 1 - rank / (count + 1) on average.

    Each of 20,000 trials gives one new image: the std of the mean is under
    sqrt(0.05 * 0.95 / 20000) = 0.0016; four of them are allowed.
    """
    rate, trials, rng = 0.05, 20_000, np.random.default_rng(1)
    scores = rng.standard_cauchy((trials, count + 1))
    values = np.array([thresholds.set_threshold(row[1:], rate).value for row in scores])
    alarms = np.mean(scores[:, 0] > values)
    rank = np.ceil((count + 1) * (1 - rate) - 1e-9)
    assert alarms == pytest.approx(1 - rank / (count + 1), abs=0.0064)
    assert alarms <= rate + 0.0064


def test_float32_threshold_flags_nothing_equal():
    score = np.float32([0.1, 0.2, 0.3])
    value = thresholds.set_threshold(score, 0.25).value
    assert thresholds.flag(score, value).sum() == 0


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_rate_outside_is_refused(rate):
    with pytest.raises(UserError, match="false_alarm_rate"):
        thresholds.set_threshold(np.ones(3), rate)


def test_no_scores_are_refused():
    with pytest.raises(UserError, match="calibration"):
        thresholds.set_threshold(np.ones(0), 0.05)


def test_rates_are_fractions_of_each_class():
    label, score = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 9, 2, 9.0])
    rates = thresholds.measure_rates(label, score, 2.0)
    assert (rates.r1.value, rates.r2.value) == (0.75, 0.5)
    assert rates.r1.low < 0.75 < rates.r1.high
    alone = thresholds.measure_rates(np.zeros(3, int), np.ones(3), 2.0)
    assert alone.r1.value == 1 and alone.r1.low < 1
    assert alone.r2 == Interval(None, None, None, "no such images")


def test_oracle_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 60)
    score = np.float32(np.round(rng.normal(label, 1), 1))  # ties
    best_f1 = best_balanced = 0.0
    for threshold in [-99, *score]:
        flagged = score > threshold
        true_positives = np.sum(flagged & (label == 1))
        best_f1 = max(best_f1, 2 * true_positives / (flagged.sum() + label.sum()))
        balanced = (np.mean(flagged[label == 1]) + np.mean(~flagged[label == 0])) / 2
        best_balanced = max(best_balanced, balanced)
    oracle = thresholds.find_oracle(label, score)
    assert oracle.f1.value == pytest.approx(best_f1)
    assert oracle.balanced.value == pytest.approx(best_balanced)
    rates = (oracle.balanced.r1 + oracle.balanced.r2) / 2
    assert rates == pytest.approx(best_balanced)  # at the threshold that it names


def test_oracle_of_one_class_is_none():
    assert thresholds.find_oracle(np.ones(3, int), np.arange(3.0)) == Oracle(None, None)
