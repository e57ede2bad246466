"""The size that images are resized to, so that they keep their aspect: from headers alone.

The aspect of an image is height / width. How far one is stretched is the factor between its aspect
and that of the size, 1 or more.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sparse_ad.data.decode import image_shape
from sparse_ad.data.images import Images
from sparse_ad.data.reading import Decoding
from sparse_ad.data.split import draw
from sparse_ad.errors import UserError
from sparse_ad.types import Example

MOST = 1000  # training images, at most, whose headers are read
STRETCH = 1.25  # a larger factor is a warning
SIMILAR = 1e-6  # relative; rounding of the factor
AREA = 1.5  # a larger factor between the pixels asked for and those chosen is a warning

Size = tuple[int, int]  # height, width


class Sized(NamedTuple):
    """The size of images, and what it does to the training images."""

    size: Size
    stretched: int  # training images, of those looked at, that it stretches by more than STRETCH


log = logging.getLogger(__name__)


def choose_size(side: int, aspect: float, stride: int) -> Size:
    """Returns (height, width) of an aspect, of about side x side pixels.

        height = side * sqrt(aspect), width = side / sqrt(aspect)

    each rounded to the nearest multiple of `stride` (halves up), at least one.
    """
    root = math.sqrt(aspect)
    sides = (side * root, side / root)
    # Rounded to 9 digits first: halves are halves, whichever side of the image is the longer one.
    height, width = (max(1, math.floor(round(each / stride, 9) + 0.5)) for each in sides)
    return height * stride, width * stride


def find_size(
    images: Images,
    stride: int,
    train: Sequence[Example],
    seed: int,
    fitted: Size | None = None,
) -> Sized:
    """Returns the exact size of `images`, or that of the median aspect of the training images.

    With it comes how many of the training images looked at it stretches.

    The median is that of at most MOST of them, drawn by seed. `stride`: of the features, in pixels.
    `fitted`: the size of a fit, which is kept.
    Warns of images that are stretched, and of a size with far more or fewer pixels than asked for;
    logs a size that was chosen.
    Raises: UserError where the size depends on training images of which none can be read.
    """
    drawn = draw(train, MOST, seed, "aspect")
    aspects, size = read_aspects(drawn, images), fitted or images.exact
    if size is None:
        if not len(aspects):
            image_shape(drawn[0].image, drawn[0].path, images)  # raises
        side = images.size[0]
        size = choose_size(side, median_aspect(aspects), stride)
        log.info("images at %d x %d: the median aspect of %d training images", *size, len(aspects))
        warn_of_area(side, size, stride)
    stretched = count_stretched(aspects, size)
    if len(aspects):
        warn_of_training(aspects, images.size, size, stretched)
    return Sized(size, stretched)


def warn_of_area(side: int, size: Size, stride: int) -> None:
    """Warns where a size has far more or fewer pixels than side x side."""
    factor = size[0] * size[1] / side**2
    if max(factor, 1 / factor) > AREA:
        log.warning(
            "data.size = (%d,): images are %d x %d, %.2g times the pixels asked for: sides are "
            "multiples of %d, the stride of the features; give a larger size",
            *(side, *size, factor, stride),
        )


def read_aspects(examples: Sequence[Example], options: Decoding) -> Float[np.ndarray, " n"]:
    """Returns height / width of those images that can be read, as `options.exif` turns them."""
    aspects = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that PIL does not understand
        for example in examples:
            try:
                height, width = image_shape(example.image, example.path, options)
            except UserError:  # decoding names it
                continue
            if min(height, width) > 0:
                aspects.append(height / width)
    return np.array(aspects, float)


def median_aspect(aspects: Float[np.ndarray, " n"]) -> float:
    """Returns the median; of an even number, the geometric mean of the middle two.

    So the median of 1 / aspects is 1 / median.
    """
    middle = np.sort(aspects)[(len(aspects) - 1) // 2 : len(aspects) // 2 + 1]
    return float(math.sqrt(middle[0] * middle[-1]))


def stretches(
    aspects: Float[np.ndarray, " n"] | float, size: Size
) -> Float[np.ndarray, " n"] | float:
    """Returns the factors, 1 or more, between aspects and that of a size (height, width)."""
    ratio = aspects * size[1] / size[0]
    return np.maximum(ratio, 1 / ratio)


def count_stretched(aspects: Float[np.ndarray, " n"], size: Size) -> int:
    """Returns how many images a size stretches by more than STRETCH."""
    return int(np.sum(stretches(aspects, size) > STRETCH * (1 + SIMILAR)))


def warn_of_training(
    aspects: Float[np.ndarray, " n"], given: tuple[int, ...], size: Size, stretched: int
) -> None:
    """Warns of training images whose aspects vary, and of a size that squashes most of them.

    `given`: data.size as it was given. `stretched`: how many of them the size stretches.
    """
    low, high = np.quantile(aspects, (0.05, 0.95))
    if high / low > STRETCH * (1 + SIMILAR):
        log.warning(
            "training images differ in aspect: height / width from %.3g to %.3g (90 %% of %d): %d "
            "of them are stretched by more than a factor of %g, to %d x %d",
            *(low, high, len(aspects), stretched, STRETCH, *size),
        )
    median = median_aspect(aspects)
    factor = float(stretches(median, size))
    if factor > STRETCH * (1 + SIMILAR):
        side = round(math.sqrt(size[0] * size[1]))
        remedy = f"({side},) keeps their aspect" if len(given) == 2 else "a larger one fits better"
        log.warning(
            "data.size = %s stretches training images, whose median height / width is %.3g, by a "
            "factor of %.2f: %s",
            *(given, median, factor, remedy),
        )


def warn_of_stretched(name: str, examples: Sequence[Example], images: Images) -> int:
    """Warns of images whose aspect is not that of the model; returns how many there are.

    `name`: of the images. `images`: with the exact size.
    """
    size, aspects = images.pair, read_aspects(examples, images)
    count = count_stretched(aspects, size)
    if count:
        log.warning(
            "%d of %d %s images are stretched by more than a factor of %g: height / width from "
            "%.3g to %.3g, that of the model %.3g (%d x %d)",
            *(count, len(examples), name, STRETCH, aspects.min(), aspects.max()),
            *(size[0] / size[1], *size),
        )
    return count
