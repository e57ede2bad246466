"""The frozen networks, by the name that `config.features.backbone` gives them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from sparse_ad.devices import DTYPES
from sparse_ad.errors import require_choice
from sparse_ad.features.backbones import efficientnet_lite0, resnet18, vgg16
from sparse_ad.features.backbones.layers import Layer, Layout, require_layers


class Backbone(NamedTuple):
    """A network, what can be asked of it, and the checkpoints that it can be read from."""

    module: Callable[..., nn.Module]  # (layers, dtype=, conv=) -> module
    layers: dict[str, Layer]  # in the order in which they are computed
    layouts: tuple[Layout, ...]


BACKBONES = {
    "vgg16": Backbone(vgg16.VGG16, vgg16.LAYERS, vgg16.LAYOUTS),
    "resnet18": Backbone(resnet18.ResNet18, resnet18.LAYERS, resnet18.LAYOUTS),
    "efficientnet_lite0": Backbone(
        efficientnet_lite0.EfficientNetLite0, efficientnet_lite0.LAYERS, efficientnet_lite0.LAYOUTS
    ),
}


def build_backbone(name: str, layers: tuple[str, ...], dtype: Any = "float32") -> nn.Module:
    """Returns the module of a backbone: `module.apply({"params": params}, x)` -> {layer: output}.

    `dtype` is that of the computation, a name or a dtype; bfloat16 pays on accelerators only.
    Raises UserError for a name, a layer or a dtype that there is not, with the choices.
    """
    require_choice("features.backbone", name, BACKBONES)
    require_layers(tuple(layers), BACKBONES[name].layers)
    dtype = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    require_choice("features.dtype", dtype, DTYPES)
    return BACKBONES[name].module(tuple(layers), dtype=DTYPES[dtype])
