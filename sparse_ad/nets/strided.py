"""Strided convolutions and their transposes, in the form that the device is quick at."""

import jax
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.nets import products


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c o"], stride: int
) -> Float[Array, "n i j o"]:
    """Returns the cross-correlation of x with a kernel, padded by k - stride zeros in all.

    i = h / stride, j = w / stride. On CPUs by matrix products: see nets/products.py.

    Raises: FieldError where stride does not divide the kernel's side, or the sides of x.
    """
    _, height, width, _ = x.shape
    require_fit(len(kernel), stride, (height, width))
    if on_cpu():
        return products.convolve(x, kernel, stride)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        (products.margins(len(kernel), stride),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def transposed(
    y: Float[Array, "n i j o"], kernel: Float[Array, "k k c o"], stride: int
) -> Float[Array, "n h w c"]:
    """Returns the transpose, as a linear map, of `convolve` with the same kernel."""
    n, height, width, _ = y.shape
    larger = (n, height * stride, width * stride, kernel.shape[2])
    require_fit(len(kernel), stride, larger[1:3])
    if on_cpu():
        return products.transposed(y, kernel, stride)
    like = jax.ShapeDtypeStruct(larger, y.dtype)
    return jax.linear_transpose(lambda x: convolve(x, kernel, stride), like)(y)[0]


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def require_fit(size: int, stride: int, sides: tuple[int, int]) -> None:
    """Raises FieldError unless stride divides the kernel's side, and the sides of its input."""
    remedy = f"must be a multiple of its stride, {stride}"
    require(size % stride == 0, "kernel", size, remedy)
    remedy = f"must divide the sides of what it sees, {sides[0]} x {sides[1]}; change images' size"
    require(all(side % stride == 0 for side in sides), "stride", stride, remedy)
