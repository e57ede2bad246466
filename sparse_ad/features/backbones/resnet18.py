"""ResNet-18 up to its third stage, batch norms folded into the convolutions.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1; strides and
padding as torchvision has them.

| layer | stride | channels | |
|---|---|---|---|
| conv1 | 2 | 64 | after its ReLU, before the pooling |
| layer1 | 4 | 64 | after the ReLU of its last block, like the next two |
| layer2 | 8 | 128 | |
| layer3 | 16 | 256 | |
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from sparse_ad.features.backbones.layers import Convolution, Extractor, Layer, Layout, Source

WIDTHS = (64, 128, 256)  # channels of each stage

LAYERS: dict[str, Layer] = {
    "conv1": Layer(2),
    "layer1": Layer(4),
    "layer2": Layer(8),
    "layer3": Layer(16),
}


class Block(nn.Module):
    """Two 3x3 convolutions beside a short cut, which is a 1x1 convolution where shapes differ."""

    channels: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        convolution = partial(Convolution, self.channels, dtype=self.dtype)
        y = convolution(3, self.stride, 1, name="conv1")(x)
        y = convolution(3, 1, 1, name="conv2")(nn.relu(y))
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = convolution(1, self.stride, 0, name="downsample")(x)
        return nn.relu(x + y)


class ResNet18(Extractor):
    """A convolution and a pooling, then stages of two blocks."""

    widths: tuple[int, ...] = WIDTHS

    def steps(self, x: Float[Array, "n h w 3"]) -> Iterator[tuple[str, Array]]:
        x = nn.relu(Convolution(self.widths[0], 7, 2, 3, dtype=self.dtype, name="conv1")(x))
        yield "conv1", x
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for stage, width in enumerate(self.widths, 1):
            for block in range(2):
                stride = 2 if stage > 1 and block == 0 else 1
                x = Block(width, stride, self.dtype, name=f"layer{stage}_{block}")(x)
            yield f"layer{stage}", x


def _torchvision_name(path: str) -> str:
    """Returns "layer2.0.downsample.0" for "layer2_0/downsample"."""
    name = path.replace("_", ".").replace("/", ".")
    return f"{name}.0" if name.endswith("downsample") else name


def _folded(path: str) -> Source:
    name = _torchvision_name(path)
    return Source(f"{name}.weight", f"{name}.bias")


def _unfolded(path: str) -> Source:
    name = _torchvision_name(path)
    norm = name[:-1] + "1" if "downsample" in name else name.replace("conv", "bn")
    return Source(f"{name}.weight", norm=norm)


_TORCHVISION = Layout(  # RGB, mean and std of ImageNet
    order="oihw",
    source=_unfolded,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    epsilon=1e-5,
)

LAYOUTS = (
    _TORCHVISION,
    _TORCHVISION._replace(source=_folded),
)
