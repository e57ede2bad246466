"""Checksums of a folder's files, kept in the folder: damage is found before anything is read."""

import hashlib
from pathlib import Path

from sparse_ad.errors import UserError
from sparse_ad.system.files import read_json, write_json

NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` to checksums.json in it."""
    write_json(folder / NAME, {name: _digest(path) for name, path in _files(folder).items()})


def verify_checksums(folder: Path) -> None:
    """Raises UserError naming the file that is missing or differs from what was written.

    A folder without checksums.json is let pass: a kill may come before it is written.
    """
    if not (folder / NAME).exists():
        return
    known, files = read_json(folder / NAME), _files(folder)
    for name, digest in sorted(known.items()):
        if name not in files or _digest(files[name]) != digest:
            state = "is damaged" if name in files else "is missing"
            raise UserError(
                f"{folder / name}: {state}; delete the folder {folder}, and the same command goes "
                "on from what was saved before it"
            )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.name != NAME
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
