"""Percentile bootstrap over images or over groups of images.

Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), section 13.3; of groups:
Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007), 369-390.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

from sparse_ad.evaluation.results import Interval

CONFIDENCE = 0.95  # of every interval
CELLS = 1_000_000  # of the resampled histograms held at a time: bounds memory


def draw_images(
    label: Int[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "b n"]:
    """Draws as many groups as there are, with replacement; returns how often each image counts.

    Images of one lesion or one driver are nearly the same: drawn one by one they would count as
    more images than they are. Groups of normal images, of anomalous ones and of both are drawn
    separately (stratified), so that no resample lacks a class.
    """
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[member]  # groups by their first image
    holds = [np.bincount(rank[label == value], minlength=len(first)) > 0 for value in (0, 1)]
    weight = np.zeros((resamples, len(first)))
    for stratum in (holds[0] & ~holds[1], holds[1] & ~holds[0], holds[0] & holds[1]):
        count = int(stratum.sum())
        if count:
            weight[:, stratum] = resample(np.arange(count), count, resamples, rng)
    return weight[:, rank]


def resample(
    index: Int[np.ndarray, " n"], length: int, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "b length"]:
    """Draws n of n indices with replacement, `resamples` times; counts the draws of each index."""
    drawn = index[rng.integers(len(index), size=(resamples, len(index)))]
    cell = drawn + length * np.arange(resamples)[:, None]
    return np.bincount(cell.ravel(), minlength=resamples * length).reshape(resamples, length) * 1.0


def chunk_sizes(resamples: int, width: int) -> list[int]:
    """Splits `resamples` so that a chunk of rows of `width` stays under CELLS."""
    chunk = max(1, min(resamples, CELLS // max(width, 1)))
    return [min(chunk, resamples - start) for start in range(0, resamples, chunk)]


def with_interval(value: float, samples: Float[np.ndarray, " b"]) -> Interval:
    """Returns a metric with the percentile interval of its finite bootstrap samples."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(samples[np.isfinite(samples)], ends)
    return Interval(float(value), float(low), float(high))


def undefined(reason: str) -> Interval:
    """Returns a metric that is not defined, with the reason."""
    return Interval(None, None, None, reason)
