"""Strided convolutions and their transposes, in the form that the device is quick at."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k c o"],
    stride: int,
    by_products: bool | None = None,
) -> Float[Array, "n h/stride w/stride o"]:
    """Returns the cross-correlation of x with a kernel, padded by k - stride zeros in all.

    On CPUs as one matrix product: their convolutions run on one core within a compiled loop, and
    gradients of strided ones are slow everywhere. `by_products` overrides the choice.

    Errors: UserError where stride does not divide the kernel's side, or the sides of x.
    """
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    require_fit(size, stride, (height, width))
    before, after = (size - stride) // 2, (size - stride + 1) // 2
    if by_products is None:
        by_products = jax.default_backend() == "cpu"
    if not by_products:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((before, after),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    padded = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    cells = to_depth(padded, stride)  # of which a kernel covers so many:
    cover, down, across = size // stride, height // stride, width // stride
    shifts = [(i, j) for i in range(cover) for j in range(cover)]
    seen = jnp.concatenate([cells[:, i : i + down, j : j + across] for i, j in shifts], axis=-1)
    rows = kernel.reshape(cover, stride, cover, stride, -1, kernel.shape[-1])
    rows = rows.transpose(0, 2, 1, 3, 4, 5).reshape(-1, kernel.shape[-1])
    return (seen.reshape(-1, len(rows)) @ rows).reshape(-1, down, across, kernel.shape[-1])


def transposed(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k o c"],
    stride: int,
    by_products: bool | None = None,
) -> Float[Array, "n h*stride w*stride o"]:
    """Returns the transpose, as a linear map, of `convolve` with the same kernel."""
    n, height, width, _ = x.shape
    larger = (n, height * stride, width * stride, kernel.shape[2])

    def forward(y):
        return convolve(y, kernel, stride, by_products)

    return jax.linear_transpose(forward, jax.ShapeDtypeStruct(larger, x.dtype))(x)[0]


def to_depth(x: Float[Array, "n h w c"], block: int) -> Float[Array, "n h/block w/block d"]:
    """Returns blocks of pixels as the channels of one: d = block * block * c."""
    n, height, width, channels = x.shape
    if block == 1:
        return x
    cells = x.reshape(n, height // block, block, width // block, block, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // block, width // block, -1)


def require_fit(size: int, stride: int, sides: tuple[int, int]) -> None:
    """Raises UserError unless stride divides the kernel's side, and the sides of what it sees."""
    remedy = f"must be multiples of the blocks' strides, and {size} is none of {stride}"
    require(size % stride == 0, "net.kernels", size, remedy)
    remedy = f"halve or divide evenly at every block: a block of stride {stride} meets {sides}"
    require(all(side % stride == 0 for side in sides), "data.size", sides, remedy)


class Convolution(nn.Module):
    """`convolve`, or with `up` its transpose, plus a bias; weights in float32."""

    channels: int
    size: int
    stride: int = 1
    up: bool = False
    bias: bool = True
    dtype: type = jnp.float32
    draw: Callable | None = None  # initialiser of the kernel; None: He's

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        ends = (x.shape[-1], self.channels)
        shape = (self.size, self.size, *(reversed(ends) if self.up else ends))
        # He's, for what a position sees: of a transposed kernel, one place in stride x stride.
        gain, (fan_in, fan_out) = (2.0 * self.stride**2, (-1, -2)) if self.up else (2.0, (-2, -1))
        draw = nn.initializers.variance_scaling(gain, "fan_in", "uniform", fan_in, fan_out)
        kernel = self.param("kernel", self.draw or draw, shape).astype(self.dtype)
        apply = transposed if self.up else convolve
        out = apply(x.astype(self.dtype), kernel, self.stride)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.channels,))
            out = out + bias.astype(self.dtype)
        return out
