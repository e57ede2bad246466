"""The lift from a model of vectors to a detector of images: patches in, maps and scores out."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.normalisation import normalisation
from sparse_ad.patches import average, draw, error_map, extract, pooling
from sparse_ad.types import Key, Method, Params, Scores, State, VectorModel


class Scaled(NamedTuple):
    """A vector model's state or parameters, with the unit that its vectors are measured in."""

    unit: Float[Array, ""]  # common to all images; see `normalisation`
    model: State | Params


def for_each(function: Callable, images: Float[Array, "n h w c"]):
    """Returns function(image) of all images, as `lax.map` does, with the same bits for any n.

    A loop of one turn would be unrolled, its operations fused with what is around them, and
    rounded differently. So a lone image gets a neighbour, which is not visited, and the number of
    turns is hidden from the compiler.
    """
    count = images.shape[0]
    rows = jnp.concatenate([images, images]) if count == 1 else images
    results = jax.eval_shape(jax.vmap(function), rows)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), results)
    pixel = images.ravel()[0]
    turns = jnp.where((pixel < 0.0) & (pixel > 0.0), 0, count)  # count; the compiler cannot tell

    def fill(place, filled):
        result = function(lax.dynamic_index_in_dim(rows, place, keepdims=False))
        return jax.tree.map(lambda leaf, value: leaf.at[place].set(value), filled, result)

    filled = lax.fori_loop(0, turns, fill, empty)
    return jax.tree.map(lambda leaf: leaf[:count], filled)


def patchwise(model: VectorModel, config) -> Method:
    """Returns the detector that applies `model` to every patch of an image.

        image [h w c] / unit -> patches [p d], normalised -> errors [p] -> map [h w], score

    Reads patch_size, stride, patches_per_image, and the fields of `normalisation` and `pooling`.
    Images are scored one after the other, so that a score has the same bits whatever batch the
    image came in.

    Errors: UserError that names the field, its value and the remedy.
    """
    size, stride, per_image = config.patch_size, config.stride, config.patches_per_image
    for field, value in (
        ("patch_size", size),
        ("stride", stride),
        ("patches_per_image", per_image),
    ):
        require(value >= 1, f"method.{field}", value, "must be at least 1")
    normal = normalisation(config)
    pool = pooling(config)

    def drawn(key: Key, common: Array, images: Float[Array, "n h w c"]) -> Float[Array, "m g d"]:
        units = jax.vmap(normal.unit, (None, 0))(common, images)
        patches = draw(key, images / units[:, None, None, None], per_image, size)
        return normal.split(patches.reshape(-1, 1, patches.shape[-1]))[0]  # one group

    def init(key: Key, images: Float[Array, "n h w c"]) -> Scaled:
        draw_key, model_key = jax.random.split(key)
        patches = draw(draw_key, images, per_image, size)
        common = normal.measure(patches.reshape(-1, patches.shape[-1]))
        return Scaled(common, model.init(model_key, drawn(draw_key, common, images)))

    def update(key: Key, state: Scaled, images: Float[Array, "n h w c"]):
        draw_key, model_key = jax.random.split(key)
        vectors = drawn(draw_key, state.unit, images)
        fitted, info = model.update(model_key, state.model, vectors)
        return state._replace(model=fitted), info

    def finish(key: Key, state: Scaled) -> Scaled:
        return state._replace(model=model.finish(key, state.model))

    def score_one(params: Scaled, image: Float[Array, "h w c"]) -> Scores:
        patches = extract(image / normal.unit(params.unit, image), size, stride)
        errors, info = model.errors(params.model, normal.split(patches[:, None])[0])
        errors = jnp.sum(errors, axis=-1)
        return Scores(pool(errors), error_map(errors, image.shape[:2], size, stride), info)

    def reconstruct_one(params: Scaled, image: Float[Array, "h w c"]) -> Array:
        unit = normal.unit(params.unit, image)
        vectors, offset, contrast = normal.split(extract(image / unit, size, stride)[:, None])
        patches = model.reconstruct(params.model, vectors) * contrast + offset
        return unit * average(patches[:, 0], image.shape, size, stride)

    def atoms(params: Scaled) -> Float[Array, "k h w c"]:
        rows = model.atoms(params.model)
        return rows.reshape(rows.shape[0], size, size, -1)

    def one_by_one(function):
        return lambda params, images: for_each(partial(function, params), images)

    return Method(init, update, finish, one_by_one(score_one), one_by_one(reconstruct_one), atoms)
