"""Files that are either whole or not there.

Everything is written beside its target, flushed to the disk and renamed over it: a kill or a
full disk leaves the old file, never half of the new one.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparse_ad.errors import UserError


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path` in one step, making the folders above it.

    Raises: UserError when the disk is full or read-only, or the path cannot be a file.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)  # noqa: PTH105 (the name everyone knows for an atomic rename)
        except BaseException:  # an interrupt, too, leaves nothing behind
            _remove(aside)
            raise


def write_text(path: Path | str, content: str) -> None:
    """Writes `content` as UTF-8 in one step; errors as `write_bytes`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, content: Any) -> None:
    """Writes strict JSON in one step: numbers that are not finite become null.

    numpy scalars and arrays, tuples and paths are written as their plain counterparts.
    Raises: as `write_bytes`; TypeError for a value that JSON has no word for.
    """
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def append_lines(path: Path | str, contents: Iterable[dict[str, Any]]) -> None:
    """Appends lines of strict JSON, one each, all of them or none.

    A line that a kill cut short is first ended, so that it spoils no other.
    Raises: as `write_bytes`.
    """
    path = Path(path)
    lines = "".join(json.dumps(_plain(each), allow_nan=False) + "\n" for each in contents).encode()
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            if file.write(lines) < len(lines):  # a full disk takes a part, and says nothing
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_json(path: Path | str, fields: Sequence[str] = ()) -> Any:
    """Reads JSON; where `fields` are named, an object that has them.

    Raises: UserError when the file is missing, unreadable, not JSON or lacks a field.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: is the workdir right?") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise UserError(f"{path}: not JSON ({error}): delete it and make it anew") from error
    for field in fields:
        if not (isinstance(content, dict) and field in content):
            raise UserError(f"{path}: has no field {field!r}: delete it and make it anew")
    return content


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{path}: cannot be written ({reason}): free some space, or choose a folder "
            "that you may write to"
        ) from error


def _remove(path: Path) -> None:
    """Removes `path` if it is there; where even that fails, the first error is the one to tell."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _plain(value: Any) -> Any:
    """Returns `value` in the types of strict JSON."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    return value
