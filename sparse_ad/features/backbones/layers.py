"""What the backbones share: tables of layers, names in checkpoints, modules."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), in pixels


class Layer(NamedTuple):
    """A layer whose output can be asked for."""

    stride: int  # pixels of the image from one position to the next
    signed: bool = False  # whether it may be negative: it does not lie behind a ReLU


class Source(NamedTuple):
    """What a checkpoint calls the parts of one convolution; "" = it has no such part."""

    weight: str
    bias: str = ""
    norm: str = ""  # the batch norm behind it: NORM.weight, .bias, .running_mean, .running_var


class Layout(NamedTuple):
    """One way in which checkpoints of a backbone are written; recognised by its names."""

    order: str  # of the axes of kernels: "hwio" or "oihw"
    source: Callable[[str], Source]  # path of a convolution in the module -> names
    mean: tuple[float, float, float]  # of RGB, in 0..1
    std: tuple[float, float, float]
    bgr: bool = False  # the first convolution, `first`, takes blue, green, red
    first: str = ""
    epsilon: float = 0.0  # of its batch norms
    rename: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict


def require_layers(layers: tuple[str, ...], table: dict[str, Layer]) -> None:
    """Raises FieldError unless `layers` are different names of `table`, at least one."""
    require(len(layers) > 0, "layers", layers, f"name at least one of {', '.join(table)}")
    for name in layers:
        require_choice("layers", name, table)
    require(len(set(layers)) == len(layers), "layers", layers, "name each layer once")


def collect(
    steps: Iterable[tuple[str, Array]], layers: tuple[str, ...]
) -> dict[str, Float[Array, "_ _ _ _"]]:
    """Returns the named outputs, float32, and takes no step beyond the last of them."""
    outputs: dict[str, Array] = {}
    for name, value in steps:
        if name in layers:
            outputs[name] = value.astype(jnp.float32)
        if len(outputs) == len(layers):
            break
    return {name: outputs[name] for name in layers}


class Extractor(nn.Module):
    """Returns the `layers` of images that are RGB, less their mean and over their std."""

    layers: tuple[str, ...]
    dtype: Any = jnp.float32  # of the computation; results are float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> dict[str, Float[Array, "n _ _ _"]]:
        return collect(self.steps(x.astype(self.dtype)), self.layers)

    def steps(self, x: Float[Array, "n h w 3"]) -> Iterator[tuple[str, Array]]:
        """Yields (name, output) of each layer, in the order in which they are computed."""
        raise NotImplementedError


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    bias: Float[Array, " o"],
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """Returns the cross-correlation of `x` with `kernel` (i = c / groups), plus `bias`.

    In the dtype of `x`, at full precision: GPUs else compute float32 with 10 bits (TF32).
    """
    out = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )
    return out + bias[None, None, None]


def same_padding(size: tuple[int, int], kernel: int, stride: int) -> Padding:
    """Returns TensorFlow's SAME: ceil(size / stride) positions, the odd pixel of padding behind."""
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
    height, width = ((pixels // 2, pixels - pixels // 2) for pixels in total)
    return height, width


class Convolution(nn.Module):
    """A convolution with a bias: params kernel [k k i o] and bias [o]."""

    channels: int
    kernel: int  # its side
    stride: int = 1
    padding: int | None = None  # on every side; None = TensorFlow's SAME
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        _, height, width, channels = x.shape
        shape = (self.kernel, self.kernel, channels // self.groups, self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        if self.padding is None:
            padding = same_padding((height, width), self.kernel, self.stride)
        else:
            padding = ((self.padding, self.padding), (self.padding, self.padding))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return convolve(x, kernel, bias, self.stride, padding, self.groups)
