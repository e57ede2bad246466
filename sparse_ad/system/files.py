"""Files that are either whole or not there.

Everything is written beside its target, flushed to the disk and renamed over it: a kill or a
full disk leaves the old file, never half of the new one.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparse_ad.errors import FieldError, UserError
from sparse_ad.system.json_values import from_json, to_json
from sparse_ad.system.names import printable


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path` in one step, making the folders above it.

    Raises: UserError when the disk is full or read-only, or the path cannot be a file.
    """
    path = Path(path)
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]  # names have a largest length
    aside = path.with_name(f".{short}.{os.getpid()}.partial")
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


def remove_partial(folder: Path) -> None:
    """Removes the files that a kill left half-written in a folder that nobody else writes to."""
    for path in folder.glob(f".{'[0-9a-f]' * 16}.*.partial"):  # as write_bytes names them
        _remove(path)


def write_text(path: Path | str, content: str) -> None:
    """Writes `content` as UTF-8 in one step, names as `printable`; errors as `write_bytes`."""
    write_bytes(path, printable(content).encode("utf-8"))


def write_json(path: Path | str, content: Any) -> None:
    """Writes strict JSON in one step: `to_json` says how values are written.

    Raises: as `write_bytes`; TypeError for a value that JSON has no word for.
    """
    write_text(path, json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")


def append_lines(path: Path | str, contents: Iterable[dict[str, Any]]) -> None:
    """Appends lines of strict JSON, one each, as `append_text`."""
    lines = (json.dumps(to_json(each), allow_nan=False) for each in contents)
    append_text(path, "".join(f"{line}\n" for line in lines))


def append_text(path: Path | str, lines: str) -> None:
    """Appends lines as UTF-8, all of them or none.

    A line that a kill cut short is first ended, so that it spoils no other.
    Raises: as `write_bytes`.
    """
    path, content = Path(path), printable(lines).encode("utf-8")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                content = content if file.read(1) == b"\n" else b"\n" + content
            if file.write(content) < len(content):  # a full disk takes a part, and says nothing
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_json(path: Path | str, kind: Any = Any) -> Any:
    """Reads JSON as `kind`, such as a NamedTuple: `from_json` says how; Any: as it is.

    Raises: UserError when the file is missing, unreadable or not JSON, and for a field that is
    missing or has the wrong type, which it names.
    """
    path = Path(path)
    try:
        return from_json(json.loads(path.read_text("utf-8")), kind)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: is the workdir right?") from error
    except FieldError as error:
        problem = f"{error.field} {error.remedy}".strip()
        raise UserError(f"{path}: {problem}: delete the file and run again") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise UserError(f"{path}: not JSON ({error}): delete the file and run again") from error


def read_fields(path: Path | str, fields: Sequence[str]) -> dict[str, Any]:
    """Reads a JSON object that has at least these fields, whatever they hold.

    Raises: UserError as `read_json`.
    """
    content = read_json(path, dict[str, Any])
    for field in fields:
        if field not in content:
            raise UserError(f"{path}: {field} is missing: delete the file and run again")
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
