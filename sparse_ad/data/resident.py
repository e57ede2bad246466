"""Training images that stay in memory: decoded once, at the least size that loses nothing."""

import logging
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import decoded_images
from sparse_ad.types import Example

LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)  # what decoding makes of each byte

Held = UInt8[Array, "n h w c"] | Float[Array, "n h w c"]  # see `to_float`

log = logging.getLogger(__name__)


def hold_images(examples: Sequence[Example], options: Images, limit: float) -> np.ndarray | None:
    """Returns all images decoded; None where that takes more than `limit` bytes.

    As bytes, one a value, where that loses nothing; else as float32: images that were resized, or
    made grey, lie between the levels of a byte.

    Raises: UserError for a file that cannot be read.
    """
    shape = (len(examples), *options.shape)
    if math.prod(shape) > limit:
        return None
    held = _empty(shape, np.uint8)
    read = decoded_images(examples, options)
    for index, image in enumerate(tqdm(read, "read", len(examples), unit="image", delay=1)):
        if held.dtype == np.uint8:
            levels = np.rint(image * 255).astype(np.uint8)
            if (LEVELS[levels] == image).all():
                held[index] = levels
                continue
            if 4 * math.prod(shape) > limit:
                return None
            before, held = held, _empty(shape, np.float32)
            np.take(LEVELS, before[:index], out=held[:index], mode="clip")  # others make a copy
        held[index] = image
    log.info("%d training images held as %s: %.0f MB", len(held), held.dtype, held.nbytes / 1e6)
    return held


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Returns an array that starts at a multiple of 64 bytes: JAX on a CPU uses it as it is."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def to_float(images: Held) -> Float[Array, "n h w c"]:
    """Returns held images as decoding gave them, 0..1, with the same bits.

    Bytes go through a table: a compiler may round a division otherwise.
    """
    if images.dtype != jnp.uint8:
        return images
    return jnp.asarray(LEVELS).at[images].get(mode="promise_in_bounds")
