"""CSV tables that name the images of a set, and whether the files agree with them."""

import csv
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from sparse_ad.errors import UserError

log = logging.getLogger(__name__)


def read_table(
    table: Path, key: tuple[str, ...], values: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Returns {the `key` columns of a row, joined by "/": its `values` columns}.

    Columns are separated by tabs where the first line has one, else by commas. Rows that are
    there twice are taken once, with a warning.

    Raises: UserError when the file or a column is missing, when it is no table, when a row lacks a
    value, or when two rows of one key differ.
    """
    rows, repeated = {}, []
    for line, row in _read_rows(table, {*key, *values}):
        empty = sorted(column for column, value in row.items() if not value)
        if empty:
            raise UserError(f"{table}: line {line} has no {', '.join(empty)}; complete the row")
        name = "/".join(row[column] for column in key)
        known = tuple(row[column] for column in values)
        if name in rows:
            repeated.append(name)
        if rows.setdefault(name, known) != known:
            raise UserError(
                f"{table}: line {line} says {', '.join(known)} of {name} and an earlier line says "
                f"{', '.join(rows[name])}; delete the wrong row"
            )
    if repeated:
        log.warning("%s: %d rows are there twice, such as %s", table, len(repeated), repeated[0])
    return rows


def _read_rows(table: Path, columns: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (number of the line, its values of `columns`)."""
    if not table.is_file():
        raise UserError(f"{table}: no such file; give the folder of {table.name}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            delimiter = "\t" if "\t" in stream.readline() else ","
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=delimiter)
            missing = sorted(columns - set(reader.fieldnames or ()))
            if missing:
                raise UserError(f"{table}: no column {', '.join(missing)}; give the original file")
            for row in reader:
                yield reader.line_num, {name: (row[name] or "").strip() for name in columns}
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{table}: cannot be read as a table ({error}); replace it") from error


def check_complete(
    table: Path, named: Collection[str], files: Collection[str], folder: str
) -> None:
    """Raises UserError unless every image named has a file; warns of files that are not named."""
    missing, extra = sorted(set(named) - set(files)), sorted(set(files) - set(named))
    if missing or not named:
        example = f", such as {missing[0]}" if missing else ""
        raise UserError(
            f"{table}: {len(missing)} of {len(named)} images are not in {folder}{example}: "
            "complete the download"
        )
    if extra:
        log.warning("%s: %d images have no row, such as %s", table, len(extra), extra[0])


def check_counts(table: Path, kinds: Iterable[str], published: Mapping[str, int]) -> None:
    """Warns of classes with other counts than published.

    Raises UserError for a class that is missing altogether, or that is none of those published.
    """
    counts = Counter(kinds)
    for kind, count in published.items():
        if not counts[kind]:
            raise UserError(
                f"{table}: no images of class {kind} ({count} published): complete the download"
            )
    unknown = sorted(counts.keys() - published.keys())
    if unknown:
        raise UserError(
            f"{table}: {counts[unknown[0]]} images of class {unknown[0]!r}, which is none of "
            f"{', '.join(published)}; give the original file"
        )
    other = [
        f"{kind} {counts[kind]} ({count} published)"
        for kind, count in published.items()
        if counts[kind] != count
    ]
    if other:
        log.warning("%s: other image counts than published: %s", table, ", ".join(other))
