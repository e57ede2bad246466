"""Quality of anomaly maps against masks, in one pass that forgets every map at once.

Each map becomes a sparse histogram over at most 65,536 bins: memory grows neither with the
resolution nor with the pixels, and a bootstrap over images is a matrix product.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse
from tqdm import tqdm

from sparse_ad.evaluation import image_metrics

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
    anomaly_map: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], origin: float
) -> PixelCounts:
    """Counts the pixels of one map by score bin, anomalous (mask True) and normal apart.

    The bin is the top BITS of the float32 score - origin, made to order as the scores do, so a
    bin is under 1 % of its distance to `origin` wide. With the origin at a typical normal score,
    bins are fine where decisions fall, whatever offset and unit the detector's scores have.
    Regions are 8-connected.

    Source: regions as in MVTec's evaluation code (`generic_util`, `pro_curve_util`).
    """
    labels, regions = ndimage.label(mask, structure=np.ones((3, 3)))
    size = np.bincount(labels.ravel())
    share = np.where(labels > 0, 1.0 / size[labels], 0.0)
    place = _bin(anomaly_map, origin).ravel()
    total, anomalous, region = (
        np.bincount(place, weight, 1 << BITS) for weight in (None, np.ravel(mask), share.ravel())
    )
    used = np.flatnonzero(total)
    return PixelCounts(used, (total - anomalous)[used], anomalous[used], region[used], regions)


def measure_pixels(counts: Sequence[PixelCounts], resamples: int, seed: int) -> dict[str, Any]:
    """Measures pixel AUROC and AUPRO at LIMITS, with intervals from a bootstrap over images.

    Images with and without anomalous pixels are resampled apart (stratified). Exact but for
    scores that share a bin, which count as ties.

    Returns: {"auroc": {"value", "low", "high"}, "aupro_0.3", "aupro_0.05", "images" (with
    anomalous regions), "regions"}; values None, with the reason, where nothing can be measured.
    Differs: published AUROC and AUPRO come without intervals, often from maps at full resolution.
    """
    names = ("auroc", *(f"aupro_{limit}" for limit in LIMITS))
    known = {
        "images": sum(count.regions > 0 for count in counts),
        "regions": sum(count.regions for count in counts),
    }
    if reason := _missing(counts):
        return dict.fromkeys(names, image_metrics.undefined(reason)) | known
    tables = [_table(counts, field) for field in ("normal", "anomalous", "region")]
    values = _measure(*(np.asarray(table.sum(0)).ravel() for table in tables))
    samples = np.concatenate(
        [
            np.stack(_measure(*(weight @ table for table in tables)), axis=-1)
            for weight in _resampled_images(counts, tables[0].shape[1], resamples, seed)
        ]
    )
    intervals = map(image_metrics.with_interval, values, samples.T)
    return dict(zip(names, intervals, strict=True)) | known


def _bin(values: Float[np.ndarray, "h w"], origin: float) -> Int[np.ndarray, "h w"]:
    """Bins that order as the scores: floats order as their bits, negative ones the other way."""
    shifted = np.asarray(values, np.float32) - np.float32(origin) + np.float32(0)  # no -0
    bits = shifted.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> (32 - BITS)).astype(np.int32)


def _measure(normal, anomalous, region) -> tuple[np.ndarray, ...]:
    aupro = (image_metrics.weighted_aupro(normal, region, limit) for limit in LIMITS)
    return image_metrics.weighted_auroc(normal, anomalous), *aupro


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


def _resampled_images(counts: Sequence[PixelCounts], width: int, resamples: int, seed: int):
    """Chunks of how often each image was drawn, [b n]."""
    rng = np.random.default_rng(seed)
    marked = np.array([count.regions > 0 for count in counts])
    strata = [np.flatnonzero(some) for some in (marked, ~marked) if some.any()]
    with tqdm(total=resamples, desc="pixel intervals", unit="resample", delay=2) as bar:
        for size in image_metrics.chunk_sizes(resamples, max(width, len(counts))):
            yield sum(image_metrics.resample(stratum, len(counts), size, rng) for stratum in strata)
            bar.update(size)
