"""Checkpoints of thin networks, as Keras and torchvision write them."""

from functools import partial

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.backbones.resnet18 import ResNet18
from sparse_ad.features.backbones.vgg16 import VGG16

WIDTHS = (4, 5, 6, 7, 8)
# What torchvision calls VGG16's convolutions, counted by hand.
PLACES = {
    **{"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14},
    **{"4_1": 17, "4_2": 19, "4_3": 21, "5_1": 24, "5_2": 26, "5_3": 28},
}


@pytest.fixture
def thin_backbones(tmp_path, monkeypatch):
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


def check_params(found, layers):
    params = flatten_dict(found.params, sep="/")
    assert len(params) == 2 * len(layers)
    for name, (kernel, bias) in layers.items():
        for part, expected in (("kernel", kernel), ("bias", bias)):
            array = params[f"conv{name}/{part}"]
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected)


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
