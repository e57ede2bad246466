"""Pixel metrics against scikit-learn and against brute force over all pixels."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from sparse_ad.evaluation import pixel_metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
    metrics = pixel_metrics.measure_pixels(counts, 200, seed=0)
    # bins are 0.8 % of the distance to the median wide. Over ten seeds the largest errors were
    # 5e-5 (AUROC), 4e-4 and 1e-3 (AUPRO to 0.3 and to 0.05, where few bins are left)
    exact = roc_auc_score(masks.ravel(), maps.ravel())
    assert metrics.auroc.value == pytest.approx(exact, abs=2e-4)
    for limit, aupro in ((0.3, metrics.aupro_30), (0.05, metrics.aupro_05)):
        assert aupro.value == pytest.approx(_direct_aupro(maps, masks, limit), abs=2e-3)
    for interval in metrics[:3]:
        assert interval.low <= interval.value <= interval.high
    assert (metrics.images, metrics.regions) == (3, 4)


def test_pixel_metrics_are_exact_where_bins_hold_one_score(rng):
    """Scores with 7 bits of mantissa have a bin each: only float64 rounding is left."""
    maps, masks = _maps(rng)
    maps = np.float32(np.round(maps * 8) / 8)
    counts = [
        pixel_metrics.count_pixels(*each, origin=0.0) for each in zip(maps, masks, strict=True)
    ]
    metrics = pixel_metrics.measure_pixels(counts, 2, seed=0)
    exact = roc_auc_score(masks.ravel(), maps.ravel())
    assert metrics.auroc.value == pytest.approx(exact, abs=1e-12)
    exact = _direct_aupro(maps, masks, 0.3)
    assert metrics.aupro_30.value == pytest.approx(exact, abs=1e-9)


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
        metrics = pixel_metrics.measure_pixels(counts, 10, seed=0)
        assert metrics.auroc.value == area
        # joined by a straight line from (0, 0): at rate 0.05 the overlap is 1 or (almost) 0
        assert metrics.aupro_05.value == pytest.approx(area, abs=0.01)


def test_every_region_counts_alike():
    """A region of 100 pixels found and one of 1 pixel missed: overlap 1/2, whatever the sizes."""
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    found = np.float32(mask)
    found[15, 15] = -1
    counts = [pixel_metrics.count_pixels(found, mask, 0.0)]
    metrics = pixel_metrics.measure_pixels(counts, 5, seed=0)
    assert metrics.aupro_05.value == pytest.approx(0.5)


def test_without_masks_the_reason_is_told():
    counts = [pixel_metrics.count_pixels(np.ones((4, 4)), np.zeros((4, 4), bool), 0.0)]
    metrics = pixel_metrics.measure_pixels(counts, 5, seed=0)
    assert metrics.auroc.value is None and "mask" in metrics.aupro_30.reason
    assert pixel_metrics.measure_pixels([], 5, seed=0).images == 0


def test_size_of_counts_does_not_grow_with_resolution(rng):
    maps = rng.lognormal(size=(1024, 1024)).astype("f4")
    counts = pixel_metrics.count_pixels(maps, maps > 20, 1.0)
    assert len(counts.bin) < 8192  # of 1,048,576 pixels
    assert counts.normal.sum() + counts.anomalous.sum() == maps.size
    assert counts.region.sum() == pytest.approx(counts.regions)


def test_ignored_pixels_are_neither_normal_nor_anomalous(rng):
    """Against scikit-learn, and regions one by one, on kept pixels alone."""
    maps, masks = _maps(rng)
    maps = np.float32(np.round(maps * 8) / 8)  # a bin for each score
    ignored = np.zeros_like(masks)
    ignored[1, 10:13] = True  # through a region, which stays one
    ignored[2, 29:, :20] = True  # all of a region
    ignored[0, :20] = ignored[5, :, ::3] = True
    maps[ignored] = 1000.0 * rng.normal(size=ignored.sum())
    counts = [
        pixel_metrics.count_pixels(each, mask, 0.0, left_out)
        for each, mask, left_out in zip(maps, masks, ignored, strict=True)
    ]
    metrics = pixel_metrics.measure_pixels(counts, 20, seed=0)
    assert metrics.auroc.value == pytest.approx(roc_auc_score(masks[~ignored], maps[~ignored]))
    labels = ndimage.label(masks[1], np.ones((3, 3)))[0]
    assert labels.max() == 1
    regions = [maps[1][masks[1] & ~ignored[1]], maps[2, 5:15, 30:33].ravel(), maps[3, 0, :1]]
    assert (metrics.images, metrics.regions) == (3, len(regions))
    normal, levels = np.sort(maps[~masks & ~ignored]), np.unique(maps[~ignored])[::-1]
    rate = [0.0, *(1 - np.searchsorted(normal, levels) / len(normal))]
    overlap = [0.0, *np.mean([[(r >= level).mean() for level in levels] for r in regions], axis=0)]
    at = np.append(np.array(rate)[np.array(rate) < 0.3], 0.3)
    exact = np.trapezoid(np.interp(at, *_last_of_ties(rate, overlap)), at) / 0.3
    assert metrics.aupro_30.value == pytest.approx(exact, abs=1e-9)
