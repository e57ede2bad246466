"""The files that an evaluation leaves: calibration.json, scores.csv, results.json."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from sparse_ad.errors import UserError
from sparse_ad.evaluation.error_units import LEVELS
from sparse_ad.evaluation.results import Calibration, Results, ScoreRow
from sparse_ad.system.files import read_json, write_json, write_text


class Scored(NamedTuple):
    """The test images of one run, by column."""

    path: Shaped[np.ndarray, " n"]
    kind: Shaped[np.ndarray, " n"]
    group: Shaped[np.ndarray, " n"]  # names of the lesion, driver, item
    label: Int[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]


def read_calibration(path: Path | str) -> Calibration:
    """Reads calibration.json. Raises: UserError naming a field that is missing or wrong."""
    calibration = read_json(path, Calibration)
    units = calibration.error_units.by
    problem = ""
    if units not in LEVELS:
        problem = f"error_units.by = {units!r} is none of {', '.join(LEVELS)}"
    elif (units != "none") != bool(calibration.normal_errors):
        problem = f"error_units.by = {units!r} does not go with normal_errors"
    elif not calibration.scores:
        problem = "scores is empty"
    elif not all(np.isfinite(each.score) for each in calibration.scores):
        problem = "scores are not all finite"
    if problem:
        raise UserError(f"{path}: {problem}; run --mode=evaluate to calibrate again")
    return calibration


def read_results(path: Path | str) -> Results:
    """Reads results.json. Raises: UserError naming a field that is missing or wrong."""
    return read_json(path, Results)


def write_results(workdir: Path | str, results: Results, rows: Sequence[ScoreRow]) -> None:
    """Writes scores.csv and then results.json, whose presence says that all of it is there."""
    write_scores(Path(workdir) / "scores.csv", rows)
    write_json(Path(workdir) / "results.json", results)


def write_scores(path: Path | str, rows: Sequence[ScoreRow]) -> None:
    """Writes a CSV row for each image; None becomes an empty cell, True and False 1 and 0."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(ScoreRow._fields)
    writer.writerows(row._replace(flagged=_one_zero(row.flagged)) for row in rows)
    write_text(path, buffer.getvalue())


def read_scores(path: Path) -> Scored:
    """Reads the columns of a scores.csv. Raises: UserError where one is missing."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in Scored._fields if rows and name not in rows[0]]
    if missing:
        remedy = "delete results.json beside it, and run again"
        raise UserError(f"{path}: has no column {missing[0]!r}; {remedy}")
    columns = {name: np.array([row[name] for row in rows]) for name in Scored._fields}
    numbers = {"label": columns["label"].astype(int), "score": columns["score"].astype(float)}
    return Scored(**columns | numbers)


def _one_zero(flagged: bool | None) -> int | None:
    return None if flagged is None else int(flagged)
