"""The lift from a model of vectors to a detector of images: patches in, maps and scores out."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.batching import for_each
from sparse_ad.errors import require
from sparse_ad.normalisation import normalisation
from sparse_ad.patches import average, draw, error_map, extract, pooling, resize_map
from sparse_ad.types import PIXELS, Features, Key, Maps, Method, Params, Scores, State, VectorModel


class Scaled(NamedTuple):
    """A vector model's state or parameters, with the unit that its vectors are measured in."""

    unit: Float[Array, ""]  # common to all images; see `normalisation`
    model: State | Params


def patchwise(model: VectorModel, config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector that applies `model` to every patch of an image, or of its features.

        image [h w c] / unit -> patches [p d], normalised -> errors [p] -> map [h w], score

    "Image" is here what the features give: one map, whose errors are brought to `shape`, the size
    of the images. Reads patch_size, stride, patches_per_image (0: all that scoring looks at), and
    the fields of `normalisation` and `pooling`.
    Images are scored one after the other, so that a score has the same bits whatever batch the
    image came in.

    Errors: UserError that names the field, its value and the remedy.
    """
    size, stride, per_image = config.patch_size, config.stride, config.patches_per_image
    for field, value, least in (
        ("patch_size", size, 1),
        ("stride", stride, 1),
        ("patches_per_image", per_image, 0),
    ):
        require(value >= least, f"method.{field}", value, f"must be at least {least}")
    normal = normalisation(config)
    pool = pooling(config)

    def sample(key: Key, images: Float[Array, "n h w c"]) -> Float[Array, "count n d"]:
        if per_image:
            return draw(key, images, per_image, size)
        return jax.vmap(lambda image: extract(image, size, stride), out_axes=1)(images)

    def drawn(key: Key, common: Array, images: Float[Array, "n h w c"]) -> Float[Array, "m g d"]:
        units = jax.vmap(normal.unit, (None, 0))(common, images)
        patches = sample(key, images / units[:, None, None, None])
        return normal.split(patches.reshape(-1, 1, patches.shape[-1]))[0]  # one group

    def init(key: Key, maps: Maps) -> Scaled:
        images = only(maps)
        draw_key, model_key = jax.random.split(key)
        patches = sample(draw_key, images)
        common = normal.measure(patches.reshape(-1, patches.shape[-1]))
        return Scaled(common, model.init(model_key, drawn(draw_key, common, images)))

    def update(key: Key, state: Scaled, maps: Maps):
        images = only(maps)
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
        anomaly_map = error_map(errors, image.shape[:2], size, stride)
        if image.shape[:2] != shape:
            anomaly_map = resize_map(anomaly_map, shape, features.border)
        return Scores(pool(errors), anomaly_map, info)

    def reconstruct_one(params: Scaled, image: Float[Array, "h w c"]) -> Array:
        unit = normal.unit(params.unit, image)
        vectors, offset, contrast = normal.split(extract(image / unit, size, stride)[:, None])
        patches = model.reconstruct(params.model, vectors) * contrast + offset
        return unit * average(patches[:, 0], image.shape, size, stride)

    def atoms(params: Scaled) -> Float[Array, "k h w c"]:
        rows = model.atoms(params.model)
        return rows.reshape(rows.shape[0], size, size, -1)

    def one_by_one(function):
        return lambda params, maps: for_each(partial(function, params), only(maps))

    detector = Method(init, update, finish, one_by_one(score_one), features)
    if features is not PIXELS:  # what features show is nothing to look at
        return detector
    return detector._replace(
        reconstruct=one_by_one(reconstruct_one) if model.reconstruct else None,
        atoms=atoms if model.atoms else None,
    )


def only(maps: Maps) -> Float[Array, "n h w c"]:
    """Returns the one map there is. Errors: UserError where there are several."""
    remedy = f"leaves the maps of {', '.join(maps)} apart, and this method wants one; set it True"
    require(len(maps) == 1, "features.fuse", False, remedy)
    return next(iter(maps.values()))
