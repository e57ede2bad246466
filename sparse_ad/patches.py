"""From images to patches, from patch errors back to images and to one score."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_ad.errors import require, require_choice
from sparse_ad.types import Key


@dataclass(frozen=True)
class ChannelPatches:
    """The patches of a map: squares on a regular grid."""

    size: int = 8  # side of a patch, in positions of the map
    stride: int = 2  # positions between neighbouring patches

    def __post_init__(self):
        require(self.size >= 1, "size", self.size, "must be at least 1")
        require(self.stride >= 1, "stride", self.stride, "must be at least 1")


@dataclass(frozen=True)
class Patches(ChannelPatches):
    """The patches of an image: squares on a regular grid, or drawn from anywhere for fitting."""

    size: int = 16  # side of a patch, in pixels or positions of the features
    stride: int = 4  # pixels between neighbouring patches when scoring
    per_image: int = 256  # patches drawn from each image at each step of the fit; 0: the whole grid

    def __post_init__(self):
        super().__post_init__()
        require(self.per_image >= 0, "per_image", self.per_image, "must be at least 0")


def grid(length: int, size: int, stride: int) -> Int[np.ndarray, " patches"]:
    """Returns the first pixel of each patch along one side: 0, stride, 2 stride, ...

    Raises: FieldError where a patch is larger than the side, or size or stride is below 1.
    """
    require(size >= 1, "size", size, "must be at least 1")
    require(stride >= 1, "stride", stride, "must be at least 1")
    remedy = f"exceeds the image side of {length}; make the patch smaller or the images larger"
    require(size <= length, "size", size, remedy)
    return np.arange(0, length - size + 1, stride)


def window(length: int, size: int, stride: int) -> Int[np.ndarray, "patches size"]:
    """Returns the pixels of each patch along one side."""
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


def spreading(length: int, size: int, stride: int) -> Float[np.ndarray, "length patches"]:
    """Returns the matrix that gives a pixel the mean of the patches over it, along one side.

    Pixels beyond the last patch have the value of the nearest covered pixel.
    """
    starts = grid(length, size, stride)
    pixels = np.minimum(np.arange(length), starts[-1] + size - 1)[:, None]
    covers = (starts <= pixels) & (pixels < starts + size)
    gap = ~covers.any(axis=1)  # where the stride is larger than the patch
    nearest = np.abs(pixels - (starts + (size - 1) / 2)).argmin(axis=1)
    covers[gap, nearest[gap]] = True
    return (covers / covers.sum(axis=1, keepdims=True)).astype(np.float32)


def error_map(
    errors: Float[Array, "i j"], shape: tuple[int, int], size: int, stride: int
) -> Float[Array, "h w"]:
    """Returns patch errors as an image: each pixel has the mean error of the patches over it.

    The overlap is separable, so that folding is two small matrix products.
    """
    down, across = (spreading(length, size, stride) for length in shape)
    return jnp.einsum("hi,ij,wj->hw", down, errors, across, precision=lax.Precision.HIGHEST)


def resize_map(
    anomaly_map: Float[Array, "h w"], shape: tuple[int, int], border: int = 0
) -> Float[Array, "height width"]:
    """Returns a resized map, linear between the centres of its cells.

    `border` positions, which were cut from each side of the map before, are first put back: they
    have the value of their nearest neighbour.
    """
    return jax.image.resize(jnp.pad(anomaly_map, border, mode="edge"), shape, "linear")


def image_map(
    errors: Float[Array, "i j"],
    patches: ChannelPatches,
    map_shape: tuple[int, int],
    shape: tuple[int, int],
    border: int = 0,
) -> Float[Array, "h w"]:
    """Returns the patch errors of a map as an anomaly map at the size of the images.

    `map_shape` is the size of the map that the patches were cut from, `shape` that of the images.
    """
    at_map = error_map(errors, map_shape, patches.size, patches.stride)
    return resize_map(at_map, shape, border)


def top_rows(errors: Float[Array, "p c"], count: int) -> Float[Array, "top c"]:
    """Returns the largest `count` of each column, or all there are, the largest first.

    One pass for each: for a handful many times faster than sorting on a CPU.
    """
    count = min(count, errors.shape[0])
    rows = jnp.arange(errors.shape[0])[:, None]

    def take(index, state):
        left, top = state
        top = top.at[index].set(jnp.max(left, axis=0))
        return jnp.where(rows == jnp.argmax(left, axis=0)[None], -jnp.inf, left), top

    top = jnp.zeros((count, errors.shape[1]), errors.dtype)
    return lax.fori_loop(0, count, take, (errors, top))[1]


@dataclass(frozen=True)
class Pool:
    """How the patch errors of an image become its score.

    Source: Imamura et al., MLF-SC, section 3.2: the sum of the 5 largest.
    """

    rule: str = "top_sum"  # top_sum: of the largest; max: the largest; top_mean: of a fraction
    top: int = 5  # of top_sum: how many of the largest errors are added
    fraction: float = 0.01  # of top_mean: the fraction of all errors, the largest, that is averaged

    def __post_init__(self):
        require_choice("rule", self.rule, RULES)
        require(self.top >= 1, "top", self.top, "must be at least 1")
        require(0 < self.fraction <= 1, "fraction", self.fraction, "must be in (0, 1]")


def pool(
    options: Pool, errors: Float[Array, " p"], counted: Bool[Array, " p"] | None = None
) -> Float[Array, ""]:
    """Returns the score of an image, given its patch errors, all or those that are `counted`.

    Without any error that counts it is NaN.
    """
    if counted is None:
        return RULES[options.rule](options, errors)
    return pool_counted(options, errors, counted)


def pool_counted(
    options: Pool, errors: Float[Array, " p"], counted: Bool[Array, " p"]
) -> Float[Array, ""]:
    """Returns the score of the errors that are counted, as if there were no others."""
    count = jnp.sum(counted)
    largest = {
        "top_sum": options.top,
        "max": 1,
        "top_mean": jnp.maximum(1, jnp.round(options.fraction * count)),
    }[options.rule]
    ordered = jnp.sort(jnp.where(counted, errors, -jnp.inf), descending=True)
    taken = jnp.arange(errors.shape[0]) < jnp.minimum(largest, count)
    total = jnp.sum(jnp.where(taken, ordered, 0.0))
    score = total / jnp.sum(taken) if options.rule == "top_mean" else total
    return jnp.where(count > 0, score, jnp.nan)


def top_sum(options: Pool, errors: Float[Array, " p"]) -> Float[Array, ""]:
    """Returns the sum of the `top` largest errors."""
    return jnp.sum(lax.top_k(errors, min(options.top, errors.shape[0]))[0])


def top_mean(options: Pool, errors: Float[Array, " p"]) -> Float[Array, ""]:
    """Returns the mean of the largest `fraction` of the errors."""
    if options.fraction == 1:  # all of them: no need to sort
        return jnp.mean(errors)
    return jnp.mean(lax.top_k(errors, max(1, round(options.fraction * errors.shape[0])))[0])


def maximum(options: Pool, errors: Float[Array, " p"]) -> Float[Array, ""]:
    """Returns the largest error."""
    return jnp.max(errors)


RULES: dict[str, Callable[[Pool, Float[Array, " p"]], Float[Array, ""]]] = {
    "top_sum": top_sum,
    "max": maximum,
    "top_mean": top_mean,
}


def draw(
    key: Key, images: Float[Array, "n h w c"], count: int, size: int
) -> Float[Array, "count n d"]:
    """Returns `count` patches from anywhere in each image, drawn with replacement."""
    n, height, width, channels = images.shape
    for side in (height, width):
        grid(side, size, 1)  # a patch must fit
    tops, lefts = jax.random.split(key)
    top = jax.random.randint(tops, (count, n), 0, height - size + 1)
    left = jax.random.randint(lefts, (count, n), 0, width - size + 1)

    def cut(image, top, left):
        return lax.dynamic_slice(image, (top, left, 0), (size, size, channels)).ravel()

    return jax.vmap(jax.vmap(cut), in_axes=(None, 0, 0))(images, top, left)
