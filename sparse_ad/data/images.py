"""What all sources have in common: how images are decoded, and which are held out."""

from dataclasses import dataclass

from sparse_ad.data.decode import CHANNELS
from sparse_ad.data.reading import Decoding
from sparse_ad.errors import require, require_choice


@dataclass(frozen=True)
class Images(Decoding):
    """How images are decoded, and which of them calibrate; the options that every source has."""

    size: tuple[int, int] = (256, 256)  # (height, width) in pixels that images are resized to
    color: str = "grey"  # grey | rgb
    calibration_fraction: float = 0.2  # of the normal training images: held out for the threshold
    limit: int = 0  # at most so many training images, drawn by seed; 0: all
    workers: int = 2  # threads that decode images

    def __post_init__(self):
        super().__post_init__()
        require(min(self.size) >= 1, "size", self.size, "give (height, width), each >= 1")
        require_choice("color", self.color, CHANNELS)
        require_fraction("calibration_fraction", self.calibration_fraction)
        require(self.limit >= 0, "limit", self.limit, "give 0 or more")
        require(self.workers >= 0, "workers", self.workers, "give 0 or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a decoded image."""
        return (*self.size, CHANNELS[self.color])


def require_fraction(field: str, value: float) -> None:
    """Raises FieldError unless the value lies between 0 and 1."""
    require(0 < value < 1, field, value, "give a fraction between 0 and 1")
