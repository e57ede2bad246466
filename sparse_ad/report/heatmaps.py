"""Anomaly maps in colour, on one scale for all images."""

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.colors import ListedColormap

from sparse_ad.evaluation.results import Scale

COLOURS = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256)))  # no black


def overlay(
    image: Float[np.ndarray, "h w c"],
    anomaly_map: Float[np.ndarray, "h w"],
    scale: Scale,
) -> Float[np.ndarray, "h w 3"]:
    """Lays the heat map over the image: clear at the low end of the scale, dense at the high."""
    heat = np.clip((anomaly_map - scale.low) / (scale.high - scale.low), 0, 1)
    cover = 0.85 * np.sqrt(heat)[..., None]
    return (1 - cover) * to_rgb(image) + cover * COLOURS(heat)[..., :3]


def hatching(ignored: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """Returns what covers ignored pixels: diagonal stripes of two greys, RGBA, clear elsewhere."""
    rows, columns = np.indices(ignored.shape)
    stripe = (rows + columns) // max(1, min(ignored.shape) // 48) % 3 == 0
    grey = np.where(stripe, 0.35, 0.7)
    return np.stack([grey, grey, grey, ignored], axis=-1)


def cover(
    picture: Float[np.ndarray, "h w 3"], ignored: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Returns the picture with its ignored pixels hatched."""
    return np.where(ignored[..., None], hatching(ignored)[..., :3], picture)


def to_rgb(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w 3"]:
    """Returns the image in 0..1 RGB; grey is repeated."""
    return np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 1)
