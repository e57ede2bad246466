"""Differences of AUROC against closed forms, scikit-learn and each other."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sparse_ad.evaluation import comparison
from sparse_ad.evaluation.comparison import compare
from sparse_ad.evaluation.records import Scored

COUNT = 120  # images of each class


def scored(noise: float, seed: int, name: str = "") -> Scored:
    """Scores that see the same anomalies through own noise; anomalous images are of two kinds."""
    shared = np.random.default_rng(99).normal(size=2 * COUNT)
    label = np.repeat([0, 1], COUNT)
    kind = np.where(label, np.where(np.arange(2 * COUNT) % 2, "crack", "hole"), "good")
    own = np.random.default_rng(seed).normal(size=2 * COUNT)
    path = np.array([f"{name}{index}" for index in range(2 * COUNT)])
    return Scored(path, kind, path, label, label + shared + noise * own)


def delong_std(one: Scored, other: Scored) -> float:
    """The standard error of the difference. Source: DeLong et al., Biometrics 44 (1988), 837."""
    parts = []
    for run in (one, other):
        normal, anomalous = (run.score[run.label == label] for label in (0, 1))
        wins = (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)
        parts.append((wins.mean(1), wins.mean(0)))
    variance = sum(
        np.var(first - second, ddof=1) / len(first) for first, second in zip(*parts, strict=True)
    )
    return float(np.sqrt(variance))


def test_value_and_interval_are_those_of_the_closed_form():
    one, other = scored(0.3, 1), scored(1.0, 2)
    found = compare([one], [other], "all", 4000, 0)
    expected = roc_auc_score(one.label, one.score) - roc_auc_score(other.label, other.score)
    assert found.value == pytest.approx(expected)
    assert found.by_seed == (pytest.approx(expected),) and found.std is None
    width = (found.high - found.low) / (2 * 1.96)
    assert width == pytest.approx(delong_std(one, other), rel=0.1)  # 4000 draws, 240 images


def test_pairing_narrows_the_interval():
    """Unpaired, the interval would be that of two independent metrics."""
    one, other = scored(0.1, 1), scored(0.1, 2)
    alone = [
        compare([run], [run._replace(score=np.zeros(2 * COUNT))], "all", 500, 0)
        for run in (one, other)
    ]
    apart = np.hypot(*(each.high - each.low for each in alone))
    paired = compare([one], [other], "all", 500, 0)
    assert paired.high - paired.low < apart / 2


def test_a_run_against_itself_gains_nothing_and_sides_change_the_sign():
    one, other = scored(0.3, 1), scored(1.0, 2)
    same = compare([one], [one], "all", 50, 0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    there, back = compare([one], [other], "all", 50, 0), compare([other], [one], "all", 50, 0)
    found = [there.value, there.low, there.high]
    np.testing.assert_allclose(found, [-back.value, -back.high, -back.low])


def test_a_kind_is_compared_without_the_others():
    one, other = scored(0.3, 1), scored(1.0, 2)
    spoilt = one._replace(score=np.where(one.kind == "hole", 1e6, one.score))
    assert compare([one], [other], "crack", 50, 0) == compare([spoilt], [other], "crack", 50, 0)
    assert compare([one], [other], "all", 50, 0) != compare([spoilt], [other], "all", 50, 0)


def test_seeds_with_the_same_images_are_drawn_together():
    """Else two copies of one run would look like twice the images."""
    one, other = scored(0.3, 1), scored(1.0, 2)
    single, double = (
        compare([one], [other], "all", 50, 0),
        compare([one] * 2, [other] * 2, "all", 50, 0),
    )
    assert double.std == 0
    assert double[:3] == pytest.approx(single[:3])


def test_seeds_are_averaged():
    these = [scored(0.3, 1, "a"), scored(0.3, 3, "b")]
    those = [scored(1.0, 2, "a"), scored(1.0, 4, "b")]
    found = compare(these, those, "all", 50, 0)
    assert found.value == pytest.approx(np.mean(found.by_seed))
    assert found.std == pytest.approx(abs(np.subtract(*found.by_seed)) / np.sqrt(2))
    assert found.low < found.value < found.high


def test_weights_count_as_scikit_learn_counts_them():
    rng = np.random.default_rng(0)
    run = scored(0.5, 1)
    run = run._replace(score=np.round(run.score))  # ties
    weight = rng.integers(0, 4, (3, 2 * COUNT)).astype(float)
    expected = [roc_auc_score(run.label, run.score, sample_weight=each) for each in weight]
    np.testing.assert_allclose(comparison._auroc(run, weight), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run._replace(path=run.path[::-1]), "different images"),
        (lambda run: Scored(*(column[run.label == 0] for column in run)), "different images"),
    ],
)
def test_other_images_are_not_compared(change, reason):
    found = compare([scored(0.3, 1)], [change(scored(0.3, 1))], "all", 50, 0)
    assert found.value is None and reason in found.reason


def test_a_class_without_images_is_undefined():
    assert compare([scored(0.3, 1)], [scored(1.0, 2)], "dent", 50, 0).value is None
