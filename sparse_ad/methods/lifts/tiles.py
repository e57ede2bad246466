"""The lift from a detector of tiles to one of large images: cut, score each tile, blend."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.batching import for_each
from sparse_ad.errors import require
from sparse_ad.types import Explanation, Features, Key, Maps, Method, Params, Scores, State

Shape = tuple[int, int]  # height, width
MOST = 0.9  # overlap: ten times as many tiles down and across


class Tiling(NamedTuple):
    """Where t tiles lie in an image, and what each counts for in its rows and columns."""

    shape: Shape  # of the image
    tile: Shape
    places: Int[np.ndarray, "t 2"]  # top and left, row by row
    rows: Float[np.ndarray, "t h"]  # shares: of all tiles over a pixel, rows * columns add up to 1
    columns: Float[np.ndarray, "t w"]


def tiled(method: Method, shape: Shape, tile: Shape, overlap: float) -> Method:
    """Returns the detector of images of `shape` that applies `method`, built for tiles, to each.

        image [H W c] -> tiles [t h w c] -> scores, maps [t h w] -> largest score, blended map

    Fitting sees every tile as an image. Maps are blended by weights that fall linearly to the
    border of a tile. Of diagnostics, those named "largest_..." are the largest of all tiles, others
    the mean. What explains an image: the errors of all tiles one after the other, the blended
    maps, and the channels of the tile with the largest score, which is the score of the image.
    A score has the same bits whatever batch its image came in. The maps of all tiles of a batch
    are held at once; smaller batches need less.

    Errors: as `tiling`.
    """
    cuts = tiling(shape, tile, overlap)
    mix = partial(blend, cuts)

    def init(key: Key, maps: Maps) -> State:
        return method.init(key, as_images(maps))

    def update(key: Key, state: State, maps: Maps):
        return method.update(key, state, as_images(maps))

    def score_one(params: Params, tiles: Maps) -> Scores:
        found = method.score(params, tiles)
        info = {
            name: jnp.max(each) if name.startswith("largest_") else jnp.mean(each)
            for name, each in found.info.items()
        }
        return Scores(jnp.max(found.image), mix(found.map), info)

    def reconstruct_one(params: Params, tiles: Maps) -> Float[Array, "h w c"]:
        return mix(method.reconstruct(params, tiles))

    def explain_one(params: Params, tiles: Maps) -> dict[str, Explanation]:
        worst = jnp.argmax(method.score(params, tiles).image)
        return {
            layer: Explanation(each.errors.ravel(), mix(each.map), each.channels[worst])
            for layer, each in method.explain(params, tiles).items()
        }

    def latent_one(params: Params, tiles: Maps) -> Float[Array, " l"]:
        return method.latent(params, tiles).ravel()

    def one_by_one(function):
        return lambda params, maps: for_each(partial(function, params), maps)

    return Method(
        init,
        update,
        method.finish,
        one_by_one(score_one),
        features=features_of_tiles(method.features, cuts),
        reconstruct=one_by_one(reconstruct_one) if method.reconstruct else None,
        atoms=method.atoms,
        explain=one_by_one(explain_one) if method.explain else None,
        latent=one_by_one(latent_one) if method.latent else None,
    )


def tiling(shape: Shape, tile: Shape, overlap: float) -> Tiling:
    """Returns as few evenly spread tiles as cover an image, each overlapping the next enough.

    Errors: UserError naming method.tile or method.tile_overlap, its value and the remedy.
    """
    whole = len(tile) == 2 and all(isinstance(side, int) and side >= 1 for side in tile)
    remedy = "give (height, width), two whole numbers of 1 or more, or () for no tiles"
    require(whole, "method.tile", tile, remedy)
    require(0 <= overlap <= MOST, "method.tile_overlap", overlap, f"give a share from 0 to {MOST}")
    remedy = f"exceeds the images, {shape[0]} x {shape[1]}; make it smaller or data.size larger"
    require(all(map(int.__le__, tile, shape)), "method.tile", tile, remedy)
    sides = [starts(*side, overlap) for side in zip(shape, tile, strict=True)]
    rows, columns = (shares(*side) for side in zip(shape, tile, sides, strict=True))
    down, across = (index.ravel() for index in np.indices([len(side) for side in sides]))
    places = np.stack([sides[0][down], sides[1][across]], axis=1)
    return Tiling(shape, tile, places, rows[down], columns[across])


def starts(length: int, size: int, overlap: float) -> Int[np.ndarray, " tiles"]:
    """Returns the first pixel of each tile along one side; the last ends where the side does."""
    step = max(1, math.floor(size - size * overlap))
    gaps = math.ceil((length - size) / step)
    return np.arange(gaps + 1) * (length - size) // max(gaps, 1)


def shares(length: int, size: int, first: Int[np.ndarray, " tiles"]) -> Float[np.ndarray, "t size"]:
    """Returns how much each tile counts for at its pixels: most in its middle; all add up to 1."""
    ramp = np.arange(size) + 1.0
    weights = np.minimum(ramp, ramp[::-1])
    pixels = first[:, None] + np.arange(size)
    total = np.bincount(pixels.ravel(), np.tile(weights, len(first)), length)
    return (weights / total[pixels]).astype(np.float32)


def features_of_tiles(features: Features, cuts: Tiling) -> Features:
    """Returns the features of every tile, [n t ...]: what lies at one place at a time.

    So features are computed for as many tiles at once as there are images, always the same shape.
    """
    height, width = cuts.tile

    def extract(images: Float[Array, "n h w c"]) -> Maps:
        parts = [
            features.extract(images[:, top : top + height, left : left + width])
            for top, left in cuts.places.tolist()
        ]
        on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(parts))
        stack = np.stack if on_host else jnp.stack
        return jax.tree.map(lambda *leaves: stack(leaves, axis=1), *parts)

    identity = f"{features.identity}, tiles of {cuts.tile} at {cuts.places.tolist()}"
    return Features(extract, identity, cheap=features.cheap)


def as_images(maps: Maps) -> Maps:
    """Returns the maps of all tiles of all images as those of as many images."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), maps)


def blend(cuts: Tiling, parts: Float[Array, "t h w ..."]) -> Float[Array, "height width ..."]:
    """Returns what the tiles say as one image: the weighted mean of the tiles over each pixel."""
    rest = parts.shape[3:]

    def add(whole, tile):
        part, place, rows, columns = tile
        weights = (rows[:, None] * columns).reshape(*cuts.tile, *(1 for _ in rest))
        corner = (*place, *(0 for _ in rest))
        before = lax.dynamic_slice(whole, corner, part.shape)
        return lax.dynamic_update_slice(whole, before + weights * part, corner), None

    empty = jnp.zeros((*cuts.shape, *rest), parts.dtype)
    return lax.scan(add, empty, (parts, cuts.places, cuts.rows, cuts.columns))[0]
