"""Image metrics: AUROC and average precision of scores against labels, each with its interval.

All metrics are functions of two histograms over score levels, ascending: how much normal and how
much anomalous weight each level holds. Images are the case of one level a score, pixels that of
one level a bin, and a bootstrap resample is the same histogram with other weights.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.metrics import average_precision_score, roc_auc_score

from sparse_ad.evaluation.bootstrap import chunk_sizes, draw_images, undefined, with_interval
from sparse_ad.evaluation.results import ImageMetrics, KindMetrics, Ranking
from sparse_ad.evaluation.thresholds import measure_rates

Values = Float[np.ndarray, "*b"] | np.floating  # NumPy makes an array without axes a scalar


def measure_images(
    label: Int[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    threshold: float,
    resamples: int,
    seed: int,
) -> ImageMetrics:
    """Measures the image scores: AUROC and AP (see `rank_images`), R1 and R2 at the threshold."""
    ranking = rank_images(label, score, group, resamples, seed)
    return ImageMetrics(*ranking, *measure_rates(label, score, threshold))


def measure_kinds(
    label: Int[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    kind: Shaped[np.ndarray, " n"],
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, KindMetrics]:
    """Measures each kind of anomaly against all normal images."""
    metrics = {}
    for name in sorted(set(kind[label == 1])):
        chosen = (label == 0) | (kind == name)
        images = label[chosen], score[chosen], group[chosen]
        ranking = rank_images(*images, resamples, seed)
        rates = measure_rates(*images[:2], threshold)
        metrics[str(name)] = KindMetrics(*ranking, int(label[chosen].sum()), rates.r2)
    return metrics


def rank_images(
    label: Int[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    group: Shaped[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> Ranking:
    """Measures AUROC and average precision (AP), 0..1, with percentile bootstrap intervals.

    Groups (the images of a lesion, of a driver) are resampled whole, see `bootstrap.draw_images`.
    Undefined, with the reason, where a class is missing.

    Source: values by scikit-learn; intervals: see `bootstrap`.
    """
    for value, name in ((0, "normal"), (1, "anomalous")):
        if not np.any(label == value):
            return Ranking(*[undefined(f"no {name} images")] * 2)
    rng, parts = np.random.default_rng(seed), []
    for size in chunk_sizes(resamples, len(label)):
        weight = draw_images(label, group, size, rng)
        normal, anomalous = weigh_levels(label, score, weight)
        parts.append((weighted_auroc(normal, anomalous), weighted_ap(normal, anomalous)))
    auroc, ap = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Ranking(
        auroc=with_interval(roc_auc_score(label, score), auroc),
        ap=with_interval(average_precision_score(label, score), ap),
    )


def weighted_auroc(
    normal: Float[np.ndarray, "*b l"], anomalous: Float[np.ndarray, "*b l"]
) -> Values:
    """Area under the ROC curve of weights at ascending score levels; NaN without those of a class.

        P(anomalous > normal) + 1/2 P(anomalous = normal)

    Source: Hanley and McNeil, Radiology 143 (1982), 29-36 (the Wilcoxon form).
    """
    below = np.cumsum(normal, axis=-1) - normal / 2
    with np.errstate(invalid="ignore"):
        return (anomalous * below).sum(-1) / (normal.sum(-1) * anomalous.sum(-1))


def weighted_ap(normal: Float[np.ndarray, "*b l"], anomalous: Float[np.ndarray, "*b l"]) -> Values:
    """Average precision of weights at ascending score levels: sum of precision x recall gained.

    NaN without weights of anomalous ones.
    """
    true_positives = np.cumsum(anomalous[..., ::-1], axis=-1)
    false_positives = np.cumsum(normal[..., ::-1], axis=-1)
    flagged = np.maximum(true_positives + false_positives, np.finfo(float).tiny)  # 0 / 0 at first
    precision = true_positives / flagged
    with np.errstate(invalid="ignore"):
        return (precision * anomalous[..., ::-1]).sum(-1) / anomalous.sum(-1)


def weigh_levels(
    label: Int[np.ndarray, " n"], score: Float[np.ndarray, " n"], weight: Float[np.ndarray, "b n"]
) -> tuple[Float[np.ndarray, "b l"], Float[np.ndarray, "b l"]]:
    """Returns the normal and the anomalous weight at each level of the scores, ascending."""
    order = np.argsort(score, kind="stable")
    starts = np.unique(score[order], return_index=True)[1]
    ordered = weight[:, order]
    normal, anomalous = (
        np.add.reduceat(ordered * (label[order] == value), starts, axis=1) for value in (0, 1)
    )
    return normal, anomalous
