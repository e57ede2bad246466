"""EfficientNet-Lite0: ReLU6, no squeeze-and-excitation, batch norms folded.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, Table 1; the Lite variant is TensorFlow's (tensorflow/tpu, efficientnet/lite), and so are
padding (SAME: at even sizes the odd pixel lies behind), the epsilon 1e-3 of its batch norms, and
its input, (x - 127) / 128 for x in 0..255.

| layer | stride | channels | blocks | kernel |
|---|---|---|---|---|
| stem | 2 | 32 | | 3 |
| stage0 | 2 | 16 | 0 | 3 |
| stage1 | 4 | 24 | 1, 2 | 3 |
| stage2 | 8 | 40 | 3, 4 | 5 |
| stage3 | 16 | 80 | 5 to 7 | 3 |
| stage4 | 16 | 112 | 8 to 10 | 5 |
| stage5 | 32 | 192 | 11 to 14 | 5 |
| stage6 | 32 | 320 | 15 | 3 |

The stem is given after its ReLU6; a stage ends in a projection that has none, the sum with the
short cut included.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from sparse_ad.features.backbones.layers import Convolution, Extractor, Layer, Layout, Source


class Stage(NamedTuple):
    """A row of the table of stages."""

    blocks: int
    kernel: int
    stride: int  # of its first block
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

LAYERS: dict[str, Layer] = {
    "stem": Layer(2),
    "stage0": Layer(2, signed=True),
    "stage1": Layer(4, signed=True),
    "stage2": Layer(8, signed=True),
    "stage3": Layer(16, signed=True),
    "stage4": Layer(16, signed=True),
    "stage5": Layer(32, signed=True),
    "stage6": Layer(32, signed=True),
}


class Block(nn.Module):
    """Widen, convolve each channel by itself, project; with a short cut where shapes allow."""

    channels: int
    kernel: int
    stride: int
    expansion: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        convolution = partial(Convolution, dtype=self.dtype)
        width, y = x.shape[-1] * self.expansion, x
        if self.expansion > 1:
            y = nn.relu6(convolution(width, 1, name="expand")(y))
        y = convolution(width, self.kernel, self.stride, groups=width, name="depthwise")(y)
        y = convolution(self.channels, 1, name="project")(nn.relu6(y))
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(Extractor):
    """The stem, then the stages."""

    def steps(self, x: Float[Array, "n h w 3"]) -> Iterator[tuple[str, Array]]:
        x = nn.relu6(Convolution(32, 3, 2, dtype=self.dtype, name="stem")(x))
        yield "stem", x
        count = 0
        for index, stage in enumerate(STAGES):
            for block in range(stage.blocks):
                x = Block(
                    stage.channels,
                    stage.kernel,
                    stage.stride if block == 0 else 1,
                    stage.expansion,
                    self.dtype,
                    name=f"block{count}",
                )(x)
                count += 1
            yield f"stage{index}", x


def _names(path: str) -> Source:
    """Returns the names of `efficientnet_lite_pytorch`: _blocks.3._expand_conv, _blocks.3._bn0."""
    if path == "stem":
        return Source("_conv_stem.weight", norm="_bn0")
    block, part = path.split("/")
    prefix = f"_blocks.{block.removeprefix('block')}"
    norm = ("expand", "depthwise", "project").index(part)
    return Source(f"{prefix}._{part}_conv.weight", norm=f"{prefix}._bn{norm}")


LAYOUTS = (
    Layout(  # TensorFlow's, converted to PyTorch: RGB, (x - 127) / 128
        order="oihw",
        source=_names,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        epsilon=1e-3,
    ),
)
