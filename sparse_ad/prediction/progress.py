"""Files that record a prediction, so that it can resume: scores.csv and predictions.json."""

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sparse_ad.errors import UserError
from sparse_ad.prediction.predictor import Limits
from sparse_ad.system.files import append_text, read_json, write_json, write_text
from sparse_ad.types import LeftOut

SCORES, RECORD = "scores.csv", "predictions.json"


class Row(NamedTuple):
    """One image: a row of scores.csv."""

    path: str
    score: float | None  # higher = more anomalous; None: the image could not be read
    threshold: float
    flagged: int | None  # 1: score > threshold
    problem: str  # why the image could not be read


class Record(NamedTuple):
    """All of predictions.json."""

    fit: str  # hash of fit.json and calibration.json of the workdir
    images: str  # hash of names, sizes and times of the images, and of their ignore masks
    count: int  # of the images
    limits: Limits
    kinds: tuple[str, ...]  # of files that are written for each image
    tiff: tuple[float, float]  # the values of the anomaly map that a 16-bit TIFF stores as 0, 65535
    left_out: tuple[LeftOut, ...]  # files below the input that are no images
    environment: dict[str, Any]
    flagged: int = 0
    unreadable: int = 0
    stretched: int = 0  # images that the resize stretches by more than 1.25
    finished: bool = False


def hash_fit(workdir: Path) -> str:
    """Returns what tells a fit from others, wherever its workdir lies."""
    digest = hashlib.sha256()
    for name in ("fit.json", "calibration.json"):
        digest.update((workdir / name).read_bytes())
    return digest.hexdigest()


class Earlier(NamedTuple):
    """What an output folder holds of an earlier prediction."""

    record: Record
    rows: list[Row]


def read_earlier(output: Path) -> Earlier | None:
    """Returns the prediction that a folder holds; None where there is none, or it is damaged.

    A row that a kill cut short is dropped.
    """
    try:
        record = read_json(output / RECORD, Record)
        text = (output / SCORES).read_text("utf-8")
    except (OSError, UserError):
        return None
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole, newline="")))
    if not lines or tuple(lines[0]) != Row._fields:
        return None
    rows = [parse_row(line) for line in lines[1:] if len(line) == len(Row._fields)]
    return Earlier(record, rows)


def identity(record: Record) -> tuple[Any, ...]:
    """Returns what must be the same for a prediction to go on."""
    return record.fit, record.images, record.limits, record.kinds, record.left_out


def parse_row(row: list[str]) -> Row:
    """Returns a row of scores.csv."""
    path, score, threshold, flagged, problem = row
    known = (
        (float(score), float(threshold), int(flagged)) if score else (None, float(threshold), None)
    )
    return Row(path, *known, problem)


def write_start(output: Path, record: Record, rows: Iterable[Row]) -> None:
    """Writes both files as they are at the start, with the rows that are kept."""
    (output / RECORD).unlink(missing_ok=True)  # first: without it, rows are of no prediction
    write_text(output / SCORES, format_rows([Row._fields, *rows]))
    write_json(output / RECORD, record)


def add_rows(output: Path, rows: Iterable[Row]) -> None:
    """Adds rows to scores.csv."""
    append_text(output / SCORES, format_rows(rows))


def write_end(output: Path, record: Record, rows: Iterable[Row]) -> Record:
    """Writes all rows in order, and says in predictions.json that it is finished."""
    rows = list(rows)
    write_text(output / SCORES, format_rows([Row._fields, *rows]))
    flagged = sum(bool(row.flagged) for row in rows)
    unreadable = sum(row.score is None for row in rows)
    done = record._replace(flagged=flagged, unreadable=unreadable, finished=True)
    write_json(output / RECORD, done)
    return done


def format_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    """Returns rows as CSV; None is an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
