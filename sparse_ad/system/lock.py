"""One process at a time in a folder of results."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sparse_ad.errors import UserError
from sparse_ad.system.files import explained

NAME = ".lock"

log = logging.getLogger(__name__)


@contextmanager
def locked(flag: str, folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which it makes; the file `.lock` says who holds it.

    The system gives the lock back when its owner ends, however that happens: nothing has to be
    cleared away by hand. It is that of `flock`, which shared file systems honour, too.
    Raises: UserError, with the flag that names the folder, where another process holds it.
    """
    path, made = folder / NAME, not folder.exists()
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_locked(path)
    if file is None:
        raise UserError(
            f"{flag} = '{folder}': is in use by {_owner(path)}; wait until it ends, stop it, or "
            f"choose another --{flag}"
        )
    with file:
        try:
            with suppress(OSError):  # on a full disk nobody can be named
                file.truncate(0)
                owner = {"process": os.getpid(), "host": socket.gethostname()}
                file.write(json.dumps(owner).encode())
            yield
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # while it is held: others see that it is gone
                if made:
                    folder.rmdir()  # where nothing was written to it


def _open_locked(path: Path) -> IO[bytes] | None:
    """Returns the locked file at `path`; None where another process holds it."""
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            log.warning("%s: this file system has no locks (%s)", path.parent, error.strerror)
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last owner removed it in between


def _owner(path: Path) -> str:
    """Returns who holds a lock, in words."""
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
