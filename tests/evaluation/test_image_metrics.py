"""Image metrics against scikit-learn and a plain bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from sparse_ad.evaluation import image_metrics
from sparse_ad.evaluation.bootstrap import draw_images
from sparse_ad.evaluation.results import Interval


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _labels_and_scores(rng, count=80, decimals=1):
    label = np.arange(count) % 2
    return label, np.round(rng.normal(label, 1), decimals)  # rounded: ties


def measure(label, score, resamples, seed):
    """Of images that have nothing to do with each other."""
    return image_metrics.rank_images(label, score, np.arange(len(label)), resamples, seed)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_weighted_metrics_agree_with_scikit_learn(rng, decimals):
    label, score = _labels_and_scores(rng, decimals=decimals)
    weight = rng.integers(0, 4, len(label)).astype(float)
    levels, level = np.unique(score, return_inverse=True)
    normal, anomalous = (
        np.bincount(level, weight * (label == value), len(levels)) for value in (0, 1)
    )
    # both are sums of 80 float64 products: 1e-12 is rounding
    expected = roc_auc_score(label, score, sample_weight=weight)
    assert image_metrics.weighted_auroc(normal, anomalous) == pytest.approx(expected, abs=1e-12)
    expected = average_precision_score(label, score, sample_weight=weight)
    assert image_metrics.weighted_ap(normal, anomalous) == pytest.approx(expected, abs=1e-12)


def test_intervals_agree_with_a_plain_bootstrap(rng):
    label, score = _labels_and_scores(rng)
    ours = measure(label, score, 4000, seed=1)
    samples = []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(np.flatnonzero(label == value), 40) for value in (0, 1)])
        samples.append(
            [
                metric(label[drawn], score[drawn])
                for metric in (roc_auc_score, average_precision_score)
            ]
        )
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    for name, *bounds in zip(("auroc", "ap"), low, high, strict=True):
        # a 2.5 % quantile of 1000 samples of std 0.05 is itself uncertain by 0.004
        interval = getattr(ours, name)
        assert [interval.low, interval.high] == pytest.approx(bounds, abs=0.016)


@pytest.mark.parametrize("both", [False, True], ids=("of one class", "of both"))
def test_copies_of_an_image_narrow_no_interval(rng, both):
    """Five copies each, told to be of one group: the interval stays, where it else would halve."""
    label, score = _labels_and_scores(rng)
    group = np.arange(80) // 2 if both else np.arange(80)
    alone = image_metrics.rank_images(label, score, group, 300, seed=0).auroc
    copies = [np.tile(each, 5) for each in (label, score, group)]
    assert image_metrics.rank_images(*copies, 300, seed=0).auroc[:3] == pytest.approx(alone[:3])
    apart = measure(*copies[:2], 300, seed=0).auroc
    assert apart.high - apart.low < 0.7 * (alone.high - alone.low)


def test_groups_are_drawn_whole_and_each_class_keeps_its_own(rng):
    label = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    group = np.array(["b", "b", "a", "a", "c", "c", "d", "e"])
    weight = draw_images(label, group, 500, rng)
    for name in "abc":
        assert np.ptp(weight[:, group == name], axis=1).max() == 0
    drawn = {name: weight[:, group == name][:, 0] for name in "abcde"}
    assert np.all(drawn["b"] + drawn["d"] == 2) and np.all(drawn["a"] + drawn["e"] == 2)
    assert np.all(drawn["c"] == 1)  # the only one with images of both
    assert 0.4 < np.mean(drawn["a"] == 1) < 0.6


def test_measures_see_only_the_order(rng):
    label, score = _labels_and_scores(rng)
    plain = measure(label, score, 100, seed=0)
    assert measure(label, np.exp(3 * score), 100, seed=0) == plain
    mirrored = measure(label, -score, 100, seed=0)
    assert mirrored.auroc.value == pytest.approx(1 - plain.auroc.value)


def test_perfect_random_and_inverted():
    label = np.repeat([0, 1], 50)
    for score, auroc in ((1.0 * label, 1.0), (np.ones(100), 0.5), (1.0 - label, 0.0)):
        assert measure(label, score, 50, seed=0).auroc == Interval(auroc, auroc, auroc)


@pytest.mark.parametrize(("label", "missing"), [(0, "anomalous"), (1, "normal")])
def test_one_class_is_undefined_with_the_reason(label, missing):
    ranking = measure(np.full(4, label), np.arange(4.0), 10, seed=0)
    assert ranking.auroc == ranking.ap == Interval(None, None, None, f"no {missing} images")


def test_kinds_are_measured_against_all_normal_images(rng):
    label, score = _labels_and_scores(rng)
    kind = np.where(label == 0, "good", np.where(np.arange(80) < 40, "cut", "hole"))
    kinds = image_metrics.measure_kinds(label, score, np.arange(80), kind, 0.5, 20, seed=0)
    assert {name: metrics.count for name, metrics in kinds.items()} == {"cut": 20, "hole": 20}
    chosen = (label == 0) | (kind == "cut")
    assert kinds["cut"].auroc.value == roc_auc_score(label[chosen], score[chosen])
    assert kinds["hole"].r2.value == np.mean(score[kind == "hole"] > 0.5)


def test_images_have_the_metrics_of_their_ranking_and_of_the_threshold(rng):
    label, score = _labels_and_scores(rng)
    metrics = image_metrics.measure_images(label, score, np.arange(80), 0.5, 20, seed=0)
    assert metrics[:2] == measure(label, score, 20, seed=0)
    assert metrics.r1.value == np.mean(score[label == 0] <= 0.5)
    assert metrics.r2.value == np.mean(score[label == 1] > 0.5)
