"""Warnings about a data set before the fit: copies, 12-bit values, EXIF orientations."""

import hashlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from sparse_ad.data.reading import Decoding, find_largest, find_orientation, size_of
from sparse_ad.errors import UserError
from sparse_ad.types import Encoded, Example

DEPTHS = 8  # training images, at most, whose values are looked at
LARGEST_OF_12_BITS = 4095
PROBE = 4096  # bytes from the middle of a file, which files of one size hardly ever share

log = logging.getLogger(__name__)


def warn_of_depth(train: Sequence[Example], options: Decoding) -> None:
    """Warns of 16-bit training images that hold 12 bits: they would use 1/16 of 0..1.

    Looks at `DEPTHS` images, evenly spread. A `range` says what is meant: no warning.
    """
    if options.range:
        return
    largest = []
    for index in sorted({round(at) for at in np.linspace(0, len(train) - 1, DEPTHS)}):
        try:
            largest.append(find_largest(train[index].image, options))
        except UserError:  # the fit names it
            continue
    of_16_bits = [value for value in largest if value is not None]
    if of_16_bits and max(of_16_bits) <= LARGEST_OF_12_BITS:
        log.warning(
            "16-bit images whose values do not exceed 4095: if all images have 12 bits, set "
            "data.range = (0, 4095)"
        )


def warn_of_orientation(examples: Iterable[Example], options: Decoding) -> None:
    """Warns of images that viewers show turned, where that is ignored; reads headers alone."""
    if options.exif != "ignore":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that PIL does not understand
        count = sum(find_orientation(example.image) != 1 for example in examples)
    if count:
        log.warning(
            "%d images have an EXIF orientation, which is ignored: set data.exif = apply to turn "
            "them",
            count,
        )


def warn_of_copies(
    name: str, examples: Sequence[Example], others: Sequence[Example], harm: str
) -> int:
    """Warns of images that are copies of training images; returns how many there are.

    `name`: of the images. `harm`: what copies among them mean.
    """
    copies = find_copies(examples, others)
    if copies:
        copy, original = copies[0]
        log.warning(
            "%d %s images are copies of training images, byte for byte, such as %s of %s: %s",
            *(len(copies), name, copy.path, original.path, harm),
        )
    return len(copies)


def find_copies(
    examples: Sequence[Example], others: Sequence[Example]
) -> list[tuple[Example, Example]]:
    """Returns the examples that are the same, byte for byte, as one of the others, with that one.

    Only those that agree in size are read, and whole only those that agree in their middle. One
    that cannot be read has no copies: decoding names it.
    """
    groups = [(examples, others)]
    for key in (size_of, _middle, _digest):
        groups = [part for group in groups for part in _divide(*group, key)]
    pairs = [(each, originals[0]) for copies, originals in groups for each in copies]
    return sorted(pairs, key=lambda pair: pair[0].path)


def _divide(
    examples: Sequence[Example], others: Sequence[Example], key: Callable[[Encoded], Hashable]
) -> list[tuple[list[Example], list[Example]]]:
    """Returns the examples and the others of each key that both have."""
    ours, theirs = _group(examples, key), _group(others, key)
    return [(ours[value], theirs[value]) for value in ours if value in theirs]


def _group(
    examples: Sequence[Example], key: Callable[[Encoded], Hashable]
) -> dict[Hashable, list[Example]]:
    groups = defaultdict(list)
    for example in examples:
        with suppress(OSError):
            groups[key(example.image)].append(example)
    return groups


def _middle(encoded: Encoded) -> Hashable:
    """Returns the shape of an array, and some bytes from the middle of it or of a file."""
    if isinstance(encoded, Path):
        with encoded.open("rb") as file:
            file.seek(encoded.stat().st_size // 2)
            return None, file.read(PROBE)
    content = encoded.tobytes() if isinstance(encoded, np.ndarray) else encoded
    start = len(content) // 2
    shape = (encoded.dtype.str, encoded.shape) if isinstance(encoded, np.ndarray) else None
    return shape, content[start : start + PROBE]


def _digest(encoded: Encoded) -> bytes:
    content = encoded.read_bytes() if isinstance(encoded, Path) else encoded
    content = content.tobytes() if isinstance(content, np.ndarray) else content
    return hashlib.blake2b(content, digest_size=16).digest()
