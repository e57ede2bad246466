"""Pixel metrics: AUROC and AUPRO of anomaly maps against masks; maps are not kept.

Each map becomes a sparse histogram over at most 65,536 bins: memory grows neither with the
resolution nor with the pixels, and a bootstrap over images is a matrix product.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse
from tqdm import tqdm

from sparse_ad.evaluation.bootstrap import chunk_sizes, resample, undefined, with_interval
from sparse_ad.evaluation.image_metrics import Values, weighted_auroc
from sparse_ad.evaluation.results import PixelMetrics

LIMITS = (0.3, 0.05)  # false-positive rates up to which AUPRO is measured
BITS = 16  # of a float32 that make its bin: sign, 8 of exponent, 7 of mantissa


class PixelCounts(NamedTuple):
    """The pixels of one image, counted by the bin of their score (only bins that hold any)."""

    bin: Int[np.ndarray, " l"]  # ascending, as the scores
    normal: Float[np.ndarray, " l"]
    anomalous: Float[np.ndarray, " l"]
    region: Float[np.ndarray, " l"]  # anomalous, each weighted by 1 / (pixels of its region)
    regions: int  # connected anomalous regions


def count_pixels(
    anomaly_map: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    origin: float,
    ignored: Bool[np.ndarray, "h w"] | None = None,
) -> PixelCounts:
    """Counts the pixels of one map by score bin: normal and anomalous (mask True) ones.

    Ignored pixels are neither. A region consists of what is left of it; one of which nothing is
    left does not count.

    The bin is the top BITS of the float32 score - origin, reordered so that bins ascend with the
    scores; a bin is under 1 % of its distance to `origin` wide. With the origin at a typical normal
    score, bins are fine where decisions fall, whatever offset and unit the detector's scores have.
    Regions are 8-connected.

    Source: regions as in MVTec's evaluation code (`generic_util`, `pro_curve_util`).
    """
    labelled: Any = ndimage.label(mask, structure=np.ones((3, 3)))
    labels, regions = labelled
    if ignored is not None and ignored.any():
        anomaly_map, mask, labels = (each[~ignored] for each in (anomaly_map, mask, labels))
        regions = len(np.unique(labels[labels > 0]))
    size = np.bincount(labels.ravel())
    fraction = np.where(labels > 0, 1.0 / size[labels], 0.0)
    bins = _bin(anomaly_map, origin).ravel()
    total, anomalous, region = (
        np.bincount(bins, weight, 1 << BITS) for weight in (None, np.ravel(mask), fraction.ravel())
    )
    used = np.flatnonzero(total)
    return PixelCounts(used, (total - anomalous)[used], anomalous[used], region[used], regions)


def measure_pixels(counts: Sequence[PixelCounts], resamples: int, seed: int) -> PixelMetrics:
    """Measures pixel AUROC and AUPRO at LIMITS, with intervals from a bootstrap over images.

    Images with and without anomalous pixels are resampled separately (stratified). Exact but for
    scores that share a bin, which count as ties. Undefined, with the reason, without anomalous
    regions or without normal pixels.

    Differs: published AUROC and AUPRO come without intervals, often from maps at full resolution.
    """
    images = sum(count.regions > 0 for count in counts)
    regions = sum(count.regions for count in counts)
    if reason := _missing(counts):
        nothing = undefined(reason)
        return PixelMetrics(nothing, nothing, nothing, images, regions)
    tables = [_table(counts, field) for field in ("normal", "anomalous", "region")]
    totals = [np.asarray(table.sum(0)).ravel() for table in tables]
    weights = _resampled_images(counts, len(totals[0]), resamples, seed)
    samples = [_measure(*(weight @ table for table in tables)) for weight in weights]
    auroc, aupro_30, aupro_05 = (
        with_interval(float(value), np.concatenate(chunks))
        for value, *chunks in zip(_measure(*totals), *samples, strict=True)
    )
    return PixelMetrics(auroc, aupro_30, aupro_05, images, regions)


def weighted_aupro(
    normal: Float[np.ndarray, "*b l"], region: Float[np.ndarray, "*b l"], limit: float
) -> Values:
    """Area under the per-region-overlap curve up to the false-positive rate `limit`, over `limit`.

    `region` holds 1 / (pixels of its region) for every anomalous pixel, so that its fraction above
    a level is the overlap averaged over regions. The curve is joined by straight lines, also at
    the limit.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.
    """
    rate, overlap = (_fraction_above(weight) for weight in (normal, region))
    step = np.diff(rate, axis=-1)
    inside = np.clip(limit - rate[..., :-1], 0, step)  # how much of each step is below the limit
    slope = np.diff(overlap, axis=-1) / np.where(step > 0, step, 1)
    return ((overlap[..., :-1] + slope * inside / 2) * inside).sum(-1) / limit


def _fraction_above(weight: Float[np.ndarray, "*b l"]) -> Float[np.ndarray, "*b l1"]:
    """The fraction of weight at or above each level, from none of it to all of it."""
    above = np.cumsum(weight[..., ::-1], axis=-1) / weight.sum(-1, keepdims=True)
    return np.concatenate([np.zeros_like(above[..., :1]), above], axis=-1)


def _bin(values: Float[np.ndarray, "*hw"], origin: float) -> Int[np.ndarray, "*hw"]:
    """Bins that order as the scores: floats order as their bits, negative ones the other way."""
    shifted = np.asarray(values, np.float32) - np.float32(origin) + np.float32(0)  # no -0
    bits = shifted.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> (32 - BITS)).astype(np.int32)


def _measure(normal, anomalous, region) -> tuple[Values, ...]:
    aupro = (weighted_aupro(normal, region, limit) for limit in LIMITS)
    return weighted_auroc(normal, anomalous), *aupro


def _missing(counts: Sequence[PixelCounts]) -> str:
    if not any(count.regions for count in counts):
        return "no anomalous image with a mask"
    if not any(count.normal.sum() for count in counts):
        return "no normal pixels"
    return ""


def _table(counts: Sequence[PixelCounts], field: str) -> sparse.csr_matrix:
    """Pixels[n l] of every image in every bin that any image uses."""
    used, column = np.unique(np.concatenate([count.bin for count in counts]), return_inverse=True)
    ends = np.cumsum([0, *(len(count.bin) for count in counts)])
    weight = np.concatenate([getattr(count, field) for count in counts])
    return sparse.csr_matrix((weight, column, ends), shape=(len(counts), len(used)))


def _resampled_images(
    counts: Sequence[PixelCounts], width: int, resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "b n"]]:
    """Chunks of how often each image was drawn."""
    rng = np.random.default_rng(seed)
    marked = np.array([count.regions > 0 for count in counts])
    strata = [np.flatnonzero(chosen) for chosen in (marked, ~marked) if chosen.any()]
    with tqdm(total=resamples, desc="pixel intervals", unit="resample", delay=2) as bar:
        for size in chunk_sizes(resamples, max(width, len(counts))):
            drawn = [resample(stratum, len(counts), size, rng) for stratum in strata]
            yield np.sum(drawn, axis=0)
            bar.update(size)
