"""VGG16: its thirteen convolutions, each before and after its ReLU.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, Table 1, column D.

| layers | stride | channels |
|---|---|---|
| conv1_1, conv1_2 | 1 | 64 |
| conv2_1, conv2_2 | 2 | 128 |
| conv3_1, conv3_2, conv3_3 | 4 | 256 |
| conv4_1, conv4_2, conv4_3 | 8 | 512 |
| conv5_1, conv5_2, conv5_3 | 16 | 512 |

conv4_3 is the convolution's output (bias added) before the ReLU, relu4_3 the same after it.
"""

import re
from collections.abc import Iterator

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from sparse_ad.features.backbones.layers import Convolution, Extractor, Layer, Layout, Source

WIDTHS = (64, 128, 256, 512, 512)  # channels of each block
DEPTHS = (2, 2, 3, 3, 3)  # convolutions of each block

LAYERS: dict[str, Layer] = {
    f"{kind}{block}_{index}": Layer(2 ** (block - 1), signed=kind == "conv")
    for block, depth in enumerate(DEPTHS, 1)
    for index in range(1, depth + 1)
    for kind in ("conv", "relu")
}


class VGG16(Extractor):
    """Thirteen convolutions, in blocks that begin with a pooling."""

    widths: tuple[int, ...] = WIDTHS

    def steps(self, x: Float[Array, "n h w 3"]) -> Iterator[tuple[str, Array]]:
        for block, (width, depth) in enumerate(zip(self.widths, DEPTHS, strict=True), 1):
            if block > 1:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for index in range(1, depth + 1):
                name = f"{block}_{index}"
                x = Convolution(width, 3, padding=1, dtype=self.dtype, name=f"conv{name}")(x)
                yield f"conv{name}", x
                x = nn.relu(x)
                yield f"relu{name}", x


def _keras_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of Keras's layers under names of this module, others as they are.

    Keras: block1_conv1/kernel. ONNX initialisers: .../block1_conv1_1/convolution/ReadVariableOp:0,
    where the rank tells a kernel from a bias: conv1_1.weight, conv1_1.bias.
    """
    renamed = {}
    for name, array in arrays.items():
        layer = re.search(r"block(\d)_conv(\d)", name)
        part = re.search(r"(kernel|bias)$", name)
        if layer and part:
            name = f"conv{layer[1]}_{layer[2]}/{part[1]}"
        elif layer and array.ndim in (1, 4):
            name = f"conv{layer[1]}_{layer[2]}.{'weight' if array.ndim == 4 else 'bias'}"
        renamed[name] = array
    return renamed


def _torchvision_names(path: str) -> Source:
    """Returns features.N.weight and .bias: N counts convolutions, ReLUs and poolings from 0."""
    block, index = (int(digit) for digit in path.removeprefix("conv").split("_"))
    position = sum(2 * depth + 1 for depth in DEPTHS[: block - 1]) + 2 * (index - 1)
    return Source(f"features.{position}.weight", f"features.{position}.bias")


_KERAS = Layout(  # BGR, 0..255, less the mean
    order="hwio",
    source=lambda path: Source(f"{path}/kernel", f"{path}/bias"),
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
    first="conv1_1",
    rename=_keras_names,
)

LAYOUTS = (
    _KERAS,
    _KERAS._replace(  # exported to ONNX
        order="oihw",
        source=lambda path: Source(f"{path}.weight", f"{path}.bias"),
    ),
    # Torchvision's "IMAGENET1K_FEATURES", converted from Caffe, has these names, too, but needs the
    # mean and std of Keras's: do not give it to this reader.
    Layout(  # torchvision: RGB, mean and std of ImageNet
        order="oihw",
        source=_torchvision_names,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
)
