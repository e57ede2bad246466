"""Image files as they are stored: their size, their values, and how viewers turn them."""

import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from sparse_ad.errors import UserError, require, require_choice
from sparse_ad.types import Encoded

# PIL's own limit, which warns or raises by the size of an image, is off: `open_image` knows better.
Image.MAX_IMAGE_PIXELS = None

# What PIL raises for files that are missing, cut off, or no images.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    *(IndexError, TypeError, KeyError),  # of damaged frames and tags
)

TURNED_BACK = {6: 8, 8: 6}  # orientation: the one that undoes it; the others undo themselves
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


@dataclass(frozen=True)
class Decoding:
    """How files are read as images of 0..1."""

    max_pixels: int = 89478485  # height x width of a file; larger ones are an error
    # of images, not of masks: (black, white), the stored values that mean 0 and 1, as (0, 4095);
    # (): by type, 0..255, 0..65535, or 0..1 for floats
    range: tuple[float, ...] = ()
    exif: str = "ignore"  # EXIF orientation: ignore | apply: turn images as viewers show them

    def __post_init__(self):
        require(self.max_pixels >= 1, "max_pixels", self.max_pixels, "must be at least 1")
        ends = self.range
        good = not ends or (len(ends) == 2 and all(map(math.isfinite, ends)) and ends[0] < ends[1])
        remedy = "give (black, white), two finite values with black < white, as (0, 4095)"
        require(good, "range", ends, remedy)
        require_choice("exif", self.exif, ("ignore", "apply"))

    def of_masks(self) -> "Decoding":
        """Returns how masks are read: their values need no range."""
        return Decoding(self.max_pixels, exif=self.exif)


def read_pixels(encoded: Path | bytes, name: str, options: Decoding) -> np.ndarray:
    """Returns the stored values, [h w] or [h w 3]: uint8, uint16, float32, int32 or uint32.

    16-bit colours become 8-bit: PIL reads no more of them.
    Raises: UserError that names the file where it is no image, truncated or too large, where it
    holds 32-bit integers without a `range` that says what they mean, or where a `range` is given
    and PIL would scale its values.
    """
    with open_image(encoded, name, options.max_pixels) as image:
        turned = image.format == "TIFF"  # by PIL, when its pixels are read
        orientation = orientation_of(image) if turned or options.exif == "apply" else 1
        if options.range:
            _check_unscaled(image, name)
        try:
            pixels = _to_array(image)
        except _UNREADABLE as error:
            raise UserError(
                f"{name}: cannot be read, truncated or corrupt ({error}): replace or delete it"
            ) from error
    if turned:
        undo = TURNED_BACK.get(orientation, orientation)
        orientation = 1 if options.exif == "apply" else undo
    if pixels.dtype.itemsize == 4 and pixels.dtype.kind in "iu" and not options.range:
        low, high = pixels.min(), pixels.max()
        if low < 0 or high > 65535:
            raise UserError(
                f"{name}: 32-bit integers from {low} to {high}, not 0..65535: "
                "set data.range (of images) to the values of black and white"
            )
        pixels = pixels.astype(np.uint16)
    return turn(pixels, orientation)


def read_shape(encoded: Path | bytes, name: str, options: Decoding) -> tuple[int, int]:
    """Returns (height, width) of what `read_pixels` returns, from the header alone."""
    with open_image(encoded, name, options.max_pixels) as image:
        height, width = stored_shape(image)
        sideways = options.exif == "apply" and orientation_of(image) in SIDEWAYS
    return (width, height) if sideways else (height, width)


def open_image(encoded: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """Opens an image of an allowed size; its pixels are not read yet."""
    image = None
    try:
        image = _open(encoded)
        height, width = stored_shape(image)
        pages = getattr(image, "n_frames", 1)
    except _UNREADABLE as error:
        if image is not None:
            image.close()
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{name}: no such file") from error
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(f"{name}: cannot be read ({reason}): replace or delete it") from error
    if height * width > max_pixels:
        image.close()
        raise UserError(
            f"{name}: {width}x{height} is over data.max_pixels = {max_pixels}: raise it, or cut "
            "the image into smaller ones"
        )
    if pages > 1:
        image.close()
        raise UserError(f"{name}: holds {pages} images: store each in a file of its own")
    return image


def find_orientation(encoded: Encoded) -> int:
    """Returns the EXIF orientation of an image, 1 to 8; 1 = as stored, or not known.

    Reads headers alone; 1 for a file that cannot be read, which decoding names.
    """
    if isinstance(encoded, np.ndarray):
        return 1
    try:
        with _open(encoded) as image:
            return orientation_of(image)
    except _UNREADABLE:
        return 1


def find_largest(encoded: Encoded, options: Decoding) -> int | None:
    """Returns the largest stored value of an image of 16 bits; None where it has another depth.

    Raises: UserError as `read_pixels`.
    """
    if isinstance(encoded, np.ndarray):
        return int(encoded.max()) if encoded.dtype == np.uint16 else None
    with open_image(encoded, "image", options.max_pixels) as image:
        deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    return int(read_pixels(encoded, "image", options).max()) if deep else None


def size_of(image: Encoded) -> int:
    """Returns the bytes of an image that is not yet decoded; 0 for a file that is not there."""
    if isinstance(image, np.ndarray):
        return image.nbytes
    if isinstance(image, bytes):
        return len(image)
    return image.stat().st_size if image.exists() else 0


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation of an open image, 1 to 8, from its header."""
    try:
        # Not PNG's own getexif, which would read the pixels: the tag stands before them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except _UNREADABLE:
        return 1
    return value if value in range(1, 9) else 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns pixels [h w ...] stored with an EXIF orientation as viewers show them."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def stored_shape(image: Image.Image) -> tuple[int, int]:
    """Returns (height, width) as stored; PIL gives those of a TIFF turned."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return tags.get(257, image.height), tags.get(256, image.width)


def _open(encoded: Path | bytes) -> Image.Image:
    return Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))


def _to_array(image: Image.Image) -> np.ndarray:
    """Returns [h w] or [h w 3]: 8-bit, 16-bit or 32-bit where PIL keeps it, or float."""
    # Of TIFF: how samples are stored. 1, or not there: unsigned; 2: signed; 3: float
    kind = getattr(image, "tag_v2", {}).get(339, (1,))[0]
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I":  # how some 16-bit files are opened, too
        pixels = np.asarray(image)
        return pixels.view(np.uint32) if image.format == "TIFF" and kind == 1 else pixels
    if kind == 2:
        raise ValueError("signed 8-bit values")
    grey = image.mode in ("1", "L", "LA", "La")
    return np.asarray(image.convert("L" if grey else "RGB"))


def _check_unscaled(image: Image.Image, name: str) -> None:
    """Raises UserError where PIL does not give the values of an image as they are stored."""
    tiles = getattr(image, "tile", None) or [("", "")]  # WebP has none
    codec, *_, how = tiles[0]
    narrowed = not image.mode.startswith(("I", "F")) and ";16" in str(how)
    by_maxval = codec in ("ppm", "ppm_plain") and how[1] != 255
    by_depth = image.format == "JPEG2000"  # PIL does not say how many bits it has
    if narrowed or by_maxval or by_depth:
        what = "16-bit colours" if narrowed else f"values of this {image.format} file"
        raise UserError(
            f"{name}: {what} may be scaled when they are read, so that data.range does not fit: "
            "store 8-bit colours, or grey PNG or TIFF"
        )
