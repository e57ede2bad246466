"""A workdir holds one experiment: made with one config, and not to be mixed with another."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sparse_ad import environment
from sparse_ad.errors import UserError
from sparse_ad.files import read_json, write_json

FREE = ("evaluation",)  # sections that may change after fitting
MIN_FREE_BYTES = 50 * 2**20  # less disk than this holds no run


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes the workdir for a config, or checks that it was made for this one.

    Writes config.json and environment.json where they are missing.
    Raises: UserError naming each field in which the workdir's config differs, or a workdir that
    is not writable or on a full disk.
    """
    path = workdir / "config.json"
    if path.exists():
        check_same(workdir, read_json(path), plain(config))
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"workdir = '{workdir}': cannot be made ({error.strerror}); choose another --workdir"
        ) from error
    free = shutil.disk_usage(workdir).free
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"workdir = '{workdir}': {free // 2**20} MB are free, {MIN_FREE_BYTES // 2**20} are "
            "needed; make room or choose another --workdir"
        )
    write_json(path, plain(config))
    write_json(workdir / "environment.json", environment.describe())


def read_config(workdir: Path) -> ConfigDict:
    """Returns the config that the workdir was made with. Raises: UserError where there is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"workdir = '{workdir}': holds no config.json; run --mode=fit there first")
    return ConfigDict(read_json(path)).lock()


def finished(workdir: Path, config: ConfigDict) -> bool:
    """Tells whether results.json holds the results of exactly this config."""
    path = workdir / "results.json"
    return path.exists() and read_json(path)["config"] == plain(config)


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON would give it back."""
    return json.loads(json.dumps(config.to_dict()))


def check_same(workdir: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises UserError unless two configs agree in all that fitting depends on."""
    changes = [line for line in differences(old, new) if not line.startswith(FREE)]
    if changes:
        raise UserError(
            f"workdir = '{workdir}': was made with another config ({'; '.join(changes)}); "
            "choose another --workdir or delete this one"
        )


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Yields "field: old there, new here" for each field that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            missing = "nothing"
            dotted = f"{name}.{key}" if name else key
            yield from differences(old.get(key, missing), new.get(key, missing), dotted)
    elif old != new:
        yield f"{name}: {old!r} there, {new!r} here"
