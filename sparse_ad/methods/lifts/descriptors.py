"""The lift from a descriptor of images to a detector: a Gaussian of the descriptors.

    score = (v - m)^T (C + shrinkage tr(C)/d I)^-1 (v - m) / d

v holds the descriptor of the whole image, of all layers one after the other; m and C are mean and
covariance of the v of training images. The map has the same of each position by itself, with m and
C of all positions of training images, added up over layers.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.methods.lifts.grid import total
from sparse_ad.methods.lifts.maps import Shape, map_shapes
from sparse_ad.methods.moments import (
    Moments,
    Whitening,
    add_vectors,
    begin_moments,
    distance,
    whiten,
)
from sparse_ad.patches import resize_map
from sparse_ad.types import Features, Key, Maps, Method, Scores


class Descriptor(NamedTuple):
    """What describes one layer of an image."""

    whole: Float[Array, " d"]
    positions: Float[Array, "h w e"]


class Gaussians(NamedTuple):
    """One Gaussian of the whole images, and one of the positions of each layer, while fitting."""

    whole: Moments  # of all layers together
    positions: dict[str, Moments]  # by layer


class Fitted(NamedTuple):
    """What scoring needs: the linear maps that whiten."""

    whole: Whitening
    positions: dict[str, Whitening]


Describe = Callable[[Float[Array, "h w c"]], Descriptor]


def described(describe: Describe, shrinkage: float, features: Features, shape: Shape) -> Method:
    """Returns the detector of images of `shape` by the Gaussian of their descriptors.

    Its state is moments alone, and nothing is drawn at random.
    """
    shapes = map_shapes(features, shape)
    return Method(
        init=partial(init, describe, shapes),
        update=partial(update, describe),
        finish=partial(finish, shrinkage),
        score=partial(score, describe, shape[:2], features.border),
        features=features,
    )


def require_shrinkage(shrinkage: float) -> None:
    """Raises FieldError unless the shrinkage of a covariance is positive."""
    remedy = "must be positive: what never varied would have no distance"
    require(shrinkage > 0, "shrinkage", shrinkage, remedy)


def describe_layers(describe: Describe, maps: Maps) -> tuple[Array, dict[str, Array]]:
    """Returns the descriptor of the whole image [d], and of the positions [h w e] by layer."""
    layers = {name: describe(layer) for name, layer in maps.items()}
    whole = jnp.concatenate([layer.whole for layer in layers.values()])
    return whole, {name: layer.positions for name, layer in layers.items()}


def init(describe: Describe, shapes: dict[str, Shape], key: Key, maps: Maps) -> Gaussians:
    """Returns the moments of no images."""
    one = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    whole, positions = jax.eval_shape(partial(describe_layers, describe), one)
    lengths = {name: layer.shape[-1] for name, layer in positions.items()}
    return Gaussians(
        begin_moments(whole.shape[-1]),
        {name: begin_moments(length) for name, length in lengths.items()},
    )


def update(
    describe: Describe, key: Key, state: Gaussians, maps: Maps
) -> tuple[Gaussians, dict[str, Float[Array, ""]]]:
    """Returns the moments with those of a batch of images, and what to log."""
    whole, positions = jax.vmap(partial(describe_layers, describe))(maps)
    rows = {name: layer.reshape(-1, layer.shape[-1]) for name, layer in positions.items()}
    state = Gaussians(
        add_vectors(state.whole, whole),
        {name: add_vectors(state.positions[name], rows[name]) for name in rows},
    )
    return state, {"variance": jnp.trace(state.whole.covariance)}


def finish(shrinkage: float, key: Key, state: Gaussians) -> Fitted:
    """Returns the linear maps that whiten."""
    positions = {name: whiten(layer, shrinkage) for name, layer in state.positions.items()}
    return Fitted(whiten(state.whole, shrinkage), positions)


def score(
    describe: Describe, shape: tuple[int, int], border: int, params: Fitted, maps: Maps
) -> Scores:
    """Returns the scores of one image."""
    whole, positions = describe_layers(describe, maps)
    layers = [distance(params.positions[name], layer) for name, layer in positions.items()]
    anomaly_map = total(resize_map(layer, shape, border) for layer in layers)
    return Scores(distance(params.whole, whole), anomaly_map)
