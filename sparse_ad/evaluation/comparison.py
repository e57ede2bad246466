"""What one detector gains over another on the same test images, with an interval."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score

from sparse_ad.errors import UserError
from sparse_ad.evaluation.image_metrics import (
    chunk_sizes,
    draw_images,
    undefined,
    weigh_levels,
    weighted_auroc,
    with_interval,
)


class Scored(NamedTuple):
    """The test images of one run."""

    path: np.ndarray  # n names
    kind: np.ndarray  # n names
    group: np.ndarray  # n names: of the lesion, driver, item
    label: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]


def read_scores(path: Path) -> Scored:
    """Returns what a scores.csv says. Errors: UserError where a column is missing."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lacking = [name for name in Scored._fields if rows and name not in rows[0]]
    if lacking:
        remedy = "delete results.json beside it, and run again"
        raise UserError(f"{path}: has no column {lacking[0]!r}; {remedy}")
    columns = {name: np.array([row[name] for row in rows]) for name in Scored._fields}
    numbers = {"label": columns["label"].astype(int), "score": columns["score"].astype(float)}
    return Scored(**columns | numbers)


def compare(
    these: Sequence[Scored], those: Sequence[Scored], kind: str, resamples: int, seed: int
) -> dict[str, Any]:
    """Measures the AUROC of `these` less that of `those`, runs paired by seed, averaged over them.

    `kind`: the anomalous images that count; "all": every one. The interval is the percentile
    bootstrap over test images, those of a group together (see `draw_images`): a draw counts an
    image equally often for both detectors and in every seed that tests it, so that what they share
    cancels out. It knows nothing of the chance in fitting, which `deviation` over seeds shows.

    Returns: value, low, high, by_seed, deviation (of by_seed; None with one seed); values None,
    with the reason, where the runs saw different images or lack a class.
    Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), section 13.3.
    """
    pairs = [
        (_only(one, kind), _only(other, kind)) for one, other in zip(these, those, strict=True)
    ]
    if not pairs:
        return undefined("no runs")
    for one, other in pairs:
        if list(one.path) != list(other.path):
            return undefined("tested on different images")
        if len(np.unique(one.label)) < 2:
            return undefined("a class is missing")
    by_seed = [roc_auc_score(a.label, a.score) - roc_auc_score(b.label, b.score) for a, b in pairs]
    samples = np.concatenate(list(_differences(pairs, resamples, seed)))
    return with_interval(np.mean(by_seed), samples) | {
        "by_seed": [float(value) for value in by_seed],
        "deviation": deviation(by_seed),
    }


def deviation(values: Sequence[float]) -> float | None:
    """Returns the sample deviation; None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _only(run: Scored, kind: str) -> Scored:
    """The normal images and the anomalous ones of the kind."""
    some = (run.label == 0) | (kind == "all") | (run.kind == kind)
    return Scored(*(column[some] for column in run))


def _differences(pairs, resamples: int, seed: int):
    """Chunks of resampled differences [b], each the mean over the pairs."""
    rng = np.random.default_rng(seed)
    names, first = np.unique(np.concatenate([one.path for one, _ in pairs]), return_index=True)
    labels, groups = (
        np.concatenate([getattr(one, name) for one, _ in pairs])[first]
        for name in ("label", "group")
    )
    places = [np.searchsorted(names, one.path) for one, _ in pairs]
    for size in chunk_sizes(resamples, len(names)):
        weight = draw_images(labels, groups, size, rng)
        yield np.mean(
            [
                _auroc(one, weight[:, place]) - _auroc(other, weight[:, place])
                for (one, other), place in zip(pairs, places, strict=True)
            ],
            axis=0,
        )


def _auroc(run: Scored, weight: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    """The AUROC where image i counts weight[i] times; NaN where a class has no weight."""
    return weighted_auroc(*weigh_levels(run.label, run.score, weight))
