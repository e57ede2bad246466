"""Quality of scores against labels, each figure with its bootstrap interval.

All metrics are functions of two histograms over score levels, ascending: how much normal and how
much anomalous weight each level holds. Images are the case of one level a score, pixels that of
one level a bin, and a bootstrap resample is the same histogram with other weights.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.metrics import average_precision_score, roc_auc_score

CONFIDENCE = 0.95  # of every interval
CELLS = 1_000_000  # of the resampled histograms held at a time: bounds memory


def measure_images(
    label: Int[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Measures AUROC and average precision (AP) with percentile bootstrap intervals.

    Groups (the images of a lesion, of a driver) are resampled whole, see `draw_images`. Both
    figures are 0..1 and see only the order of the scores.

    Returns: {"auroc": {"value", "low", "high"}, "ap": ...}; values None, with the reason, where a
    class is missing.
    Source: values by scikit-learn; intervals by Efron and Tibshirani, "An introduction to the
    bootstrap" (1993), section 13.3; of groups: Field and Welsh, JRSS B 69 (2007), 369-390.
    """
    label, score, group = np.asarray(label), np.asarray(score), np.asarray(group)
    for value, name in ((0, "normal"), (1, "anomalous")):
        if not np.any(label == value):
            return dict.fromkeys(("auroc", "ap"), undefined(f"no {name} images"))
    rng, parts = np.random.default_rng(seed), []
    for size in chunk_sizes(resamples, len(label)):
        weight = draw_images(label, group, size, rng)
        normal, anomalous = weigh_levels(label, score, weight)
        parts.append((weighted_auroc(normal, anomalous), weighted_ap(normal, anomalous)))
    auroc, ap = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "auroc": with_interval(roc_auc_score(label, score), auroc),
        "ap": with_interval(average_precision_score(label, score), ap),
    }


def measure_kinds(
    label: Int[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    kind: list[str],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Measures each anomalous kind against all normal images, as `measure_images` does."""
    label, score, group = np.asarray(label), np.asarray(score), np.asarray(group)
    kind = np.asarray(kind, dtype=object)
    of_kind = {name: (label == 0) | (kind == name) for name in sorted(set(kind[label == 1]))}
    return {
        name: measure_images(label[some], score[some], group[some], resamples, seed)
        | {"count": int(label[some].sum())}
        for name, some in of_kind.items()
    }


def weighted_auroc(
    normal: Float[np.ndarray, "*b l"], anomalous: Float[np.ndarray, "*b l"]
) -> Float[np.ndarray, "*b"]:
    """Area under the ROC curve of weights at ascending score levels; NaN without those of a class.

        P(anomalous > normal) + 1/2 P(anomalous = normal)

    Source: Hanley and McNeil, Radiology 143 (1982), 29-36 (the Wilcoxon form).
    """
    below = np.cumsum(normal, axis=-1) - normal / 2
    with np.errstate(invalid="ignore"):
        return (anomalous * below).sum(-1) / (normal.sum(-1) * anomalous.sum(-1))


def weighted_ap(
    normal: Float[np.ndarray, "*b l"], anomalous: Float[np.ndarray, "*b l"]
) -> Float[np.ndarray, "*b"]:
    """Average precision of weights at ascending score levels: sum of precision x recall gained.

    NaN without weights of anomalous ones.
    """
    hits = np.cumsum(anomalous[..., ::-1], axis=-1)
    alarms = np.cumsum(normal[..., ::-1], axis=-1)
    precision = hits / np.maximum(hits + alarms, np.finfo(float).tiny)  # 0 / 0: no weight yet
    with np.errstate(invalid="ignore"):
        return (precision * anomalous[..., ::-1]).sum(-1) / anomalous.sum(-1)


def weighted_aupro(
    normal: Float[np.ndarray, "*b l"], region: Float[np.ndarray, "*b l"], limit: float
) -> Float[np.ndarray, "*b"]:
    """Area under the per-region-overlap curve up to the false-positive rate `limit`, over `limit`.

    `region` holds 1 / (pixels of its region) for every anomalous pixel, so that its share above a
    level is the overlap averaged over regions. The curve is joined by straight lines, also at the
    limit.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.
    """
    rate, overlap = (_share_above(weight) for weight in (normal, region))
    step = np.diff(rate, axis=-1)
    inside = np.clip(limit - rate[..., :-1], 0, step)  # how much of each step is below the limit
    slope = np.diff(overlap, axis=-1) / np.where(step > 0, step, 1)
    return ((overlap[..., :-1] + slope * inside / 2) * inside).sum(-1) / limit


def draw_images(
    label: Int[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "b n"]:
    """Draws as many groups as there are, with replacement; returns how often each image counts.

    Images of one lesion or one driver say nearly the same: drawn apart they would pass for more
    images than they are. Groups of normal images, of anomalous ones and of both are drawn apart
    (stratified), so that no resample lacks a class.
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


def weigh_levels(
    label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"], weight: Float[np.ndarray, "b n"]
) -> tuple[Float[np.ndarray, "b l"], Float[np.ndarray, "b l"]]:
    """Returns the normal and the anomalous weight at each level of the scores, ascending."""
    order = np.argsort(score, kind="stable")
    starts = np.unique(score[order], return_index=True)[1]
    ordered = weight[:, order]
    return tuple(
        np.add.reduceat(ordered * (label[order] == value), starts, axis=1) for value in (0, 1)
    )


def resample(
    place: Int[np.ndarray, " n"], places: int, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "b places"]:
    """Draws n of n items with replacement, `resamples` times; counts the draws at each place."""
    drawn = place[rng.integers(len(place), size=(resamples, len(place)))]
    cell = drawn + places * np.arange(resamples)[:, None]
    return np.bincount(cell.ravel(), minlength=resamples * places).reshape(resamples, places) * 1.0


def chunk_sizes(resamples: int, width: int) -> list[int]:
    """Splits `resamples` so that a chunk of rows of `width` stays under CELLS."""
    chunk = max(1, min(resamples, CELLS // max(width, 1)))
    return [min(chunk, resamples - start) for start in range(0, resamples, chunk)]


def with_interval(value: float, samples: Float[np.ndarray, " b"]) -> dict[str, Any]:
    """Returns {"value", "low", "high"}: the percentile interval of the finite bootstrap samples."""
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(samples[np.isfinite(samples)], ends)
    return {"value": float(value), "low": float(low), "high": float(high)}


def undefined(reason: str) -> dict[str, Any]:
    """Returns a figure that cannot be told, and why."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def _share_above(weight: Float[np.ndarray, "*b l"]) -> Float[np.ndarray, "*b l1"]:
    """The share of weight at or above each level, from none of it to all of it."""
    above = np.cumsum(weight[..., ::-1], axis=-1) / weight.sum(-1, keepdims=True)
    return np.concatenate([np.zeros_like(above[..., :1]), above], axis=-1)
