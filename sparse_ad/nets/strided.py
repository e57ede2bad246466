"""Strided convolutions and their transposes, in the form that the device is quick at."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.nets import products


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k c o"],
    stride: int,
    by_products: bool | None = None,
) -> Float[Array, "n h/stride w/stride o"]:
    """Returns the cross-correlation of x with a kernel, padded by k - stride zeros in all.

    On CPUs by matrix products (see nets/products.py); `by_products` overrides the choice.

    Errors: UserError where stride does not divide the kernel's side, or the sides of x.
    """
    size = len(kernel)
    require_fit(size, stride, x.shape[1:3])
    if on_cpu() if by_products is None else by_products:
        return products.convolve(x, kernel, stride)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (products.margins(size, stride),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def transposed(
    y: Float[Array, "n h w c"],
    kernel: Float[Array, "k k o c"],
    stride: int,
    by_products: bool | None = None,
) -> Float[Array, "n h*stride w*stride o"]:
    """Returns the transpose, as a linear map, of `convolve` with the same kernel."""
    n, height, width, _ = y.shape
    larger = (n, height * stride, width * stride, kernel.shape[2])
    require_fit(len(kernel), stride, larger[1:3])
    if on_cpu() if by_products is None else by_products:
        return products.transposed(y, kernel, stride)

    def forward(x):
        return convolve(x, kernel, stride, by_products)

    return jax.linear_transpose(forward, jax.ShapeDtypeStruct(larger, y.dtype))(y)[0]


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


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
