"""From images to patches, from patch errors back to images and to one score."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.types import Key


def grid(length: int, size: int, stride: int) -> np.ndarray:
    """Returns the first pixel of each patch along one side: 0, stride, 2 stride, ...

    Errors: UserError where a patch is larger than the side, or size or stride is below 1.
    """
    require(size >= 1, "method.patch_size", size, "must be at least 1")
    require(stride >= 1, "method.stride", stride, "must be at least 1")
    remedy = f"exceeds the image side of {length}; make the patch smaller or data.size larger"
    require(size <= length, "method.patch_size", size, remedy)
    return np.arange(0, length - size + 1, stride)


def window(length: int, size: int, stride: int) -> np.ndarray:
    """Returns the pixels of each patch along one side: [patches size]."""
    return grid(length, size, stride)[:, None] + np.arange(size)


def extract(image: Float[Array, "h w c"], size: int, stride: int) -> Float[Array, "p d"]:
    """Returns all patches of an image, row by row, each flattened from (size, size, c)."""
    height, width, channels = image.shape
    strips = image[window(height, size, stride)]  # [rows size w c]
    patches = strips[:, :, window(width, size, stride)]  # [rows size columns size c]
    return patches.transpose(0, 2, 1, 3, 4).reshape(-1, size * size * channels)


def fold(
    patches: Float[Array, "p d"], shape: tuple[int, int, int], size: int, stride: int
) -> Float[Array, "h w c"]:
    """Returns the adjoint of `extract`: patches added up where they overlap."""
    like = jax.ShapeDtypeStruct(shape, patches.dtype)
    return jax.linear_transpose(lambda image: extract(image, size, stride), like)(patches)[0]


def average(
    patches: Float[Array, "p d"], shape: tuple[int, int, int], size: int, stride: int
) -> Float[Array, "h w c"]:
    """Returns the image whose pixels are the means of the patches over them; 0 where none is."""
    down, across = (np.bincount(window(length, size, stride).ravel()) for length in shape[:2])
    covered = np.zeros((*shape[:2], 1), np.float32)
    covered[: len(down), : len(across), 0] = np.outer(down, across)
    return fold(patches, shape, size, stride) / np.maximum(covered, 1.0)


def spreading(length: int, size: int, stride: int) -> np.ndarray:
    """Returns the matrix [length patches] that gives a pixel the mean of the patches over it.

    Pixels beyond the last patch take what the nearest covered pixel has.
    """
    starts = grid(length, size, stride)
    pixels = np.minimum(np.arange(length), starts[-1] + size - 1)[:, None]
    covers = (starts <= pixels) & (pixels < starts + size)
    gap = ~covers.any(axis=1)  # where the stride is larger than the patch
    nearest = np.abs(pixels - (starts + (size - 1) / 2)).argmin(axis=1)
    covers[gap, nearest[gap]] = True
    return (covers / covers.sum(axis=1, keepdims=True)).astype(np.float32)


def error_map(
    errors: Float[Array, " p"], shape: tuple[int, int], size: int, stride: int
) -> Float[Array, "h w"]:
    """Returns patch errors as an image: each pixel has the mean error of the patches over it.

    The overlap is separable, so that folding is two small matrix products.
    """
    down, across = (spreading(length, size, stride) for length in shape)
    table = errors.reshape(down.shape[1], across.shape[1])
    return jnp.einsum("hi,ij,wj->hw", down, table, across, precision=lax.Precision.HIGHEST)


def resize_map(
    anomaly_map: Float[Array, "h w"], shape: tuple[int, int], border: int = 0
) -> Float[Array, "height width"]:
    """Returns a map brought to another size, linearly between the centres of its cells.

    `border` positions, which were cut from each side of the map before, are first put back: they
    have what their nearest neighbour has.
    """
    return jax.image.resize(jnp.pad(anomaly_map, border, mode="edge"), shape, "linear")


def top_rows(errors: Float[Array, "p c"], count: int) -> Float[Array, "count c"]:
    """Returns the largest `count` of each column, or all there are, the largest first.

    One pass for each: for a handful many times faster than sorting on a CPU.
    """
    count = min(count, errors.shape[0])
    places = jnp.arange(errors.shape[0])[:, None]

    def take(turn, state):
        left, found = state
        found = found.at[turn].set(jnp.max(left, axis=0))
        return jnp.where(places == jnp.argmax(left, axis=0), -jnp.inf, left), found

    found = jnp.zeros((count, errors.shape[1]), errors.dtype)
    return lax.fori_loop(0, count, take, (errors, found))[1]


def pooling(config) -> Callable[[Float[Array, " p"]], Float[Array, ""]]:
    """Returns the function from an image's patch errors to its score.

    top_sum: sum of the `top` largest (Imamura et al., section 3.2: 5); max: the largest;
    top_mean: mean of the largest share `quantile`. Errors: UserError on a wrong field.
    """
    require(config.top >= 1, "method.top", config.top, "must be at least 1")
    require(0 < config.quantile <= 1, "method.quantile", config.quantile, "must be in (0, 1]")

    def top_sum(errors):
        return jnp.sum(lax.top_k(errors, min(config.top, errors.shape[0]))[0])

    def top_mean(errors):
        if config.quantile == 1:  # all of them: no need to sort
            return jnp.mean(errors)
        return jnp.mean(lax.top_k(errors, max(1, round(config.quantile * errors.shape[0])))[0])

    choices = {"top_sum": top_sum, "max": jnp.max, "top_mean": top_mean}
    require_choice("method.pooling", config.pooling, choices)
    return choices[config.pooling]


@dataclass(frozen=True)
class Pool:
    """From an image's errors to its score."""

    rule: str = "top_sum"  # top_sum | max | top_mean
    top: int = 5  # top_sum: how many of the largest errors are added
    fraction: float = 0.01  # top_mean: of largest errors that are averaged


def pool(options: Pool, errors: Float[Array, " p"]) -> Float[Array, ""]:
    """Returns the score."""
    if options.rule == "top_sum":
        return jnp.sum(lax.top_k(errors, min(options.top, errors.shape[0]))[0])
    if options.rule == "max":
        return jnp.max(errors)
    if options.fraction == 1:
        return jnp.mean(errors)
    return jnp.mean(lax.top_k(errors, max(1, round(options.fraction * errors.shape[0])))[0])


def draw(
    key: Key, images: Float[Array, "n h w c"], count: int, size: int
) -> Float[Array, "count n d"]:
    """Returns `count` patches from anywhere in each image, drawn with replacement."""
    n, height, width, channels = images.shape
    grid(height, size, 1), grid(width, size, 1)  # a patch must fit
    tops, lefts = jax.random.split(key)
    top = jax.random.randint(tops, (count, n), 0, height - size + 1)
    left = jax.random.randint(lefts, (count, n), 0, width - size + 1)

    def cut(image, top, left):
        return lax.dynamic_slice(image, (top, left, 0), (size, size, channels)).ravel()

    return jax.vmap(jax.vmap(cut), in_axes=(None, 0, 0))(images, top, left)
