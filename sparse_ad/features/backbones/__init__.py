"""The frozen networks, by name."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from sparse_ad.devices import DTYPES
from sparse_ad.errors import require_choice
from sparse_ad.features.backbones import efficientnet_lite0, resnet18, vgg16
from sparse_ad.features.backbones.layers import Layer, Layout, require_layers


class Backbone(NamedTuple):
    """A network, what can be asked of it, and the checkpoints that it can be read from."""

    module: Callable[..., nn.Module]  # (layers, dtype=) -> module
    layers: dict[str, Layer]  # in the order in which they are computed
    layouts: tuple[Layout, ...]


BACKBONES = {
    "vgg16": Backbone(vgg16.VGG16, vgg16.LAYERS, vgg16.LAYOUTS),
    "resnet18": Backbone(resnet18.ResNet18, resnet18.LAYERS, resnet18.LAYOUTS),
    "efficientnet_lite0": Backbone(
        efficientnet_lite0.EfficientNetLite0, efficientnet_lite0.LAYERS, efficientnet_lite0.LAYOUTS
    ),
}


def build_backbone(name: str, layers: tuple[str, ...], dtype: str = "float32") -> nn.Module:
    """Returns the module of a backbone: `module.apply({"params": params}, x)` -> {layer: output}.

    `dtype` is that of the computation; bfloat16 is faster on accelerators only.

    Raises: FieldError for a backbone, a layer or a dtype that there is not, with the choices.
    """
    require_choice("backbone", name, BACKBONES)
    require_layers(layers, BACKBONES[name].layers)
    require_choice("dtype", dtype, DTYPES)
    return BACKBONES[name].module(layers, dtype=DTYPES[dtype])
