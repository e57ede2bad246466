"""Images and masks from files, bytes or arrays to arrays of one size."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from sparse_ad.errors import UserError
from sparse_ad.system.names import printable
from sparse_ad.types import Encoded

CHANNELS = {"grey": 1, "rgb": 3}  # of each color
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as PIL's mode "L"

# What PIL raises for files that are missing, cut off, or no images.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode(
    encoded: Encoded, size: tuple[int, int], color: str, name: str = "image"
) -> Float[np.ndarray, "h w c"]:
    """Returns the image as float32 in 0..1, resized to `size` (height, width).

    `color`: "grey" (c = 1, Rec. 601 luma in float, so 16-bit images keep their depth) or "rgb"
    (c = 3). Alpha is dropped: the colours stored under it are used as they are. The resize is
    bilinear, antialiased (the kernel widens with the reduction), each channel in float32; an image
    of that size already is left alone. EXIF orientation is ignored, as masks know nothing of it.
    `name` stands for the image in messages where it is not a file.

    Raises: UserError that names the file when it is no image, truncated, smaller than 2x2, too
    large (PIL's decompression-bomb limit), or when its float values are not finite or not in 0..1.
    """
    pixels = _read(encoded, _name(encoded, name))
    if color == "grey" and pixels.shape[2] == 3:
        pixels = (pixels @ LUMA)[..., None]
    elif color == "rgb" and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[:2] == tuple(size):
        return np.ascontiguousarray(pixels)
    channels = [_resize(channel, size, Image.Resampling.BILINEAR) for channel in pixels.T]
    return np.stack(channels, axis=-1).clip(0, 1)


def decode_mask(
    encoded: Encoded, size: tuple[int, int], image_shape: tuple[int, int], name: str = "mask"
) -> Bool[np.ndarray, "h w"]:
    """Returns the mask resized to `size` (height, width): True = anomalous.

    A pixel is anomalous above 127 of 255 (masks stored as JPEG are noisy); a resized one where
    anomalous pixels cover at least half of it (box filter). A defect too thin for that keeps the
    pixels it covers most, so that no marked image ends up with an empty mask.

    Raises: UserError when it cannot be read, when its size is not `image_shape` (height, width),
    or when it holds values but none above 127, as masks stored as 0 and 1 do.
    """
    name = _name(encoded, name)
    pixels = _read(encoded, name)
    check_mask_shape(pixels.shape[:2], image_shape, name)
    grey = pixels @ LUMA if pixels.shape[2] == 3 else pixels[..., 0]
    mask = grey > 0.5
    if grey.any() and not mask.any():
        raise UserError(
            f"{name}: largest mask value is {grey.max() * 255:.0f} of 255 and pixels count as "
            "marked above 127: store masks as 0 and 255"
        )
    if mask.shape == tuple(size):
        return mask
    cover = _resize(mask.astype(np.float32).T, size, Image.Resampling.BOX)
    return (cover > 0) & (cover >= min(0.5, cover.max()))


def image_shape(encoded: Encoded, name: str = "image") -> tuple[int, int]:
    """Returns (height, width), from the header alone.

    Raises: UserError as `decode`.
    """
    if isinstance(encoded, np.ndarray):
        return encoded.shape[:2]
    with _open(encoded, _name(encoded, name)) as image:
        return image.height, image.width


def resize(
    anomaly_map: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2"]:
    """Returns an anomaly map resized to (height, width), bilinear and antialiased."""
    return _resize(anomaly_map.astype(np.float32).T, size, Image.Resampling.BILINEAR)


def check_mask_shape(mask: tuple[int, int], image: tuple[int, int], name: str) -> None:
    """Raises UserError unless a mask and its image have the same (height, width)."""
    if tuple(mask) != tuple(image):
        raise UserError(
            f"{name}: mask is {mask[1]}x{mask[0]} and its image is {image[1]}x{image[0]} "
            "(width x height): make them the same size, as stored: EXIF orientation is ignored"
        )


def _name(encoded: Encoded, name: str) -> str:
    return printable(encoded if isinstance(encoded, Path) else name)


def _read(encoded: Encoded, name: str) -> Float[np.ndarray, "h w c"]:
    """Returns the pixels at their own size, float32 in 0..1, 1 or 3 channels."""
    if isinstance(encoded, np.ndarray):
        pixels = encoded
    else:
        with _open(encoded, name) as image:
            try:
                pixels = _to_array(image)
            except (*_UNREADABLE, Image.DecompressionBombError) as error:
                raise UserError(
                    f"{name}: cannot be read, truncated or corrupt ({error}): replace or delete it"
                ) from error
    return _normalize(pixels, name)


def _open(encoded: Path | bytes, name: str) -> Image.Image:
    """Opens an image of an allowed size; its pixels are not read yet."""
    try:
        image = Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(f"{name}: cannot be read ({reason}): replace or delete it") from error
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        image.close()
        raise UserError(f"{name}: holds {pages} images: store each in a file of its own")
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise UserError(
            f"{name}: {image.width}x{image.height} is over {Image.MAX_IMAGE_PIXELS} pixels: "
            "cut it into smaller images"
        )
    return image


def _to_array(image: Image.Image) -> np.ndarray:
    """Returns [h w] or [h w 3]: 8-bit, 16-bit where PIL keeps it (grey files), or float."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I":  # 32-bit: how some 16-bit files are opened
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"32-bit integers {pixels.min()}..{pixels.max()}, not 0..65535")
        return pixels.astype(np.uint16)
    grey = image.mode in ("1", "L", "LA", "La")
    return np.asarray(image.convert("L" if grey else "RGB"))


def _normalize(pixels: np.ndarray, name: str) -> Float[np.ndarray, "h w c"]:
    """Returns float32 in 0..1, [h w 1] or [h w 3], or raises UserError."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UserError(f"{name}: array of shape {pixels.shape}: give [h w], [h w 1], [h w 3 or 4]")
    if min(pixels.shape[:2]) < 2:
        raise UserError(
            f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels: give images of 2x2 or more"
        )
    pixels = pixels[..., : min(pixels.shape[2], 3)]
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise UserError(
                f"{name}: float values from {pixels.min():g} to {pixels.max():g}: "
                "must be finite and in 0..1"
            )
        return pixels.astype(np.float32)
    scale = {"bool": 1, "uint8": 255, "uint16": 65535}.get(pixels.dtype.name)
    if scale is None:
        raise UserError(f"{name}: array of {pixels.dtype}: give uint8, uint16, bool or float 0..1")
    return pixels.astype(np.float32) / np.float32(scale)


def _resize(channel: np.ndarray, size: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    """Resizes one channel, given as [w h] float32, to [h w]."""
    image = Image.fromarray(np.ascontiguousarray(channel.T))
    return np.asarray(image.resize((size[1], size[0]), filter))
