"""Strided convolutions and their gradients as matrix products, of a few images at a time.

On CPUs XLA runs convolutions within a compiled loop on one core, and is slow at the gradients of
strided ones everywhere; patches of a whole batch, laid out as a matrix, go to memory and back. With
so few images at a time that their patches stay in the cache, all three products run at a
processor's full speed: the values, and the gradients by the input and by the kernel.

Under `vmap` over images, the mapped axis joins the batch axis, so that blocks are chosen for all.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

CACHE = 8e6  # bytes of patches at a time: some fraction of a processor's last level of cache


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c o"], stride: int
) -> Float[Array, "n i j o"]:
    """Returns the cross-correlation of x with a kernel, padded by k - stride zeros in all."""
    return as_one_batch(partial(convolve_batch, stride), x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def transposed(
    y: Float[Array, "n i j o"], kernel: Float[Array, "k k c o"], stride: int
) -> Float[Array, "n h w c"]:
    """Returns the transpose, as a linear map, of `convolve` with the same kernel."""
    return as_one_batch(partial(transposed_batch, stride), y, kernel)


def as_one_batch(
    function: Callable, x: Float[Array, "n ..."], kernel: Float[Array, "k k c o"]
) -> Float[Array, "n ..."]:
    """Returns function(x, kernel), called once also under `vmap` over x: with a larger n."""
    call = custom_vmap(function)
    call.def_vmap(partial(join_batches, function))
    return call(x, kernel)


def join_batches(function: Callable, count: int, mapped: list[bool], x: Array, kernel: Array):
    """The rule of `vmap` for `as_one_batch`: x [count n ...] -> function of [count * n ...]."""
    if mapped[1]:  # a kernel for each: nothing to join
        return jax.vmap(function, [0 if axis else None for axis in mapped])(x, kernel), True
    values = as_one_batch(function, x.reshape(-1, *x.shape[2:]), kernel)
    return values.reshape(count, -1, *values.shape[1:]), True


def convolve_batch(
    stride: int, x: Float[Array, "n h w c"], kernel: Float[Array, "k k c o"]
) -> Float[Array, "n i j o"]:
    rows = kernel.reshape(-1, kernel.shape[-1])

    def values(x):
        return patches(x, len(kernel), stride) @ rows

    return over_blocks(values, (x,), x.size * (len(kernel) / stride) ** 2)


def transposed_batch(
    stride: int, y: Float[Array, "n i j o"], kernel: Float[Array, "k k c o"]
) -> Float[Array, "n h w c"]:
    rows = kernel.reshape(-1, kernel.shape[-1])

    def overlaid(y):
        n, height, width, _ = y.shape
        larger = (n, height * stride, width * stride, kernel.shape[2])
        look = partial(patches, size=len(kernel), stride=stride)
        fold = jax.linear_transpose(look, jax.ShapeDtypeStruct(larger, y.dtype))
        return fold(y @ rows.T)[0]

    return over_blocks(overlaid, (y,), y.size / y.shape[-1] * len(rows))


def kernel_gradient(
    x: Float[Array, "n h w c"], y: Float[Array, "n i j o"], size: int, stride: int
) -> Float[Array, "{size} {size} c o"]:
    """Returns the gradient by the kernel of <convolve(x, kernel), y>."""

    def summed(x, y):
        rows = patches(x, size, stride)
        # this way round: with y as the second factor the product takes twice as long
        axes = ((0, 1, 2), (0, 1, 2)), ((), ())
        return lax.dot_general(y, rows, axes, preferred_element_type=jnp.float32)

    total = over_blocks(summed, (x, y), x.size * (size / stride) ** 2, add=True)
    return total.T.reshape(size, size, x.shape[-1], y.shape[-1]).astype(x.dtype)


def patches(x: Float[Array, "n h w c"], size: int, stride: int) -> Float[Array, "n i j d"]:
    """Returns what each position of a kernel sees, in the kernel's order: rows, columns, channels.

    Columns of one stride lie side by side as they are, so that a patch is of few long pieces.
    """
    n, height, width, channels = x.shape
    margin = margins(size, stride)
    x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    cover, down, across = size // stride, height // stride, width // stride
    x = x.reshape(n, down + cover - 1, stride, across + cover - 1, stride * channels)
    offsets = [(i, a, j) for i in range(cover) for a in range(stride) for j in range(cover)]
    pieces = [x[:, i : i + down, a, j : j + across] for i, a, j in offsets]
    return jnp.concatenate(pieces, axis=-1)


def margins(size: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after each axis, such that it shrinks by the stride alone."""
    return (size - stride) // 2, (size - stride + 1) // 2


def over_blocks(function: Callable, arrays: tuple[Array, ...], patched: float, add: bool = False):
    """Returns function(all images), computed from a block of images at a time.

    Blocks are of one size, which divides the number of images. Several devices each compute all
    blocks: a CPU that is presented as many devices gains nothing.
    `patched`: numbers in the patches of all images. `add`: its results are summed.
    """
    n = len(arrays[0])
    most = CACHE / (patched / n * arrays[0].dtype.itemsize)
    block = max((d for d in range(1, n + 1) if n % d == 0 and d <= most), default=1)
    if block == n:
        return function(*arrays)
    blocks = [array.reshape(-1, block, *array.shape[1:]) for array in arrays]
    if not add:
        values = lax.map(lambda block: function(*block), blocks)
        return values.reshape(n, *values.shape[2:])
    like = jax.eval_shape(function, *(leaf[0] for leaf in blocks))

    def plus(total, block):
        return total + function(*block), None

    return lax.scan(plus, jnp.zeros(like.shape, like.dtype), blocks)[0]


def convolve_forward(x, kernel, stride):
    return convolve(x, kernel, stride), (x, kernel)


def convolve_backward(stride, kept, y):
    x, kernel = kept
    return transposed(y, kernel, stride), kernel_gradient(x, y, len(kernel), stride)


def transposed_forward(y, kernel, stride):
    return transposed(y, kernel, stride), (y, kernel)


def transposed_backward(stride, kept, x):
    y, kernel = kept
    return convolve(x, kernel, stride), kernel_gradient(x, y, len(kernel), stride)


convolve.defvjp(convolve_forward, convolve_backward)
transposed.defvjp(transposed_forward, transposed_backward)
