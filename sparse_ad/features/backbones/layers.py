"""What the backbones share: tables of layers, a convolution module, names in checkpoints."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

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
    channels: int


class Source(NamedTuple):
    """What a checkpoint calls the parts of one convolution; "" = it has no such part."""

    weight: str
    bias: str = ""
    norm: str = ""  # the batch norm behind it: NORM.weight, .bias, .running_mean, .running_var


class Layout(NamedTuple):
    """One way in which checkpoints of a backbone are written; recognised by its names."""

    title: str  # shown to people
    order: str  # of the axes of kernels: "hwio" or "oihw"
    source: Callable[[str], Source]  # path of a convolution in the module -> names
    mean: tuple[float, float, float]  # of RGB, in 0..1
    deviation: tuple[float, float, float]
    bgr: bool = False  # the first convolution, `first`, takes blue, green, red
    first: str = ""
    epsilon: float = 0.0  # of its batch norms
    rename: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict


def require_layers(layers: tuple[str, ...], table: dict[str, Layer]) -> None:
    """Raises UserError unless `layers` are different names of `table`, at least one."""
    field = "features.layers"
    require(len(layers) > 0, field, layers, f"name at least one of {', '.join(table)}")
    for name in layers:
        require_choice(field, name, table)
    require(len(set(layers)) == len(layers), field, layers, "name each layer once")


def require_size(
    size: tuple[int, int],
    layers: tuple[str, ...],
    table: dict[str, Layer],
    field: str = "data.size",
) -> None:
    """Raises UserError for images (height, width) smaller than one position of a layer."""
    deepest = max(layers, key=lambda name: table[name].stride)
    stride = table[deepest].stride
    require(
        min(size) >= stride,
        field,
        tuple(size),
        f"layer {deepest} needs {stride} x {stride} pixels or more: enlarge the images, or "
        "choose an earlier layer in features.layers",
    )


def collect(
    steps: Iterable[tuple[str, Array]], layers: tuple[str, ...]
) -> dict[str, Float[Array, "n h w c"]]:
    """Returns the named outputs, float32, and takes no step beyond the last of them."""
    found: dict[str, Array] = {}
    for name, value in steps:
        if name in layers:
            found[name] = value.astype(jnp.float32)
        if len(found) == len(layers):
            break
    return {name: found[name] for name in layers}


class Network(nn.Module):
    """Returns the `layers` of images that are RGB, less their mean and over their deviation.

    What a backbone shares with the others: it says what `table` its layers have, and yields them
    by `steps`.
    """

    layers: tuple[str, ...]
    dtype: Any = jnp.float32  # of the computation; results are float32
    table: ClassVar[dict[str, Layer]]

    def steps(self, x: Array) -> Iterator[tuple[str, Array]]:
        """Yields (name, output) of each layer, in the order in which they are computed."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> dict[str, Float[Array, "n h2 w2 c"]]:
        require_layers(self.layers, self.table)
        require_size(x.shape[1:3], self.layers, self.table)
        return collect(self.steps(x.astype(self.dtype)), self.layers)


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
    return out + bias


def same_padding(size: tuple[int, int], kernel: int, stride: int) -> Padding:
    """Returns TensorFlow's SAME: ceil(size / stride) positions, the odd pixel of padding behind."""
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
    return tuple((pixels // 2, pixels - pixels // 2) for pixels in total)


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
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        if self.padding is None:
            padding = same_padding(x.shape[1:3], self.kernel, self.stride)
        else:
            padding = ((self.padding, self.padding),) * 2
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return convolve(x, kernel, bias, self.stride, padding, self.groups)
