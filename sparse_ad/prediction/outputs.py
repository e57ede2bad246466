"""Files of a prediction: overlays, anomaly maps, masks, regions.

All but overlays have the size of the image, as it is stored or as its EXIF orientation turns it.
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


class Drawing(NamedTuple):
    """What is drawn of images, and how."""

    images: Images  # how they are decoded
    scale: Scale  # of colours and of 16-bit maps
    pixel_threshold: float


class ScoredPicture:
    """One image and its anomaly map."""

    def __init__(self, example: Example, anomaly_map: Float[np.ndarray, "h w"], drawing: Drawing):
        self.example, self.small, self.drawing = example, anomaly_map, drawing
        self.size = image_shape(example.image, example.path, drawing.images)

    @cached_property
    def map(self) -> Float[np.ndarray, "h w"]:
        """The map at the size of the image; 0 where it is ignored."""
        at_size = resize(self.small, self.size)
        return clear_ignored(self.example, at_size, self.drawing.images)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """What is above the pixel threshold, and not ignored."""
        ignored = ignored_at(self.example, self.size, self.drawing.images)
        above = self.map > self.drawing.pixel_threshold
        return above if ignored is None else above & ~ignored


def draw_overlay(picture: ScoredPicture) -> bytes:
    """Returns the heat map over the image as PNG, on the colour scale of the calibration.

    Ignored pixels are hatched.
    """
    shrink = min(1.0, OVERLAY_SIDE / max(picture.size))
    height, width = (max(2, round(shrink * side)) for side in picture.size)
    example, drawing = picture.example, picture.drawing
    options = drawing.images
    image = decode(example.image, (height, width), options.color, example.path, options)
    drawn = overlay(image, resize(picture.small, (height, width)), drawing.scale)
    ignored = ignored_at(example, (height, width), options)
    drawn = drawn if ignored is None else cover(drawn, ignored)
    return png(np.rint(255 * drawn).astype(np.uint8))


def draw_map(picture: ScoredPicture) -> bytes:
    """Returns the anomaly map as .npz: the array `map`, float32 [h w]."""
    file = io.BytesIO()
    np.savez(file, map=picture.map)
    return file.getvalue()


def draw_tiff(picture: ScoredPicture) -> bytes:
    """Returns the anomaly map as 16-bit TIFF: 0 and 65535 are `low` and `high` of the scale."""
    low, _, high = picture.drawing.scale
    levels = np.rint(DEEP * np.clip((picture.map - low) / (high - low), 0, 1)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="tiff", compression="tiff_adobe_deflate")
    return file.getvalue()


def draw_mask(picture: ScoredPicture) -> bytes:
    """Returns the pixels above the pixel threshold as PNG: 255, and 0 for all others."""
    return png(np.where(picture.mask, np.uint8(255), np.uint8(0)))


def draw_regions(picture: ScoredPicture) -> bytes:
    """Returns as JSON the regions above the pixel threshold, the one with the largest peak first.

    Coordinates are pixels, x to the right and y down, (0, 0) the centre of the first pixel. `box`:
    [x, y, width, height] of the pixels; `contours`: closed lines [[x, y], ...] half a pixel around
    them, the outer one and those of holes; `area`: pixels; `peak`: the largest value of the map.
    """
    height, width = picture.size
    content = {
        "path": picture.example.path,
        "width": width,
        "height": height,
        "pixel_threshold": picture.drawing.pixel_threshold,
        "regions": list_regions(picture.map, picture.mask),
    }
    return (json.dumps(content) + "\n").encode()


def list_regions(
    anomaly_map: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> list[dict[str, Any]]:
    """Returns the regions of a mask, the one with the largest peak of the map first."""
    labelled: Any = ndimage.label(mask, TOUCHING)
    labels = labelled[0]
    regions = [
        describe_region(anomaly_map[box], labels[box] == label, box)
        for label, box in enumerate(ndimage.find_objects(labels), 1)
    ]
    return sorted(regions, key=lambda region: -region["peak"])


def describe_region(
    values: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], box: tuple[slice, ...]
) -> dict[str, Any]:
    """Returns the description of a region, given the map and its pixels in its box."""
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

    That is the name without its suffix, or all of it where another image or a folder has the same.
    """
    short = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    folders = {str(folder) for name in short for folder in PurePosixPath(name).parents}
    suffixes = {suffix for suffix, _ in KINDS.values()}
    taken = [
        str(PurePosixPath(each).with_suffix(""))
        for each in folders
        if PurePosixPath(each).suffix in suffixes
    ]
    count = Counter([*short, *short.values(), *taken])
    return {name: stem if count[stem] == 1 else name for name, stem in short.items()}


def write_files(output: Path, stem: str, kinds: Iterable[str], picture: ScoredPicture) -> None:
    """Writes the files of one image, each in the folder of its kind."""
    for kind in kinds:
        suffix, draw = KINDS[kind]
        write_bytes(output / kind / f"{stem}{suffix}", draw(picture))
