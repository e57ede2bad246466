"""Where and with what a result was made: enough to make it again, nothing personal."""

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

DOCUMENTS = (":(top,exclude)*.md",)  # they change no figure
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scikit-learn",
    "grain",
    "ml-collections",
)


def describe() -> dict[str, Any]:
    """Describes this process: commit, versions, device, time (UTC), command line."""
    devices = jax.devices()
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in PACKAGES},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shorten_command([program_of(sys.argv[0]), *sys.argv[1:]]),
    }


def version_of(package: str) -> str | None:
    """Returns the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def shorten_command(arguments: Sequence[str]) -> str:
    """Joins a command line, quoted for a shell, its absolute paths shortened."""
    return shlex.join(map(shorten, arguments))


def shorten(text: str) -> str:
    """Returns a text with absolute paths cut to ".../" and their last part."""
    return re.sub(r"(?<![\w.~-])/(?:[^/=,\s]+/)*", ".../", text)


def program_of(path: str) -> str:
    """Returns the path of a program, relative to the checkout where it is one of its own."""
    root, program = Path(__file__).resolve().parents[2], Path(path).resolve()
    return program.relative_to(root).as_posix() if program.is_relative_to(root) else path


def _commit() -> dict[str, Any] | None:
    """The commit of the repository that tracks this very file; None where there is none."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None  # installed: whatever repository lies around it is another one
    commit = _git(here.parent, "rev-parse", "HEAD")
    tracked = (
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)results",
        *DOCUMENTS,
    )
    changes = _git(here.parent, *tracked)  # records are what the program wrote, not what it is
    return {"id": commit, "dirty": bool(changes)} if commit else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None when it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    """The processor's name: Linux tells it in /proc, others through Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
