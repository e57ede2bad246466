"""A workdir holds one experiment: made with one config, and not to be mixed with another."""

import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sparse_ad.errors import UserError
from sparse_ad.system import environment
from sparse_ad.system.files import read_json, write_json

MISSING = object()
# Those of every config:
SECTIONS = ("name", "seed", "data", "features", "method", "net", "fit", "evaluation")
CALIBRATION = ("threshold", "scale", "evaluation")  # of calibration.json
FREE = ("evaluation",)  # sections that may change after fitting
IMMATERIAL = (
    "data.workers",
    "features.cache_gb",
    "fit.checkpoint_seconds",
)  # fields that change no figure
MIN_FREE_BYTES = 50 * 2**20  # less disk than this holds no run


def get_config(workdir: str) -> ConfigDict:
    """Returns the config of a workdir, to be overridden by flags: this file is a config, too."""
    return read_config(Path(workdir))


def read_config(workdir: Path) -> ConfigDict:
    """Returns the config that the workdir was made with. Raises: UserError where there is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"workdir = '{workdir}': holds no config.json; run --mode=fit there first")
    return ConfigDict(_with_tuples(read_json(path, SECTIONS))).lock()


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Makes the workdir for a config, or checks that it was made for this one.

    Writes config.json and environment.json.
    Raises: UserError naming each field in which the workdir's config differs, or a workdir that
    is not writable or on a full disk.
    """
    check_config(workdir, config)
    _check_disk(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"workdir = '{workdir}': cannot be made ({error.strerror}); choose another --workdir"
        ) from error
    write_json(workdir / "config.json", plain(config))
    write_json(workdir / "environment.json", environment_of(config))


def check_config(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError unless the workdir is new, or its config agrees in all that fitting uses."""
    path = workdir / "config.json"
    if not path.exists():
        return
    changes = differences(read_json(path, SECTIONS), plain(config), FREE + IMMATERIAL)
    if changes:
        raise UserError(
            f"workdir = '{workdir}': was made with another config ({'; '.join(changes)}); "
            "choose another --workdir or delete this one"
        )


def require_fitted(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError unless the workdir holds a finished fit of this config."""
    check_config(workdir, config)
    if not (workdir / "fit.json").exists():
        raise UserError(
            f"workdir = '{workdir}': holds no finished fit; run --mode=fit with this --workdir"
        )


def is_fitted(workdir: Path, config: ConfigDict) -> bool:
    """Tells whether the workdir holds the fit and the calibration of this config."""
    names = ("config.json", "fit.json", "calibration.json")
    if not all((workdir / name).exists() for name in names):
        return False
    calibrated = read_json(workdir / "calibration.json", CALIBRATION)["evaluation"]
    return _agrees(workdir, config) and calibrated == plain(config)["evaluation"]


def is_finished(workdir: Path, config: ConfigDict) -> bool:
    """Tells whether the workdir holds the results of this config."""
    path = workdir / "results.json"
    if not path.exists():
        return False
    known = read_json(path, ("config",))["config"]
    return _agrees(workdir, config) and not differences(known, plain(config), IMMATERIAL)


def environment_of(config: ConfigDict) -> dict[str, Any]:
    """Returns seed, commit, versions, device: what it takes to make a result again."""
    return {"seed": config.seed, **environment.describe()}


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON would give it back."""
    return json.loads(json.dumps(config.to_dict()))


def differences(old: Any, new: Any, ignored: tuple[str, ...] = (), name: str = "") -> list[str]:
    """Lists "field: old there, new here" for each field that differs, but for those ignored."""
    if name in ignored or old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [f"{name}: {_show(old)} there, {_show(new)} here"]
    return [
        line
        for key in sorted(old.keys() | new.keys())
        for line in differences(
            old.get(key, MISSING), new.get(key, MISSING), ignored, f"{name}.{key}".strip(".")
        )
    ]


def _agrees(workdir: Path, config: ConfigDict) -> bool:
    """Tells whether config.json, evaluation included, is this config."""
    path = workdir / "config.json"
    return path.exists() and not differences(read_json(path, SECTIONS), plain(config), IMMATERIAL)


def _show(value: Any) -> str:
    return "no such field" if value is MISSING else repr(value)


def _with_tuples(value: Any) -> Any:
    """Returns a config read from JSON, whose lists were tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _check_disk(workdir: Path) -> None:
    """Raises UserError where the disk that the workdir is or will be on is full."""
    there = next((path for path in (workdir, *workdir.absolute().parents) if path.is_dir()), None)
    free = shutil.disk_usage(there).free if there else 0
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"workdir = '{workdir}': {free // 2**20} MB are free, {MIN_FREE_BYTES // 2**20} are "
            "needed; make room or choose another --workdir"
        )
