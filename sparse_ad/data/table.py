"""CSV tables that name the images of a set."""

import csv
import logging
from collections.abc import Collection
from pathlib import Path

from sparse_ad.errors import UserError

log = logging.getLogger(__name__)


def read_rows(table: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Returns the rows. Raises UserError when the file, or one of `columns`, is missing."""
    if not table.is_file():
        raise UserError(f"{table}: no such file; set data.root to the folder of {table.name}")
    with table.open(newline="") as stream:
        reader = csv.DictReader(stream)
        missing = sorted(set(columns) - set(reader.fieldnames or ()))
        if missing:
            raise UserError(f"{table}: no column {', '.join(missing)}; give the original file")
        return list(reader)


def check_complete(table: Path, named: Collection[str], files: Collection[str], place: str) -> None:
    """Raises UserError unless every image named has a file; warns of files that are not named."""
    missing, extra = sorted(set(named) - set(files)), sorted(set(files) - set(named))
    if missing or not named:
        example = f", such as {missing[0]}" if missing else ""
        raise UserError(
            f"{table}: {len(missing)} of {len(named)} images are not in {place}{example}: "
            "complete the download"
        )
    if extra:
        log.warning("%s: %d images have no row, such as %s", table, len(extra), extra[0])
