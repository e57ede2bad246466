"""Conversion: layouts are recognised, batch norms folded, and wrong arrays are named."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.checkpoints import draw, make_vgg16, state_dict, write_npz
from helpers.checkpoints import thin_backbones as thin_backbones  # a fixture

from sparse_ad.errors import UserError
from sparse_ad.features import conversion
from sparse_ad.features.weights import load_weights

pytestmark = pytest.mark.usefixtures("thin_backbones")


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
    assert again.sha256 == found.sha256
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


def test_fingerprint_sees_names_shapes_and_values():
    arrays = {"a": np.float32([1, 2]), "b": np.float32([[3]])}
    digest = conversion.fingerprint(arrays)
    assert digest == conversion.fingerprint(dict(reversed(arrays.items())))
    for other in ({"c": arrays["a"]}, {"a": arrays["a"][None]}, {"a": arrays["a"][::-1]}):
        rest = arrays if "a" in other else {"b": arrays["b"]}
        assert digest != conversion.fingerprint({**rest, **other})
