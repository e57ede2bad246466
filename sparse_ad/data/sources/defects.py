"""Planted defects at several scales, each with the exact mask of what it changed.

Each function takes (rng, image [h w 3] around 0..1) and returns (image, mask [h w]). Sizes are
fractions of the shorter side, with a floor in pixels.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from sparse_ad.data.sources.textures import smooth_noise

Image = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


def hole(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """A small puncture: a dark disc with a pale rim; radius 1.2 to 3.5 % of the side."""
    radius = max(3.0, min(image.shape[:2]) * rng.uniform(0.012, 0.035))
    distance = _distance(image.shape[:2], _place(rng, image, radius + 4)[None])
    core, rim = distance < radius, distance < radius + 1.5
    return _paint(_paint(image, rim, 0.9, 0.4), core, 0.03, rng.uniform(0.45, 0.95)), rim


def cut(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """A gash: a dark line of 3 pixels between pale lips; 15 to 40 % of the side long."""
    length = min(image.shape[:2]) * rng.uniform(0.15, 0.4)
    distance = _distance(image.shape[:2], _curve(rng, image, length, bend=0.4))
    core, lips = distance < 1.5, distance < 2.5
    return _paint(_paint(image, lips, 0.9, 0.35), core, 0.04, rng.uniform(0.45, 0.9)), lips


def thread(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """A foreign thread that winds over the surface: pale, with a shadow; 4 pixels wide."""
    length = min(image.shape[:2]) * rng.uniform(0.3, 0.7)
    curve = _curve(rng, image, length, bend=1.2)
    shape = image.shape[:2]
    body, shadow = _distance(shape, curve) < 2, _distance(shape, curve + 1.5) < 2
    tint = np.array((0.93, 0.9, 0.86), np.float32) * rng.uniform(0.85, 1)
    return _paint(
        _paint(image, shadow, 0.05, 0.5), body, tint, rng.uniform(0.5, 0.85)
    ), body | shadow


def stain(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """A large crust of dried matter, mottled dark and pale; 8 to 16 % of the side in radius."""
    mask = _blob(rng, image, rng.uniform(0.08, 0.16))
    mottle = 0.5 + 0.3 * smooth_noise(rng, mask.shape, 1.6)
    crust = mottle[mask, None] * np.array((0.95, 0.9, 0.8), np.float32)
    return _paint(image, mask, crust, rng.uniform(0.45, 0.85)), mask


def bruise(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """A crushed area: the surface is churned up, its own colours in disorder; radius 5 to 10 %."""
    mask = _blob(rng, image, rng.uniform(0.05, 0.1))
    y, x = np.nonzero(mask)
    churn = [9 * smooth_noise(rng, mask.shape, 1.5)[mask] for _ in range(2)]
    source = [
        np.round(np.clip(position + shift, 0, side - 1)).astype(int)
        for position, shift, side in zip((y, x), churn, mask.shape, strict=True)
    ]
    mean = image.mean((0, 1))
    churned = mean + 1.5 * (image[source[0], source[1]] - mean)  # rough: deeper light and shade
    return _paint(image, mask, churned, 1.0), mask


DEFECTS = {"hole": hole, "cut": cut, "thread": thread, "stain": stain, "bruise": bruise}


def _place(rng: np.random.Generator, image: Image, margin: float) -> np.ndarray:
    """Returns a point (y, x) at least `margin` from the border, where the image allows it."""
    shape = np.array(image.shape[:2])
    inset = np.minimum(margin, shape / 2 - 1)
    return rng.uniform(inset, shape - 1 - inset)


def _curve(rng: np.random.Generator, image: Image, length: float, bend: float) -> np.ndarray:
    """Returns points (y, x) about a pixel apart on a smooth curve, kept inside the image.

    `bend`: std in radians of the direction along the curve.
    """
    count = max(8, int(length))
    heading = rng.uniform(0, 2 * np.pi) + bend * smooth_noise(rng, (1, count), (0.1, count / 6))[0]
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], -1), axis=0)
    low, high = path.min(0), path.max(0)
    room = np.array(image.shape[:2]) - (high - low) - 1
    return path - low + rng.uniform(0, 1, 2) * np.maximum(room, 0)


def _distance(shape: tuple[int, int], points: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Returns each pixel's distance to the nearest of the points, up to half a pixel."""
    index = np.round(points).astype(int).clip(0, np.array(shape) - 1)
    free = np.ones(shape, bool)
    free[index[:, 0], index[:, 1]] = False
    return np.asarray(ndimage.distance_transform_edt(free))


def _blob(rng: np.random.Generator, image: Image, radius: float) -> Mask:
    """Returns an irregular patch of about `radius` (fraction of the shorter side)."""
    shape = image.shape[:2]
    radius = max(6.0, radius * min(shape))
    centre = _place(rng, image, radius)
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = np.arctan2(y - centre[0], x - centre[1])
    waves = sum(
        rng.uniform(0.05, 0.2) / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        for order in (2, 3, 5)
    )
    return np.hypot(y - centre[0], x - centre[1]) < radius * (1 + waves)


def _paint(image: Image, mask: Mask, value, strength: float) -> Image:
    """Returns the image with `value` blended in, by `strength` (0..1), where the mask is set."""
    painted = image.copy()
    painted[mask] += np.float32(strength) * (value - painted[mask])
    return painted
