"""From the patch errors of the layers of an image to its score."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.patches import Pool, pool, top_rows

LayerErrors = dict[str, Float[Array, "_ _ c"]]  # [i j c] by layer; layers may differ in size
LayerScores = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]  # of the image, and by layer


class Rule(NamedTuple):
    """How an image is scored."""

    score: Callable[[Pool, LayerErrors], LayerScores]
    sums_channels: bool  # errors of positions, summed over channels, are what is pooled


def channel_scores(options: Pool, errors: Float[Array, "i j c"]) -> Float[Array, " c"]:
    """Returns the sum of the `top` largest errors of each channel."""
    return top_rows(errors.reshape(-1, errors.shape[-1]), options.top).sum(0)


def largest(errors: Float[Array, "i j c"], count: int) -> Float[Array, " top"]:
    """Returns the largest of all errors: of each channel first, which is quick, then of those."""
    of_channels = top_rows(errors.reshape(-1, errors.shape[-1]), count).reshape(-1, 1)
    return top_rows(of_channels, count)[:, 0]


def score_positions(options: Pool, errors: LayerErrors) -> LayerScores:
    """Returns the sum over layers of their errors, summed over channels and pooled."""
    layers = {name: pool(options, layer.sum(-1).ravel()) for name, layer in errors.items()}
    return reduce(jnp.add, layers.values()), layers


def score_channels(options: Pool, errors: LayerErrors) -> LayerScores:
    """Returns the sum over channels and layers of the largest errors of each channel."""
    layers = {name: channel_scores(options, layer).sum() for name, layer in errors.items()}
    return reduce(jnp.add, layers.values()), layers


def score_all_patches(options: Pool, errors: LayerErrors) -> LayerScores:
    """Returns the sum of the largest errors of all channels and layers."""
    layers = {name: largest(layer, options.top) for name, layer in errors.items()}
    image = top_rows(jnp.concatenate(list(layers.values()))[:, None], options.top)
    return image.sum(), {name: layer.sum() for name, layer in layers.items()}


SCORES = {
    "positions": Rule(score_positions, sums_channels=True),
    "channels": Rule(score_channels, sums_channels=False),
    "all_patches": Rule(score_all_patches, sums_channels=False),
}
