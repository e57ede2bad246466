"""Pixels to ignore: which they are in a decoded image, and what takes their place."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from sparse_ad.data.decode import decode, decode_mask, image_shape
from sparse_ad.data.reading import Decoding
from sparse_ad.errors import UserError
from sparse_ad.system.names import printable
from sparse_ad.types import Encoded, Example

NAME = "ignore mask"  # in messages, where it is not a file

Size = tuple[int, int]  # height, width


class Ignored(NamedTuple):
    """The ignored pixels of a decoded image."""

    mask: Bool[np.ndarray, "h w"]  # True = ignored
    nearest: Int[np.ndarray, "2 m"]  # row and column of the kept pixel nearest to each of them


def decode_ignored(
    encoded: Encoded, size: Size, shape: Size, name: str, options: Decoding = Decoding()
) -> Bool[np.ndarray, "h w"]:
    """Returns which pixels of an image of `shape`, resized to `size`, are ignored: True.

    As stored, those above 127 of 255. A resized pixel is ignored where any ignored pixel has a part
    in it: the mask is resized as images are, so that what is kept depends on kept pixels alone.

    Raises: UserError as `decode_mask`, and where no pixel is kept.
    """
    stored = decode_mask(encoded, shape, shape, name, options)
    mask = decode(stored, size, "grey", name)[..., 0] > 0
    if mask.all():
        name = printable(encoded) if isinstance(encoded, Path) else name
        raise UserError(f"{name}: ignores all {size[1]}x{size[0]} pixels: mark fewer")
    return mask


def clear_ignored(
    example: Example, anomaly_map: Float[np.ndarray, "h w"], options: Decoding
) -> Float[np.ndarray, "h w"]:
    """Returns the map of an image, of any size, with 0 where the image is ignored."""
    ignored = ignored_at(example, anomaly_map.shape, options)
    return anomaly_map if ignored is None else np.where(ignored, np.float32(0), anomaly_map)


def ignored_at(example: Example, size: Size, options: Decoding) -> Bool[np.ndarray, "h w"] | None:
    """Returns which pixels of an image resized to `size` are ignored; None without a mask.

    What one file says is remembered for the next image. Raises: UserError as `decode_ignored`.
    """
    encoded = example.ignore
    if encoded is None:
        return None
    shape = image_shape(example.image, example.path, options)
    options = options.of_masks()
    try:
        if isinstance(encoded, Path) and encoded.exists():
            return _mask_of_file(encoded, version_of(encoded), size, shape, options)
        return decode_ignored(encoded, size, shape, NAME, options)
    except UserError as error:
        raise UserError(f"{example.path}: {error}") from error


def find_ignored(example: Example, size: Size, options: Decoding = Decoding()) -> Ignored | None:
    """Returns the ignored pixels of an image resized to `size`; None where there are none.

    Raises: UserError as `decode_ignored`.
    """
    mask = ignored_at(example, size, options)
    if mask is None or not mask.any():
        return None
    return Ignored(mask, find_nearest(mask))


def version_of(path: Path) -> tuple[int, int]:
    """Returns what changes when a file is written again."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def fill(image: Float[np.ndarray, "h w c"], ignored: Ignored) -> Float[np.ndarray, "h w c"]:
    """Returns the image with every ignored pixel replaced by the nearest kept one."""
    filled = image.copy()
    filled[ignored.mask] = image[tuple(ignored.nearest)]
    return filled


@lru_cache(maxsize=8)
def _mask_of_file(
    path: Path, version: tuple[int, int], size: Size, shape: Size, options: Decoding
) -> Bool[np.ndarray, "h w"]:
    """Returns what a file says, which is read again when it is another `version` of it."""
    return decode_ignored(path, size, shape, NAME, options)


def find_nearest(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "2 m"]:
    """Returns row and column of the kept pixel that is nearest to each ignored one."""
    return _nearest(mask.tobytes(), mask.shape)


@lru_cache(maxsize=4)
def _nearest(mask: bytes, shape: tuple[int, int]) -> Int[np.ndarray, "2 m"]:
    ignored = np.frombuffer(mask, bool).reshape(shape)
    nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
    return np.asarray(nearest)[:, ignored]
