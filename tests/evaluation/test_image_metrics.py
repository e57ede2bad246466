"""Metrics against scikit-learn and against brute force over all pixels."""

import time

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from sparse_ad.evaluation import image_metrics, pixel_metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _labels_and_scores(rng, count=80, decimals=1):
    label = np.arange(count) % 2
    return label, np.round(rng.normal(label, 1), decimals)  # rounded: ties


def measure(label, score, resamples, seed):
    """Of images that have nothing to do with each other."""
    return image_metrics.measure_images(label, score, np.arange(len(label)), resamples, seed)


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
        # a 2.5 % quantile of 1000 samples of deviation 0.05 is itself uncertain by 0.004
        assert [ours[name]["low"], ours[name]["high"]] == pytest.approx(bounds, abs=0.016)


@pytest.mark.parametrize("both", [False, True], ids=("of one class", "of both"))
def test_copies_of_an_image_narrow_no_interval(rng, both):
    """Five copies each, told to be of one group: the interval stays, where it else would halve."""
    label, score = _labels_and_scores(rng)
    group = np.arange(80) // 2 if both else np.arange(80)
    alone = image_metrics.measure_images(label, score, group, 300, seed=0)["auroc"]
    copies = [np.tile(each, 5) for each in (label, score, group)]
    assert image_metrics.measure_images(*copies, 300, seed=0)["auroc"] == pytest.approx(alone)
    apart = measure(*copies[:2], 300, seed=0)["auroc"]
    assert apart["high"] - apart["low"] < 0.7 * (alone["high"] - alone["low"])


def test_groups_are_drawn_whole_and_each_class_keeps_its_own(rng):
    label = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    group = np.array(["b", "b", "a", "a", "c", "c", "d", "e"])
    weight = image_metrics.draw_images(label, group, 500, rng)
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
    assert mirrored["auroc"]["value"] == pytest.approx(1 - plain["auroc"]["value"])


def test_perfect_random_and_inverted():
    label = np.repeat([0, 1], 50)
    for score, auroc in ((label, 1.0), (np.ones(100), 0.5), (1 - label, 0.0)):
        figure = measure(label, score, 50, seed=0)["auroc"]
        assert figure == {"value": auroc, "low": auroc, "high": auroc}


@pytest.mark.parametrize(("label", "missing"), [(0, "anomalous"), (1, "normal")])
def test_one_class_is_told_not_raised(label, missing):
    figures = measure(np.full(4, label), np.arange(4.0), 10, seed=0)
    assert figures["auroc"]["value"] is None
    assert missing in figures["ap"]["reason"]


def test_kinds_are_measured_against_all_normal_images(rng):
    label, score = _labels_and_scores(rng)
    kind = np.where(label == 0, "good", np.where(np.arange(80) < 40, "cut", "hole")).tolist()
    kinds = image_metrics.measure_kinds(label, score, np.arange(80), kind, 20, seed=0)
    assert {name: figures["count"] for name, figures in kinds.items()} == {"cut": 20, "hole": 20}
    some = (label == 0) | (np.array(kind) == "cut")
    assert kinds["cut"]["auroc"]["value"] == roc_auc_score(label[some], score[some])


def test_a_thousand_resamples_of_a_thousand_images_are_fast(rng):
    label, score = _labels_and_scores(rng, count=1000, decimals=9)
    start = time.perf_counter()
    measure(label, score, 1000, seed=0)
    assert time.perf_counter() - start < 5  # 0.2 s on an idle core


def _maps(rng, images=6, size=40, offset=0.0, scale=1.0):
    """Smooth maps and blobs of several sizes, one pair of them touching at a corner."""
    masks = np.zeros((images, size, size), bool)
    masks[1, 4:20, 4:20] = masks[1, 20:24, 20:24] = True  # one region: 8-connected
    masks[2, 30:33, 5:8] = masks[2, 5:15, 30:33] = True
    masks[3, 0, 0] = True
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 1, 1)) * 3
    return np.float32(offset + scale * (noise + 0.8 * masks)), masks


def _direct_aupro(maps, masks, limit):
    """The definition: sweep every score as a threshold, average the overlap of every region."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[index][labels == region] for region in range(1, count + 1)]
    normal = np.sort(maps[~masks])
    levels = np.unique(maps)[::-1]
    rate = [0.0, *(1 - np.searchsorted(normal, levels) / len(normal))]
    overlap = [0.0, *np.mean([[(r >= level).mean() for level in levels] for r in regions], axis=0)]
    at = np.append(np.array(rate)[np.array(rate) < limit], limit)
    return np.trapezoid(np.interp(at, *_last_of_ties(rate, overlap)), at) / limit


def _last_of_ties(rate, overlap):
    """np.interp wants rising positions: a jump becomes a steep line."""
    return np.array(rate) + 1e-12 * np.arange(len(rate)), overlap


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (5000.0, 10.0), (-3.0, 1e-3)])
def test_pixel_metrics_agree_with_brute_force(rng, offset, scale):
    maps, masks = _maps(rng, offset=offset, scale=scale)
    counts = [
        pixel_metrics.count_pixels(one, mask, origin=float(np.median(maps)))
        for one, mask in zip(maps, masks, strict=True)
    ]
    figures = pixel_metrics.measure_pixels(counts, 200, seed=0)
    # bins are 0.8 % of the distance to the median wide. Over ten seeds the largest errors were
    # 5e-5 (AUROC), 4e-4 and 1e-3 (AUPRO to 0.3 and to 0.05, where few bins are left)
    exact = roc_auc_score(masks.ravel(), maps.ravel())
    assert figures["auroc"]["value"] == pytest.approx(exact, abs=2e-4)
    for limit in (0.3, 0.05):
        exact = _direct_aupro(maps, masks, limit)
        assert figures[f"aupro_{limit}"]["value"] == pytest.approx(exact, abs=2e-3)
    for figure in (figures["auroc"], figures["aupro_0.3"], figures["aupro_0.05"]):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert (figures["images"], figures["regions"]) == (3, 4)


def test_pixel_metrics_are_exact_where_bins_hold_one_score(rng):
    """Scores with 7 bits of mantissa have a bin each: only float64 rounding is left."""
    maps, masks = _maps(rng)
    maps = np.float32(np.round(maps * 8) / 8)
    counts = [
        pixel_metrics.count_pixels(*each, origin=0.0) for each in zip(maps, masks, strict=True)
    ]
    figures = pixel_metrics.measure_pixels(counts, 2, seed=0)
    exact = roc_auc_score(masks.ravel(), maps.ravel())
    assert figures["auroc"]["value"] == pytest.approx(exact, abs=1e-12)
    exact = _direct_aupro(maps, masks, 0.3)
    assert figures["aupro_0.3"]["value"] == pytest.approx(exact, abs=1e-9)


def test_bins_order_as_the_scores(rng):
    values = np.float32(rng.normal(size=1000) * 10.0 ** rng.integers(-20, 20, 1000))
    values = np.sort(np.append(values, [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38])).astype("f4")
    bins = pixel_metrics._bin(values, 0.0)
    assert (np.diff(bins) >= 0).all() and bins.min() >= 0 and bins.max() < 65536
    zeros = pixel_metrics._bin(np.float32([0.0, -0.0]), 0.0)
    assert zeros[0] == zeros[1]


def test_perfect_and_inverted_maps(rng):
    masks = _maps(rng)[1]
    for sign, area in ((1, 1.0), (-1, 0.0)):
        counts = [pixel_metrics.count_pixels(sign * np.float32(mask), mask, 0.5) for mask in masks]
        figures = pixel_metrics.measure_pixels(counts, 10, seed=0)
        assert figures["auroc"]["value"] == area
        # joined by a straight line from (0, 0): at rate 0.05 the overlap is 1 or (almost) 0
        assert figures["aupro_0.05"]["value"] == pytest.approx(area, abs=0.01)


def test_every_region_counts_alike():
    """A region of 100 pixels found and one of 1 pixel missed: overlap 1/2, whatever the sizes."""
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    found = np.float32(mask)
    found[15, 15] = -1
    counts = [pixel_metrics.count_pixels(found, mask, 0.0)]
    figures = pixel_metrics.measure_pixels(counts, 5, seed=0)
    assert figures["aupro_0.05"]["value"] == pytest.approx(0.5)


def test_without_masks_the_reason_is_told():
    counts = [pixel_metrics.count_pixels(np.ones((4, 4)), np.zeros((4, 4), bool), 0.0)]
    figures = pixel_metrics.measure_pixels(counts, 5, seed=0)
    assert figures["auroc"]["value"] is None and "mask" in figures["aupro_0.3"]["reason"]
    assert pixel_metrics.measure_pixels([], 5, seed=0)["images"] == 0


def test_size_of_counts_does_not_grow_with_resolution(rng):
    maps = rng.lognormal(size=(1024, 1024)).astype("f4")
    counts = pixel_metrics.count_pixels(maps, maps > 20, 1.0)
    assert len(counts.bin) < 8192  # of 1,048,576 pixels
    assert counts.normal.sum() + counts.anomalous.sum() == maps.size
    assert counts.region.sum() == pytest.approx(counts.regions)
