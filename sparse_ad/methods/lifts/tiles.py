"""The lift from a detector of tiles to one of large images: cut, score each tile, blend.

image [H W c] -> tiles [t h w c] -> scores, maps [t h w] -> largest score, blended map
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.batching import batched
from sparse_ad.errors import require
from sparse_ad.methods.lifts.grid import lift_views
from sparse_ad.methods.lifts.maps import Shape
from sparse_ad.types import (
    Counted,
    Diagnostics,
    ErrorGrid,
    Errors,
    Explanation,
    Extracted,
    Features,
    Key,
    Maps,
    Method,
    Params,
    Scores,
    State,
)

MOST = 0.9  # overlap: ten times as many tiles down and across


@dataclass(frozen=True)
class Tiles:
    """Large images as evenly spread tiles, each of them an image for the detector.

    The image score is the largest of all tiles; anomaly maps are blended by weights that fall
    linearly to the border of a tile.
    """

    size: tuple[int, ...] = ()  # (height, width) of a tile, in pixels; (): images are not cut
    overlap: float = 0.25  # at least this fraction of a tile is covered by the next one, 0 to 0.9

    def __post_init__(self):
        size = self.size
        pair = len(size) == 2 and all(isinstance(side, int) and side >= 1 for side in size)
        remedy = "give (height, width), two whole numbers of 1 or more, or () for no tiles"
        require(not size or pair, "size", size, remedy)
        remedy = f"give a fraction from 0 to {MOST}"
        require(0 <= self.overlap <= MOST, "overlap", self.overlap, remedy)

    def part(self, shape: Shape) -> Shape:
        """Returns the shape (height, width, channels) of what the detector sees of an image.

        Raises: FieldError where a tile exceeds the image.
        """
        if not self.size:
            return shape
        height, width, channels = shape
        remedy = f"exceeds the images, {height} x {width}; make it smaller or the images larger"
        fits = self.size[0] <= height and self.size[1] <= width
        require(fits, "size", self.size, remedy)
        down, across = self.size
        return down, across, channels


class Tiling(NamedTuple):
    """Where t tiles lie in an image, and the weight of each in its rows and columns."""

    shape: tuple[int, int]  # of the image
    tile: tuple[int, int]
    corners: Int[np.ndarray, "t 2"]  # top and left, row by row
    rows: Float[np.ndarray, "t h"]  # of all tiles over a pixel, rows * columns add up to 1
    columns: Float[np.ndarray, "t w"]


def tiled(method: Method, shape: tuple[int, int], tiles: Tiles) -> Method:
    """Returns the detector of images of `shape` that applies `method`, built for tiles, to each.

    Fitting sees every tile as an image. Diagnostics are those of all tiles: their mean, or the
    largest. An explanation holds the errors of all tiles one after the other, the blended maps,
    and the channels of the tile with the largest score, which is the score of the image.
    The maps of all tiles of a batch are held at once; smaller batches need less.
    """
    cuts = tiling(shape, tiles)
    return Method(
        init=partial(init, method),
        update=partial(update, method),
        finish=method.finish,
        score=partial(score, method, cuts),
        features=features_of_tiles(method.features, cuts),
        views=lift_views(method.views, VIEWS, method, cuts),
        grid=grid_of_tiles(method, method.grid, cuts) if method.grid else None,
    )


def init(method: Method, key: Key, maps: Maps) -> State:
    """Returns the state of the detector of tiles before the first step."""
    return method.init(key, as_images(maps))


def update(
    method: Method, key: Key, state: State, maps: Maps
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """Returns the state after a step on all tiles of a batch of images, and what to log."""
    return method.update(key, state, as_images(maps))


def score_tiles(method: Method, params: Params, tiles: Maps) -> Scores:
    """Returns the scores of all tiles of one image."""
    return batched(method.score, method.together)(params, tiles)


def score(method: Method, cuts: Tiling, params: Params, tiles: Maps) -> Scores:
    """Returns the scores of one image, given the maps of its tiles."""
    scores = score_tiles(method, params, tiles)
    return Scores(jnp.max(scores.image), blend(cuts, scores.map), info_of_tiles(scores.info))


def info_of_tiles(info: Diagnostics) -> Diagnostics:
    """Returns the diagnostics of an image, given those of its tiles."""
    return Diagnostics(jax.tree.map(jnp.mean, info.mean), jax.tree.map(jnp.max, info.largest))


def grid_of_tiles(method: Method, grid: ErrorGrid, cuts: Tiling) -> ErrorGrid:
    """Returns the grid of whole images, given that of tiles: errors [t i j] of each layer."""
    return ErrorGrid(
        partial(errors_of_tiles, method, grid), partial(pool_tiles, grid), partial(draw, grid, cuts)
    )


def errors_of_tiles(
    method: Method, grid: ErrorGrid, params: Params, tiles: Maps
) -> tuple[Errors, Diagnostics]:
    """Returns the errors of all tiles of one image, and the diagnostics of the image."""
    errors, info = batched(grid.errors, method.together)(params, tiles)
    return errors, info_of_tiles(info)


def pool_tiles(grid: ErrorGrid, errors: Errors, counted: Counted | None = None) -> Float[Array, ""]:
    """Returns the largest score of all tiles, or of those in which something counts.

    Without any it is NaN.
    """
    if counted is None:
        return jnp.max(jax.vmap(grid.pool)(errors))
    scores = jax.vmap(grid.pool)(errors, counted)
    of_nothing = jax.vmap(grid.pool)(jax.tree.map(jnp.zeros_like, errors), counted)
    counts = ~jnp.isnan(of_nothing)
    largest = jnp.max(jnp.where(counts, scores, -jnp.inf))
    return jnp.where(jnp.any(counts), largest, jnp.nan)


def draw(grid: ErrorGrid, cuts: Tiling, errors: Errors) -> Float[Array, "height width"]:
    """Returns the blended anomaly maps of all tiles."""
    return blend(cuts, jax.vmap(grid.to_map)(errors))


def reconstruct(
    view: Callable, method: Method, cuts: Tiling, params: Params, tiles: Maps
) -> Float[Array, "height width c"]:
    """Returns the blended reconstructions of all tiles."""
    return blend(cuts, batched(view, method.together)(params, tiles))


def explain(
    view: Callable, method: Method, cuts: Tiling, params: Params, tiles: Maps
) -> dict[str, Explanation]:
    """Returns what each layer contributes; see `tiled`."""
    worst = jnp.argmax(score_tiles(method, params, tiles).image)
    layers = batched(view, method.together)(params, tiles)
    return {
        name: Explanation(layer.errors.ravel(), blend(cuts, layer.map), layer.channels[worst])
        for name, layer in layers.items()
    }


def latent(
    view: Callable, method: Method, cuts: Tiling, params: Params, tiles: Maps
) -> Float[Array, " l"]:
    """Returns the latents of all tiles, one after the other."""
    return batched(view, method.together)(params, tiles).ravel()


def atoms(view: Callable, method: Method, cuts: Tiling, params: Params) -> Float[Array, "k h w c"]:
    """Returns the atoms of the detector of tiles."""
    return view(params)


VIEWS = {"reconstruct": reconstruct, "atoms": atoms, "explain": explain, "latent": latent}


def tiling(shape: tuple[int, int], tiles: Tiles) -> Tiling:
    """Returns as few evenly spread tiles as cover an image, each overlapping the next enough."""
    height, width = tiles.size
    sides = [starts(*side, tiles.overlap) for side in zip(shape, (height, width), strict=True)]
    rows, columns = (weights(*side) for side in zip(shape, tiles.size, sides, strict=True))
    down, across = (index.ravel() for index in np.indices([len(side) for side in sides]))
    corners = np.stack([sides[0][down], sides[1][across]], axis=1)
    return Tiling(shape, (height, width), corners, rows[down], columns[across])


def starts(length: int, size: int, overlap: float) -> Int[np.ndarray, " tiles"]:
    """Returns the first pixel of each tile along one side; the last ends where the side does."""
    step = max(1, math.floor(size - size * overlap))
    gaps = math.ceil((length - size) / step)
    return np.arange(gaps + 1) * (length - size) // max(gaps, 1)


def weights(
    length: int, size: int, first: Int[np.ndarray, " tiles"]
) -> Float[np.ndarray, "tiles size"]:
    """Returns the weight of each tile at its pixels: largest in its middle; all add up to 1."""
    ramp = np.arange(size) + 1.0
    heights = np.minimum(ramp, ramp[::-1])
    pixels = first[:, None] + np.arange(size)
    total = np.bincount(pixels.ravel(), np.tile(heights, len(first)), length)
    return (heights / total[pixels]).astype(np.float32)


def features_of_tiles(features: Features, cuts: Tiling) -> Features:
    """Returns the features of every tile, [n t ...]: those at one position at a time.

    So features are computed for as many tiles at once as there are images, always the same shape.
    """
    identity = f"{features.identity}, tiles of {cuts.tile} at {cuts.corners.tolist()}"
    return features._replace(extract=partial(extract, features, cuts), identity=identity, border=0)


def extract(
    features: Features, cuts: Tiling, images: Float[Array | np.ndarray, "n h w c"]
) -> Extracted:
    """Returns the maps of every tile of every image: [n t ...]."""
    height, width = cuts.tile
    parts = [
        features.extract(images[:, top : top + height, left : left + width])
        for top, left in cuts.corners.tolist()
    ]
    on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(parts))
    stack = np.stack if on_host else jnp.stack
    return jax.tree.map(lambda *leaves: stack(leaves, axis=1), *parts)


def as_images(maps: Maps) -> Maps:
    """Returns the maps of all tiles of all images as those of as many images."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), maps)


def blend(cuts: Tiling, parts: Float[Array, "t h w *c"]) -> Float[Array, "height width *c"]:
    """Returns the tiles as one image: the weighted mean of the tiles over each pixel."""
    whole = jnp.zeros((*cuts.shape, *parts.shape[3:]), parts.dtype)
    corners, rows, columns = map(jnp.asarray, (cuts.corners, cuts.rows, cuts.columns))
    return lax.scan(add_tile, whole, (parts, corners, rows, columns))[0]


def add_tile(
    whole: Float[Array, "height width *c"], tile: tuple[Array, Array, Array, Array]
) -> tuple[Float[Array, "height width *c"], None]:
    """Returns the image with a tile (pixels, corner, row and column weights) added to it."""
    pixels, corner, rows, columns = tile
    depth = pixels.ndim - 2
    factors = (rows[:, None] * columns[None]).reshape(*pixels.shape[:2], *(1,) * depth)
    start = (*corner, *(0,) * depth)
    before = lax.dynamic_slice(whole, start, pixels.shape)
    return lax.dynamic_update_slice(whole, before + factors * pixels, start), None
