"""Plants defects in normal images: what detectors are compared by where no defect is known.

Seven kinds that are found in the field, each at several sizes and contrasts. Sizes are fractions of
the shorter side. Contrast is in units of the image's own std, so that a defect is as faint on a
quiet surface as on a rough one. Each function takes (rng, image [h w c]) and returns the image with
a defect, and how much of each pixel it replaced (0..1).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from sparse_ad.data.sources.textures import smooth_noise

Image = Float[np.ndarray, "h w c"]
Weight = Float[np.ndarray, "h w"]
Planted = tuple[Image, Weight]
Rng = np.random.Generator

EDGE = 1.0  # pixels: std of the blur of a defect's outline
MARKED = 0.25  # weight from which on a pixel belongs to the defect
STRONG = (0.7, 3.0)  # contrast of scratches and spots, in units of the image's std
FAINT = (0.4, 1.5)  # of stains and shades
DRAWS = 10


def scratch(rng: Rng, image: Image) -> Planted:
    """Plants a thin line, bright or dark: 8 to 40 % of the side long, 1 to 3 pixels wide."""
    shape = image.shape[:2]
    steps = max(8, round(min(shape) * log_uniform(rng, 0.08, 0.4)))
    bend = 0.3 * np.cumsum(rng.standard_normal(steps)) / np.sqrt(steps)
    heading = rng.uniform(0, 2 * np.pi) + bend
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], -1), axis=0)
    room = np.array(shape) - 1 - np.ptp(path, axis=0)
    path = path - path.min(axis=0) + rng.uniform(0, 1, 2) * np.maximum(room, 0)
    rows, columns = np.round(path).astype(int).clip(0, np.array(shape) - 1).T
    off = np.ones(shape, bool)
    off[rows, columns] = False
    weight = outline(rng.uniform(0.5, 1.5) - np.asarray(ndimage.distance_transform_edt(off)), 0.5)
    return blend(image, image + contrast(rng, image, STRONG), weight)


def spot(rng: Rng, image: Image) -> Planted:
    """Plants a compact blob, bright or dark, like a hole or a grain: radius 0.8 to 5 %."""
    weight = area(rng, image, log_uniform(rng, 0.008, 0.05))
    return blend(image, image + contrast(rng, image, STRONG), weight)


def stain(rng: Rng, image: Image) -> Planted:
    """Plants a large mottled area, slightly brighter or darker: radius 5 to 15 %."""
    weight = area(rng, image, log_uniform(rng, 0.05, 0.15), 3.0)
    mottle = 1.0 + 0.3 * smooth_noise(rng, image.shape[:2], 3.0)[..., None]
    return blend(image, image + contrast(rng, image, FAINT) * mottle, weight)


def shade(rng: Rng, image: Image) -> Planted:
    """Plants a wide, soft change of light and contrast, like uneven wear: radius 15 to 40 %."""
    soft = 0.05 * min(image.shape[:2])
    weight = ndimage.gaussian_filter(area(rng, image, log_uniform(rng, 0.15, 0.4)), soft)
    gain = 1.0 + rng.uniform(-0.4, 0.4)
    other = image.mean() + gain * (image - image.mean()) + contrast(rng, image, FAINT)
    return blend(image, other, weight)


def missing(rng: Rng, image: Image) -> Planted:
    """Removes the texture of an area: blurred by a third of its radius, which is 3 to 10 %."""
    radius = log_uniform(rng, 0.03, 0.1)
    weight = area(rng, image, radius)
    blur = radius * min(image.shape[:2]) / 3
    return blend(image, ndimage.gaussian_filter(image, (blur, blur, 0)), weight)


def displaced(rng: Rng, image: Image) -> Planted:
    """Shows another part of the image, turned over, in an area: radius 3 to 12 %."""
    weight = area(rng, image, log_uniform(rng, 0.03, 0.12))
    shift = [int(rng.integers(side // 8, side - side // 8 + 1)) for side in image.shape[:2]]
    moved = np.roll(image, shift, axis=(0, 1))
    return blend(image, moved[::-1] if rng.random() < 0.5 else moved[:, ::-1], weight)


def bent(rng: Rng, image: Image) -> Planted:
    """Pushes an area aside by 2 to 6 % of the side; radius 6 to 15 %."""
    side = min(image.shape[:2])
    hill = ndimage.gaussian_filter(area(rng, image, log_uniform(rng, 0.06, 0.15)), 0.03 * side)
    hill = hill / max(hill.max(), 1e-6)
    push, angle = hill * side * log_uniform(rng, 0.02, 0.06), rng.uniform(0, 2 * np.pi)
    y, x = np.indices(image.shape[:2], np.float32)
    source = y + np.sin(angle) * push, x + np.cos(angle) * push
    channels = np.moveaxis(image, -1, 0)
    moved = [ndimage.map_coordinates(each, source, order=1, mode="reflect") for each in channels]
    return blend(image, np.stack(moved, axis=-1), np.minimum(1.0, 4.0 * hill))


KINDS: dict[str, Callable[[Rng, Image], Planted]] = {
    "scratch": scratch,
    "spot": spot,
    "stain": stain,
    "shade": shade,
    "missing": missing,
    "displaced": displaced,
    "bent": bent,
}


def plant(image: Image, kind: str, seed: tuple[int, ...]) -> tuple[Image, Bool[np.ndarray, "h w"]]:
    """Returns an image (0..1) with one defect of a kind, and the mask of it.

    The same image, kind and seed give the same defect. It is drawn again, at most DRAWS times,
    where nothing of it is to be seen: less than a grey level of change.
    """
    rng = np.random.default_rng([*seed, list(KINDS).index(kind)])
    planted, weight = KINDS[kind](rng, image)
    for _ in range(DRAWS):
        if np.abs(planted.clip(0, 1) - image).max() >= 1 / 255:
            break
        planted, weight = KINDS[kind](rng, image)
    mask = np.asarray(weight >= min(MARKED, float(weight.max())))
    return planted.clip(0, 1).astype(np.float32), mask


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Returns a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def contrast(rng: Rng, image: Image, limits: tuple[float, float]) -> np.float32:
    """Returns a brightness to add, of either sign, given limits in units of the image's std."""
    size = log_uniform(rng, *limits) * max(float(image.std()), 2 / 255)
    return np.float32(size if rng.random() < 0.5 else -size)


def area(rng: Rng, image: Image, radius: float, blur: float = EDGE) -> Weight:
    """Returns an irregular round or elongated area of a radius (fraction of the shorter side)."""
    shape = image.shape[:2]
    radius = max(1.5, radius * min(shape))
    inset = np.minimum(radius, np.array(shape) / 2 - 1)
    centre = rng.uniform(inset, np.array(shape) - 1 - inset)
    y, x = np.indices(shape, np.float32) - centre[:, None, None]
    turn, stretch = rng.uniform(0, np.pi), np.sqrt(log_uniform(rng, 1.0, 3.0))
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    along, across = along / stretch, across * stretch
    angle, waves = np.arctan2(across, along), 0.0
    for order in (2, 3, 5):
        height = rng.uniform(0.05, 0.3) / order
        waves = waves + height * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return outline(radius * (1 + waves) - np.hypot(along, across), blur)


def outline(inside: Float[np.ndarray, "h w"], blur: float) -> Weight:
    """Returns 0..1 for signed distances in pixels to an outline, positive inside."""
    return np.clip(0.5 + inside / (2 * blur), 0.0, 1.0).astype(np.float32)


def blend(image: Image, other: Image, weight: Weight) -> Planted:
    """Returns the image with `other` blended in by weight."""
    return image + weight[..., None] * (other - image), weight
