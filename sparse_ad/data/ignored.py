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
from sparse_ad.types import Encoded, Example

NAME = "mask of what to ignore"  # in messages, where it is not a file

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
        name = str(encoded) if isinstance(encoded, Path) else name
        raise UserError(f"{name}: ignores all {size[0]} x {size[1]} pixels: mark fewer")
    return mask


def clear_ignored(
    example: Example, anomaly_map: Float[np.ndarray, "h w"], options: Decoding
) -> Float[np.ndarray, "h w"]:
    """Returns the map of an image, of any size, with 0 where the image is ignored."""
    ignored = ignored_at(example, anomaly_map.shape, options)
    return anomaly_map if ignored is None else np.where(ignored, np.float32(0), anomaly_map)


def ignored_at(example: Example, size: Size, options: Decoding) -> Bool[np.ndarray, "h w"] | None:
    """Returns which pixels of an image resized to `size` are ignored; None without a mask."""
    if example.ignore is None:
        return None
    shape = image_shape(example.image, example.path, options)
    return decode_ignored(example.ignore, size, shape, NAME, options)


def find_ignored(example: Example, size: Size, options: Decoding = Decoding()) -> Ignored | None:
    """Returns the ignored pixels of an image resized to `size`; None where there are none.

    What one file says is remembered for the next image. Raises: UserError as `decode_ignored`.
    """
    encoded = example.ignore
    if encoded is None:
        return None
    shape = image_shape(example.image, example.path, options)
    options = Decoding(options.max_pixels, exif=options.exif)
    try:
        if isinstance(encoded, Path) and encoded.exists():
            stat = encoded.stat()
            return _of_file(encoded, (stat.st_mtime_ns, stat.st_size), size, shape, options)
        return _read(encoded, size, shape, options)
    except UserError as error:
        raise UserError(f"{example.path}: {error}") from error


def fill(image: Float[np.ndarray, "h w c"], ignored: Ignored) -> Float[np.ndarray, "h w c"]:
    """Returns the image with every ignored pixel replaced by the nearest kept one."""
    filled = image.copy()
    filled[ignored.mask] = image[tuple(ignored.nearest)]
    return filled


@lru_cache(maxsize=4)
def _of_file(
    path: Path, version: tuple[int, int], size: Size, shape: Size, options: Decoding
) -> Ignored | None:
    """Returns what a file says, which is read again when it is another `version` of it."""
    return _read(path, size, shape, options)


def _read(encoded: Encoded, size: Size, shape: Size, options: Decoding) -> Ignored | None:
    mask = decode_ignored(encoded, size, shape, NAME, options)
    if not mask.any():
        return None
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return Ignored(mask, np.asarray(nearest)[:, mask])
