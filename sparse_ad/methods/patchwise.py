"""The lift from a model of vectors to a detector of images: patches in, maps and scores out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.patches import average, draw, error_map, extract, pooling
from sparse_ad.types import Key, Method, Params, Scores, State, VectorModel

SCALES = ("global", "patch", "none")


class Scaled(NamedTuple):
    """A vector model's state or parameters, with the unit that its vectors are measured in."""

    scale: Float[Array, ""]
    model: State | Params


def patchwise(model: VectorModel, config) -> Method:
    """Returns the detector that applies `model` to every patch of an image.

        patches [p d] -> mean removed, divided by the scale -> errors [p] -> map, score

    Reads patch_size, stride, remove_mean, scale, patches_per_image and the pooling's fields.
    scale: "global" divides by the deviation of the patches that fitting starts from, "patch" by
    each patch's own (contrast normalisation), "none" by 1. Images are scored one after the
    other, so that a score has the same bits whatever batch the image came in.

    Errors: UserError that names the field, its value and the remedy.
    """
    size, stride = config.patch_size, config.stride
    require_choice("method.scale", config.scale, SCALES)
    require(config.stride >= 1, "method.stride", config.stride, "must be at least 1")
    require(config.patch_size >= 1, "method.patch_size", config.patch_size, "must be at least 1")
    per_image = config.patches_per_image
    require(per_image >= 1, "method.patches_per_image", per_image, "must be at least 1")
    pool = pooling(config)

    def centre(patches: Float[Array, "... d"]) -> Float[Array, "... d"]:
        if not config.remove_mean:
            return patches
        return patches - jnp.mean(patches, axis=-1, keepdims=True)

    def deviation(patches: Float[Array, "... d"]) -> Float[Array, "... 1"]:
        spread = jnp.sqrt(jnp.mean(patches**2, axis=-1, keepdims=True))
        # A patch flatter than one grey level in 255 is noise, not contrast: leave it small.
        return jnp.maximum(spread, 1.0 / 255.0)

    def normalise(scale: Array, patches: Float[Array, "... d"]) -> Float[Array, "... 1 d"]:
        centred = centre(patches)
        unit = deviation(centred) if config.scale == "patch" else scale
        return (centred / unit)[..., None, :]  # one group

    def vectors_of(key: Key, scale: Array, images: Array) -> Float[Array, "m g d"]:
        patches = draw(key, images, per_image, size)
        return normalise(scale, patches.reshape(-1, patches.shape[-1]))

    def init(key: Key, images: Float[Array, "n h w c"]) -> Scaled:
        draw_key, model_key = jax.random.split(key)
        patches = centre(draw(draw_key, images, per_image, size))
        scale = deviation(patches.ravel())[0] if config.scale == "global" else jnp.ones(())
        return Scaled(scale, model.init(model_key, vectors_of(draw_key, scale, images)))

    def update(key: Key, state: Scaled, images: Float[Array, "n h w c"]):
        draw_key, model_key = jax.random.split(key)
        vectors = vectors_of(draw_key, state.scale, images)
        fitted, info = model.update(model_key, state.model, vectors)
        return state._replace(model=fitted), info

    def finish(key: Key, state: Scaled) -> Scaled:
        return state._replace(model=model.finish(key, state.model))

    def score(params: Scaled, images: Float[Array, "n h w c"]) -> Scores:
        def score_one(image):
            vectors = normalise(params.scale, extract(image, size, stride))
            errors, info = model.errors(params.model, vectors)
            errors = jnp.sum(errors, axis=-1)
            return Scores(pool(errors), error_map(errors, image.shape[:2], size, stride), info)

        return lax.map(score_one, images)

    def reconstruct(params: Scaled, images: Float[Array, "n h w c"]) -> Array:
        def reconstruct_one(image):
            patches = extract(image, size, stride)
            vectors = normalise(params.scale, patches)
            centred = centre(patches)
            unit = deviation(centred) if config.scale == "patch" else params.scale
            approximate = model.reconstruct(params.model, vectors)[:, 0] * unit
            return average(approximate + (patches - centred), image.shape, size, stride)

        return lax.map(reconstruct_one, images)

    def atoms(params: Scaled) -> Float[Array, "k h w c"]:
        rows = model.atoms(params.model)
        return rows.reshape(rows.shape[0], size, size, -1)

    return Method(init, update, finish, score, reconstruct, atoms)
