"""How the default detector was chosen, as tables: planted defects against test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from sparse_ad.report.tables import markdown as table
from sparse_ad.system.files import read_json

DASH = "–"
MEAN = "mean"


class Pair(NamedTuple):
    """Image AUROC of one candidate on one set."""

    planted: float  # held-out normal images against copies of them with planted defects
    test: float  # labelled test images


Pairs = Mapping[str, Pair]  # by set, and their mean where all sets are there


def selection_table(path: Path) -> str:
    """Returns the candidates of a record, best first by planted defects, and rank correlations."""
    if not path.exists():
        return "not measured yet"
    rows = read_json(path, dict[str, Any])["rows"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    candidates: dict[str, dict[str, Pair]] = {}
    for row in rows:
        pair = Pair(row["planted"], row["test"])
        candidates.setdefault(row["candidate"], {})[row["set"]] = pair
    for pairs in candidates.values():
        if len(pairs) == len(sets):
            pairs[MEAN] = Pair(*map(fmean, zip(*pairs.values(), strict=True)))
    ordered = sorted(candidates.items(), key=rank)
    columns = [*sets, MEAN]
    head = ("candidate", *(f"{name}, planted / test" for name in columns))
    body = [(name, *(show(pairs.get(column)) for column in columns)) for name, pairs in ordered]
    agreement = ", ".join(
        f"{column} {correlation(list(candidates.values()), column)}" for column in columns
    )
    return (
        f"{table(head, body)}\n\n"
        f"Rank correlation (Spearman) of planted and test over candidates: {agreement}."
    )


def rank(candidate: tuple[str, Pairs]) -> tuple[bool, float]:
    """Returns what candidates are sorted by; those that lack a set come last."""
    _, pairs = candidate
    return (MEAN not in pairs, -pairs[MEAN].planted if MEAN in pairs else 0.0)


def show(pair: Pair | None) -> str:
    return DASH if pair is None else f"{pair.planted:.3f} / {pair.test:.3f}"


def correlation(candidates: Sequence[Pairs], column: str) -> str:
    """Returns a rank correlation; a dash of fewer than three candidates, or where all are equal."""
    pairs = [each[column] for each in candidates if column in each]
    planted, test = ([getattr(pair, name) for pair in pairs] for name in Pair._fields)
    if len(pairs) < 3 or len(set(planted)) == 1 or len(set(test)) == 1:
        return DASH
    value, _ = spearmanr(planted, test)
    return f"{value:.2f}"
