"""The file normal_errors.npz: mean and std of the errors of normal images, beside calibration.json.

calibration.json holds the SHA-256 of the file and is written after it: where only one of them was
written, the two do not belong together, and are not believed.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from sparse_ad.errors import UserError
from sparse_ad.methods.lifts.calibrated import NormalErrors
from sparse_ad.system.files import write_bytes

NAME = "normal_errors.npz"
REMEDY = "run --mode=evaluate to calibrate again"

Like = Mapping[str, jax.ShapeDtypeStruct]  # shapes and types of the errors of an image, by layer


def write_normal_errors(workdir: Path, normal: NormalErrors | None) -> str:
    """Writes the file, or none; returns its SHA-256, "" where there is none.

    A file of an earlier calibration is left where there is none now: see `remove_unused`.
    """
    if normal is None:
        return ""
    arrays = {
        f"{part}/{layer}": values
        for part, layers in normal._asdict().items()
        for layer, values in layers.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(workdir / NAME, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def remove_unused(workdir: Path, sha256: str) -> None:
    """Removes the file where calibration.json, which is written by now, names none."""
    if not sha256:
        (workdir / NAME).unlink(missing_ok=True)


def is_whole(workdir: Path, sha256: str) -> bool:
    """Returns whether the file is the one that calibration.json was written with."""
    try:
        return not sha256 or _hash((workdir / NAME).read_bytes()) == sha256
    except OSError:
        return False


def read_normal_errors(workdir: Path, sha256: str, like: Like) -> NormalErrors:
    """Reads the file that calibration.json names by its hash.

    Raises: UserError where it is missing or another one, or does not fit the detector.
    """
    path = workdir / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; {REMEDY}") from error
    if _hash(content) != sha256:
        raise UserError(f"{path}: does not belong to calibration.json beside it; {REMEDY}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = [{layer: arrays[f"{part}/{layer}"] for layer in like} for part in PARTS]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: does not hold the layers of this detector; {REMEDY}") from error
    normal = NormalErrors(*parts)
    for layer, shape in like.items():
        found = [part[layer].shape for part in normal]
        if found != [shape.shape] * 2 or not usable(normal, layer):
            raise UserError(f"{path}: {layer} does not fit this detector's errors; {REMEDY}")
    return normal


def usable(normal: NormalErrors, layer: str) -> bool:
    """Returns whether mean and std of a layer are numbers that errors can be measured in."""
    mean, std = normal.mean[layer], normal.std[layer]
    return bool(np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PARTS = NormalErrors._fields
