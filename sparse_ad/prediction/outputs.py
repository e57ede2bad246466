"""The files that show what was found in an image: overlays, maps, masks, regions.

All but overlays have the size of the image as it is stored.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import contourpy
import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from sparse_ad.data.decode import decode, image_shape, resize
from sparse_ad.data.ignored import clear_ignored, ignored_at
from sparse_ad.data.images import Images
from sparse_ad.evaluation.results import Scale
from sparse_ad.report.heatmaps import cover, overlay
from sparse_ad.system.files import write_bytes
from sparse_ad.types import Example

OVERLAY_SIDE = 1024  # pixels of the longer side of an overlay, at most
DEEP = 65535  # the largest value of 16 bits
TOUCHING = np.ones((3, 3))  # pixels that touch by a side or a corner are of one region


class Shown(NamedTuple):
    """What is drawn of images, and how."""

    images: Images  # how they are decoded
    scale: Scale  # of colours and of 16-bit maps
    pixel_threshold: float


class Found:
    """One image and its anomaly map."""

    def __init__(self, example: Example, anomaly_map: Float[np.ndarray, "h w"], shown: Shown):
        self.example, self.small, self.shown = example, anomaly_map, shown
        self.size = image_shape(example.image, example.path, shown.images)

    @cached_property
    def map(self) -> Float[np.ndarray, "h w"]:
        """The map at the size of the image; 0 where it is ignored."""
        at_size = resize(self.small, self.size)
        return clear_ignored(self.example, at_size, self.shown.images)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """What is above the pixel threshold."""
        return self.map > self.shown.pixel_threshold


def draw_overlay(found: Found) -> bytes:
    """Returns the heat map over the image as PNG, on the colour scale of the calibration.

    Ignored pixels are hatched.
    """
    shrink = min(1.0, OVERLAY_SIDE / max(found.size))
    height, width = (max(2, round(shrink * side)) for side in found.size)
    example, shown = found.example, found.shown
    options = shown.images
    image = decode(example.image, (height, width), options.color, example.path, options)
    drawn = overlay(image, resize(found.small, (height, width)), shown.scale)
    ignored = ignored_at(example, (height, width), options)
    drawn = drawn if ignored is None else cover(drawn, ignored)
    return png(np.rint(255 * drawn).astype(np.uint8))


def draw_map(found: Found) -> bytes:
    """Returns the anomaly map as .npz: the array `map`, float32 [h w]."""
    file = io.BytesIO()
    np.savez(file, map=found.map)
    return file.getvalue()


def draw_tiff(found: Found) -> bytes:
    """Returns the anomaly map as 16-bit TIFF: 0 and 65535 are `low` and `high` of the scale."""
    low, _, high = found.shown.scale
    levels = np.rint(DEEP * np.clip((found.map - low) / (high - low), 0, 1)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="tiff", compression="tiff_adobe_deflate")
    return file.getvalue()


def draw_mask(found: Found) -> bytes:
    """Returns the pixels above the pixel threshold as PNG: 255, and 0 for all others."""
    return png(np.where(found.mask, np.uint8(255), np.uint8(0)))


def draw_regions(found: Found) -> bytes:
    """Returns as JSON the regions above the pixel threshold, the one with the largest peak first.

    Coordinates are pixels, x to the right and y down, (0, 0) the centre of the first pixel. `box`:
    [x, y, width, height] of the pixels; `contours`: closed lines [[x, y], ...] half a pixel around
    them, the outer one and those of holes; `area`: pixels; `peak`: the largest value of the map.
    """
    labelled: Any = ndimage.label(found.mask, TOUCHING)
    labels = labelled[0]
    regions = [
        describe_region(found.map[box], labels[box] == label, box)
        for label, box in enumerate(ndimage.find_objects(labels), 1)
    ]
    height, width = found.size
    content = {
        "path": found.example.path,
        "width": width,
        "height": height,
        "pixel_threshold": found.shown.pixel_threshold,
        "regions": sorted(regions, key=lambda region: -region["peak"]),
    }
    return (json.dumps(content) + "\n").encode()


def describe_region(
    values: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], box: tuple[slice, ...]
) -> dict[str, Any]:
    """Returns what is told of a region, given the map and the pixels of it in its box."""
    top, left = (side.start for side in box)
    lines = contourpy.contour_generator(z=np.pad(inside, 1).astype(float)).lines(0.5)
    corner = np.array([left - 1, top - 1])
    return {
        "box": [left, top, inside.shape[1], inside.shape[0]],
        "area": int(inside.sum()),
        "peak": float(values[inside].max()),
        "contours": [(corners(np.asarray(line)) + corner).tolist() for line in lines],
    }


def corners(line: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "k 2"]:
    """Returns a closed line without the points on straight parts of it."""
    steps = np.diff(line, axis=0)  # the last point is the first again
    turns = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    kept = line[:-1][turns]
    return np.concatenate([kept, kept[:1]])


def png(pixels: np.ndarray) -> bytes:
    """Returns pixels [h w] or [h w 3] as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png", compress_level=1)
    return file.getvalue()


KINDS = {  # what --write may name, which is also the folder: (suffix, content)
    "overlays": (".png", draw_overlay),
    "maps": (".npz", draw_map),
    "tiff": (".tiff", draw_tiff),
    "masks": (".png", draw_mask),
    "regions": (".json", draw_regions),
}


def stems(names: Iterable[str]) -> dict[str, str]:
    """Returns the path of each image's files, without suffix: in the same tree as the images.

    That is the name without its suffix, or all of it where another image has the same.
    """
    short = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    count = Counter([*short, *short.values()])
    return {name: stem if count[stem] == 1 else name for name, stem in short.items()}


def write_found(output: Path, stem: str, kinds: Iterable[str], found: Found) -> None:
    """Writes the files of one image, each in the folder of its kind."""
    for kind in kinds:
        suffix, draw = KINDS[kind]
        write_bytes(output / kind / f"{stem}{suffix}", draw(found))
