"""Thin networks with random weights in place of the pretrained ones."""

from functools import partial

import jax
import numpy as np
import pytest

from sparse_ad.features import pyramid
from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.backbones.efficientnet_lite0 import EfficientNetLite0
from sparse_ad.features.backbones.resnet18 import ResNet18
from sparse_ad.features.backbones.vgg16 import VGG16
from sparse_ad.features.weights import Weights
from sparse_ad.types import Features

THIN = {  # cheap networks of the same make
    "vgg16": partial(VGG16, widths=(4, 5, 6, 7, 8)),
    "resnet18": partial(ResNet18, widths=(4, 5, 6)),
    "efficientnet_lite0": EfficientNetLite0,
}


def random_params(module, x):
    """Returns parameters of which none is zero, drawn by NumPy: quicker than `module.init`."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) == 4 else 0.1
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), x)["params"])


@pytest.fixture
def thin(monkeypatch, tmp_path):
    """VGG16 with few channels and random weights; the cache in a folder of the test's own."""
    monkeypatch.setenv("SPARSE_AD_CACHE", str(tmp_path / "cache"))
    module = THIN["vgg16"]
    monkeypatch.setitem(BACKBONES, "vgg16", BACKBONES["vgg16"]._replace(module=module))
    params = random_params(module(tuple(BACKBONES["vgg16"].layers)), make_images(1))
    weights = Weights(params, np.full(3, 0.5, np.float32), np.ones(3, np.float32), "0123")
    monkeypatch.setattr(pyramid, "load_weights", lambda *_: weights)
    return tmp_path / "cache" / "features"


def thin_network(**fields):
    """Returns options of the thin network: two layers, in another order than their depth."""
    return pyramid.Network(**{"layers": ("relu2_1", "relu1_2")} | fields)


def make_images(count, seed=0, shape=(16, 24, 3)):
    return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


class Counting:
    """Features of two layers, and how many images each call got."""

    def __init__(self, identity="counting"):
        self.calls = []
        self.features = Features(self.extract, identity)

    def extract(self, images):
        self.calls.append(len(images))
        return {"b+c": 2 * images[:, ::2], "a": images[..., :1] - 0.5}


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
