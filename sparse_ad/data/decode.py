"""Images and masks from files, bytes or arrays to arrays of one size."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from sparse_ad.data.reading import Decoding, read_pixels, read_shape
from sparse_ad.errors import UserError
from sparse_ad.system.names import printable
from sparse_ad.types import Encoded

CHANNELS = {"grey": 1, "rgb": 3}  # of each color
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as PIL's mode "L"


def decode(
    encoded: Encoded,
    size: tuple[int, int],
    color: str,
    name: str = "image",
    options: Decoding = Decoding(),
) -> Float[np.ndarray, "h w c"]:
    """Returns the image as float32 in 0..1, resized to `size` (height, width).

    `color`: "grey" (c = 1, Rec. 601 luma in float, so 16-bit images keep their depth) or "rgb"
    (c = 3). `options.range` says which stored values mean 0 and 1. Alpha is dropped: the colours
    stored under it are used as they are. With `options.exif` "apply" the image is first turned as
    its EXIF orientation says. The resize is bilinear, antialiased (the kernel widens with the
    reduction), each channel in float32; an image of that size already is left alone.
    `name` stands for the image in messages where it is not a file.

    Raises: UserError that names the file when it is no image, truncated, smaller than 2x2, larger
    than `options.max_pixels`, or when its values do not suit the range.
    """
    name = _name(encoded, name)
    pixels = _normalize(_read(encoded, name, options), name, options.range)
    if color == "grey" and pixels.shape[2] == 3:
        pixels = (pixels @ LUMA)[..., None]
    elif color == "rgb" and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[:2] == tuple(size):
        return np.ascontiguousarray(pixels)
    channels = [_resize(channel, size, Image.Resampling.BILINEAR) for channel in pixels.T]
    return np.stack(channels, axis=-1).clip(0, 1)


def decode_mask(
    encoded: Encoded,
    size: tuple[int, int],
    image_shape: tuple[int, int],
    name: str = "mask",
    options: Decoding = Decoding(),
) -> Bool[np.ndarray, "h w"]:
    """Returns the mask resized to `size` (height, width): True = anomalous.

    A pixel is anomalous above 127 of 255 (masks stored as JPEG are noisy), whatever the range of
    images; a resized one where anomalous pixels cover at least half of it (box filter). A defect
    too thin for that keeps the pixels it covers most, so that no marked image ends up with an empty
    mask.

    Raises: UserError when it cannot be read, when its size is not `image_shape` (height, width),
    or when it holds values but none above 127, as masks stored as 0 and 1 do.
    """
    name, options = _name(encoded, name), options.of_masks()
    pixels = _normalize(_read(encoded, name, options), name)
    check_mask_shape(pixels.shape[:2], image_shape, name, options.exif)
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


def image_shape(
    encoded: Encoded, name: str = "image", options: Decoding = Decoding()
) -> tuple[int, int]:
    """Returns (height, width) before the resize, from the header alone.

    Raises: UserError as `decode`.
    """
    if isinstance(encoded, np.ndarray):
        height, width, _ = _read(encoded, name, options).shape
        return height, width
    return read_shape(encoded, _name(encoded, name), options)


def resize(
    anomaly_map: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2"]:
    """Returns an anomaly map resized to (height, width), bilinear and antialiased."""
    return _resize(anomaly_map.astype(np.float32).T, size, Image.Resampling.BILINEAR)


def check_mask_shape(mask: tuple[int, int], image: tuple[int, int], name: str, exif: str) -> None:
    """Raises UserError unless a mask and its image have the same (height, width)."""
    if tuple(mask) != tuple(image):
        sizes = f"mask is {mask[1]}x{mask[0]} and its image is {image[1]}x{image[0]}"
        how = "as stored" if exif == "ignore" else "as their EXIF orientations turn them"
        raise UserError(
            f"{name}: {sizes} (width x height): make them the same size, {how} (data.exif = {exif})"
        )


def _name(encoded: Encoded, name: str) -> str:
    return printable(encoded if isinstance(encoded, Path) else name)


def _read(encoded: Encoded, name: str, options: Decoding) -> np.ndarray:
    """Returns the stored values at their own size, of 1 to 4 channels where they are an image."""
    pixels = encoded if isinstance(encoded, np.ndarray) else read_pixels(encoded, name, options)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise UserError(f"{name}: array of shape {pixels.shape}: give [h w], [h w 1], [h w 3 or 4]")
    if min(pixels.shape[:2]) < 2:
        raise UserError(
            f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels: give images of 2x2 or more"
        )
    return pixels[..., : min(pixels.shape[2], 3)]


def _normalize(
    pixels: np.ndarray, name: str, ends: tuple[float, ...] = ()
) -> Float[np.ndarray, "h w c"]:
    """Returns stored values as float32 in 0..1; `ends`: (black, white), or () to go by the type.

    Raises: UserError for values that do not suit them.
    """
    if pixels.dtype.kind not in "biuf":
        raise UserError(f"{name}: array of {pixels.dtype}: give uint8, uint16, bool or float 0..1")
    if ends:
        low, high = pixels.min(), pixels.max()
        if not (np.isfinite(pixels).all() and low >= ends[0] and high <= ends[1]):
            raise UserError(
                f"{name}: values from {low:g} to {high:g}: must be finite and within data.range = "
                f"({ends[0]:g}, {ends[1]:g}); widen it"
            )
        if pixels.dtype == np.uint8 and ends[1] > 255:
            raise UserError(
                f"{name}: is of 8 bits and data.range = ({ends[0]:g}, {ends[1]:g}) goes beyond "
                "255: store it as the deeper images, or leave it out"
            )
        return ((pixels.astype(np.float64) - ends[0]) / (ends[1] - ends[0])).astype(np.float32)
    if np.issubdtype(pixels.dtype, np.floating):
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise UserError(
                f"{name}: float values from {pixels.min():g} to {pixels.max():g}: "
                "must be finite and in 0..1, or set data.range (of images) to the values of black "
                "and white"
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
