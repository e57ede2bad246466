"""What all sources have in common: how images are decoded, and which are held out."""

from dataclasses import dataclass
from typing import Any

from sparse_ad.data.decode import CHANNELS
from sparse_ad.data.reading import Decoding
from sparse_ad.errors import FieldError, require, require_choice

SIZES = (
    "give (height, width), or one number (n,) for the images' own aspect at about n x n pixels; "
    "whole numbers of 1 or more"
)
MOST_PIXELS = 2**26  # of a decoded image, 8192 x 8192: in float32 and RGB it takes 0.8 GB


@dataclass(frozen=True)
class Images(Decoding):
    """How images are decoded, and which of them calibrate; the options that every source has."""

    # (height, width) that images are resized to, in pixels; or one number (n,): the median aspect
    # of the training images, at about n x n pixels
    size: tuple[int, ...] = (256, 256)
    color: str = "grey"  # grey | rgb
    calibration_fraction: float = 0.2  # of the normal training images: held out for the threshold
    limit: int = 0  # at most so many training images, drawn by seed; 0: all
    workers: int = 2  # threads that decode images

    def __post_init__(self):
        super().__post_init__()
        require(_is_size(self.size), "size", self.size, SIZES)
        pixels = self.size[0] * self.size[-1]
        remedy = f"these are {pixels} pixels, at most {MOST_PIXELS}: give a smaller size"
        require(pixels <= MOST_PIXELS, "size", self.size, remedy)
        require_choice("color", self.color, CHANNELS)
        require_fraction("calibration_fraction", self.calibration_fraction)
        require(self.limit >= 0, "limit", self.limit, "give 0 or more")
        require(self.workers >= 0, "workers", self.workers, "give 0 or more")

    @property
    def exact(self) -> tuple[int, int] | None:
        """(height, width) of decoded images; None where it depends on the training images."""
        return (self.size[0], self.size[1]) if len(self.size) == 2 else None

    @property
    def pair(self) -> tuple[int, int]:
        """(height, width) of decoded images. Raises: FieldError where that is not known yet."""
        exact = self.exact
        if exact is None:
            raise FieldError("size", self.size, "depends on training images; give (height, width)")
        return exact

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a decoded image."""
        return (*self.pair, CHANNELS[self.color])


def _is_size(size: Any) -> bool:
    """Returns whether it is a tuple of one or two whole numbers of 1 or more."""
    few = isinstance(size, tuple) and len(size) in (1, 2)
    return few and all(type(side) is int and side >= 1 for side in size)


def require_fraction(field: str, value: float) -> None:
    """Raises FieldError unless the value lies between 0 and 1."""
    require(0 < value < 1, field, value, "give a fraction between 0 and 1")
