"""How much one detector gains over another on the same test images, with an interval."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from sparse_ad.evaluation.bootstrap import chunk_sizes, draw_images, with_interval
from sparse_ad.evaluation.image_metrics import Values, weigh_levels, weighted_auroc
from sparse_ad.evaluation.records import Scored


class Comparison(NamedTuple):
    """A difference of AUROC; value, low and high are None where it is undefined."""

    value: float | None  # mean over seeds
    low: float | None = None
    high: float | None = None
    by_seed: tuple[float, ...] = ()
    std: float | None = None  # over seeds; None of a single one
    reason: str = ""  # why it is undefined

    json_names = {"std": "deviation"}  # noqa: RUF012


def compare(
    runs: Sequence[Scored], others: Sequence[Scored], kind: str, resamples: int, seed: int
) -> Comparison:
    """Measures the AUROC of `runs` less that of `others`, paired by seed, averaged over seeds.

    `kind`: the anomalous images that count; "all": every one. The interval is the percentile
    bootstrap over test images, those of a group together (see `draw_images`): a draw counts an
    image equally often for both detectors and in every seed that tests it, so that what they share
    cancels out. It does not include the randomness of a fit, which the std over seeds shows.

    Undefined, with the reason, where the runs saw different images or lack a class.
    Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), section 13.3.
    """
    pairs = [(_only(one, kind), _only(two, kind)) for one, two in zip(runs, others, strict=True)]
    if reason := _incomparable(pairs):
        return Comparison(None, reason=reason)
    by_seed = [_plain_auroc(one) - _plain_auroc(two) for one, two in pairs]
    samples = np.concatenate(list(_differences(pairs, resamples, seed)))
    value, low, high, _ = with_interval(float(np.mean(by_seed)), samples)
    return Comparison(value, low, high, tuple(map(float, by_seed)), sample_std(by_seed))


def sample_std(values: Sequence[float]) -> float | None:
    """Returns the sample std (n - 1); None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _incomparable(pairs: Sequence[tuple[Scored, Scored]]) -> str:
    """Why pairs of runs cannot be compared; "" if they can."""
    if not pairs:
        return "no runs"
    for one, two in pairs:
        if list(one.path) != list(two.path):
            return "tested on different images"
        if len(np.unique(one.label)) < 2:
            return "a class is missing"
    return ""


def _only(run: Scored, kind: str) -> Scored:
    """The normal images and the anomalous ones of the kind."""
    chosen = (run.label == 0) | (kind == "all") | (run.kind == kind)
    return Scored(*(column[chosen] for column in run))


def _plain_auroc(run: Scored) -> float:
    return roc_auc_score(run.label, run.score)


def _differences(
    pairs: Sequence[tuple[Scored, Scored]], resamples: int, seed: int
) -> Iterator[Float[np.ndarray, " b"]]:
    """Chunks of resampled differences, each the mean over the pairs."""
    rng = np.random.default_rng(seed)
    names, first = np.unique(np.concatenate([one.path for one, _ in pairs]), return_index=True)
    labels, groups = (
        np.concatenate([getattr(one, name) for one, _ in pairs])[first]
        for name in ("label", "group")
    )
    columns = [np.searchsorted(names, one.path) for one, _ in pairs]
    for size in chunk_sizes(resamples, len(names)):
        weight = draw_images(labels, groups, size, rng)
        gains = [
            _auroc(one, weight[:, column]) - _auroc(two, weight[:, column])
            for (one, two), column in zip(pairs, columns, strict=True)
        ]
        yield np.mean(gains, axis=0)


def _auroc(run: Scored, weight: Float[np.ndarray, "b n"]) -> Values:
    """The AUROC where image i counts weight[i] times; NaN where a class has no weight."""
    return weighted_auroc(*weigh_levels(run.label, run.score, weight))
