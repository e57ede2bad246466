"""A workdir holds one experiment: made with one config, and not to be mixed with another."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sparse_ad.errors import UserError
from sparse_ad.evaluation.normal_errors import is_whole
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.evaluation.records import read_calibration, read_results
from sparse_ad.evaluation.results import Calibration
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.options import read, section
from sparse_ad.system import environment
from sparse_ad.system.files import read_fields, remove_partial, write_json
from sparse_ad.system.lock import locked

MISSING = object()
NEEDED = ("name", "data", "method")  # sections that have been in every config.json
CHANGEABLE = (  # sections and fields that may change after fitting
    "evaluation",
    "data.max_pixels",
    "data.root",  # which images they are is checked by names and sizes (fitting/loop)
    "data.ignore",  # so are the masks
)
IMMATERIAL = (  # fields that change no number
    "data.workers",
    "features.cache_gb",
    "fit.checkpoint_seconds",
)
MIN_FREE_BYTES = 50 * 2**20  # less disk than this holds no run


def read_config(workdir: Path) -> ConfigDict:
    """Returns the config that the workdir was made with.

    Raises: UserError where there is none, or one of a version with other options.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"workdir = '{workdir}': holds no config.json; run --mode=fit there first")
    return section(read_old(path, read_fields(path, NEEDED)))


def read_config_file(path: Path) -> ConfigDict:
    """Returns the config that a config.json, wherever it lies, holds.

    Raises: UserError where the file holds something else.
    """
    try:
        return section(read_experiment(read_fields(path, NEEDED)))
    except (UserError, TypeError, ValueError) as error:
        reason = (
            str(error).removeprefix(f"{path}: ").removesuffix(": delete the file and run again")
        )
        raise UserError(
            f"--config = '{path}': is no config of this version ({reason}); "
            "give the config.json of a workdir"
        ) from error


@contextmanager
def of_this_version(path: Path, remedy: str) -> Iterator[None]:
    """Turns errors of options that a file holds into a UserError that names it and the remedy."""
    try:
        yield
    except (UserError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: was written by a version of this program with other options ({error}); "
            f"{remedy}"
        ) from error


def read_old(path: Path, config: Mapping[str, Any]) -> Experiment:
    """Returns the experiment of a config that was written earlier; new options have defaults.

    Raises: UserError where `path` was written by a version with other options.
    """
    with of_this_version(path, "choose another --workdir or delete this one"):
        return read_experiment(config)


@contextmanager
def working_in(workdir: Path, experiment: Experiment) -> Iterator[None]:
    """Opens the workdir for an experiment, and keeps other processes out of it.

    Raises: UserError as `open_workdir`, and where another process works in it.
    """
    make_folder(workdir)
    with locked("workdir", workdir):
        remove_partial(workdir)
        open_workdir(workdir, experiment)
        yield


def open_workdir(workdir: Path, experiment: Experiment) -> None:
    """Makes the workdir for an experiment, or checks that it was made for this one.

    Writes config.json and environment.json.
    Raises: UserError naming each field in which the workdir's config differs, or a workdir that
    is not writable or on a full disk.
    """
    check_config(workdir, experiment)
    make_folder(workdir)
    write_json(workdir / "config.json", plain(experiment))
    write_json(workdir / "environment.json", environment_of(experiment))


def require_free(output: Path, own: str) -> None:
    """Raises UserError where `output` holds results of another kind than `own`, a file of these."""
    kinds = {
        "config.json": "is a workdir",
        "results.json": "holds an evaluation",
        "predictions.json": "holds a prediction",
    }
    for name, problem in kinds.items():
        if name != own and (output / name).exists():
            raise UserError(f"--output = '{output}': {problem}; choose another folder")


def make_folder(workdir: Path) -> None:
    """Makes a workdir. Raises: UserError where it cannot be made, or its disk is full."""
    _check_disk(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"workdir = '{workdir}': cannot be made ({error.strerror}); choose another --workdir"
        ) from error


def check_config(workdir: Path, experiment: Experiment) -> None:
    """Raises UserError unless the workdir is new, or its config agrees in all that fitting uses."""
    path = workdir / "config.json"
    if not path.exists():
        return
    changes = differences(_known(path), plain(experiment), CHANGEABLE + IMMATERIAL)
    if changes:
        raise UserError(
            f"workdir = '{workdir}': was made with another config ({'; '.join(changes)}); "
            "leave these fields as they are there, or choose another --workdir to fit again"
        )


def require_fitted(workdir: Path, experiment: Experiment) -> None:
    """Raises UserError unless the workdir holds a finished fit of this experiment."""
    check_config(workdir, experiment)
    if not (workdir / "fit.json").exists():
        raise UserError(
            f"workdir = '{workdir}': holds no finished fit; run --mode=fit with this --workdir"
        )


def require_same_masks(workdir: Path, experiment: Experiment) -> None:
    """Raises UserError where other pixels are ignored than in the fit, going by the name."""
    known, given = (
        Path(config["data"].get("ignore", "")).name
        for config in (_known(workdir / "config.json"), plain(experiment))
    )
    if known != given:
        raise UserError(
            f"data.ignore = {given!r}: the detector was fitted with {known!r}; give the same, from "
            "wherever it lies now"
        )


def require_same_units(workdir: Path, calibration: Calibration, experiment: Experiment) -> None:
    """Raises UserError where the experiment asks for other units than the threshold was set in."""
    known, given = (
        options["calibration"]
        for options in (_evaluation(workdir, calibration), asked_of(experiment))
    )
    if known["by"] == given["by"] == "none" or known == given:
        return
    field = next(name for name in known if known[name] != given[name])
    raise UserError(
        f"evaluation.calibration.{field} = {given[field]!r}: {workdir} was calibrated with "
        f"{known[field]!r}; leave it so, or run --mode=evaluate to calibrate again"
    )


def asked_of(experiment: Experiment) -> dict[str, Any]:
    """Returns the options of the evaluation as JSON would give them back."""
    return plain(experiment)["evaluation"]


def _evaluation(workdir: Path, calibration: Calibration) -> dict[str, Any]:
    """Returns the options of the evaluation that set a threshold; new ones have their defaults."""
    with of_this_version(workdir / "calibration.json", "delete the file and run again"):
        return plain(read(Evaluation, calibration.evaluation))


def is_fitted(workdir: Path, experiment: Experiment) -> bool:
    """Returns whether the workdir holds the fit and the calibration of this experiment."""
    names = ("config.json", "fit.json", "calibration.json")
    if not all((workdir / name).exists() for name in names):
        return False
    calibration = read_calibration(workdir / "calibration.json")
    calibrated = _evaluation(workdir, calibration)
    same = calibrated == asked_of(experiment) | {
        "batch_size": calibrated["batch_size"]
    }  # no matter
    whole = is_whole(workdir, calibration.normal_errors)
    return same and whole and _agrees(workdir, experiment)


def is_finished(workdir: Path, experiment: Experiment) -> bool:
    """Returns whether the workdir holds the calibration and the results of this experiment."""
    path, calibration = workdir / "results.json", workdir / "calibration.json"
    if not (path.exists() and calibration.exists()):
        return False
    if not is_whole(workdir, read_calibration(calibration).normal_errors):
        return False
    known = plain(read_old(path, read_results(path).config))
    return _agrees(workdir, experiment) and not differences(known, plain(experiment), IMMATERIAL)


def environment_of(experiment: Experiment) -> dict[str, Any]:
    """Returns seed, commit, versions, device: what it takes to reproduce a result."""
    return {"seed": experiment.seed, **environment.describe()}


def plain(options: Any) -> dict[str, Any]:
    """Returns the config of an experiment or study as JSON would give it back."""
    return json.loads(json.dumps(section(options).to_dict()))


def differences(old: Any, new: Any, ignored: tuple[str, ...] = (), name: str = "") -> list[str]:
    """Lists "field: old there, new here" for each field that differs, except those ignored."""
    if name in ignored or old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [f"{name}: {_show(old)} there, {_show(new)} here"]
    if old.get("name") != new.get("name") and name:  # other fields belong to other kinds
        return [f"{name}: {_show(old.get('name'))} there, {_show(new.get('name'))} here"]
    return [
        line
        for key in sorted(old.keys() | new.keys())
        for line in differences(
            old.get(key, MISSING), new.get(key, MISSING), ignored, f"{name}.{key}".strip(".")
        )
    ]


def _known(path: Path) -> dict[str, Any]:
    return plain(read_old(path, read_fields(path, NEEDED)))


def _agrees(workdir: Path, experiment: Experiment) -> bool:
    """Returns whether config.json, evaluation included, is this config."""
    path = workdir / "config.json"
    return path.exists() and not differences(_known(path), plain(experiment), IMMATERIAL)


def _show(value: Any) -> str:
    return "no such field" if value is MISSING else repr(value)


def _check_disk(workdir: Path) -> None:
    """Raises UserError where the disk that the workdir is or will be on is full."""
    there = next((path for path in (workdir, *workdir.absolute().parents) if path.is_dir()), None)
    free = shutil.disk_usage(there).free if there else 0
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"workdir = '{workdir}': {free // 2**20} MB are free, {MIN_FREE_BYTES // 2**20} are "
            "needed; free some space or choose another --workdir"
        )
