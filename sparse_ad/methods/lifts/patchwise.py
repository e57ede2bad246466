"""The lift from a model of vectors to a detector of images: patches in, a grid of errors out.

image [h w c] / unit -> patches [p d], normalised -> errors [i j] -> map [h w], score
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from sparse_ad.errors import within
from sparse_ad.methods.lifts.grid import lift_views, one_map, score_grid
from sparse_ad.methods.lifts.maps import Shape, map_shapes, only
from sparse_ad.normalisation import Normalise, image_unit, normalise, training_unit
from sparse_ad.patches import Patches, Pool, average, draw, extract, grid, image_map, pool
from sparse_ad.types import (
    Diagnostics,
    Features,
    Key,
    Maps,
    Method,
    Params,
    State,
    VectorModel,
    Views,
)


class Scaled(NamedTuple):
    """The state or parameters of a vector model, with the unit that its vectors are measured in."""

    unit: Float[Array, ""]  # common to all images; see `normalisation`
    model: State | Params


class Plan(NamedTuple):
    """The static part of the lift."""

    model: VectorModel
    patches: Patches
    normalise: Normalise


def patchwise(
    model: VectorModel,
    patches: Patches,
    normalise: Normalise,
    pooling: Pool,
    features: Features,
    shape: Shape,
) -> Method:
    """Returns the detector that applies `model` to every patch of an image, or of its features.

    An "image" is here what the features give: one map. The errors are resized to `shape`, the size
    of the images. The detector has views where the features are the pixels.

    Raises: FieldError for patches that are larger than the map; UserError for several maps.
    """
    height, width, _ = only(map_shapes(features, shape))
    with within("patches"):
        for side in (height, width):
            grid(side, patches.size, patches.stride)
    plan = Plan(model, patches, normalise)
    to_map = partial(
        image_map,
        patches=patches,
        map_shape=(height, width),
        shape=shape[:2],
        border=features.border,
    )
    errors = one_map(partial(patch_errors, plan), partial(pool, pooling), to_map)
    return Method(
        init=partial(init, plan),
        update=partial(update, plan),
        finish=partial(finish, plan),
        score=partial(score_grid, errors),
        features=features,
        views=lift_views(model, VIEWS, plan) if features.raw else Views(),
        grid=errors,
    )


def sample(
    patches: Patches, key: Key, images: Float[Array, "n h w c"]
) -> Float[Array, "count n d"]:
    """Returns the patches of images that a step of the fit looks at."""
    if patches.per_image:
        return draw(key, images, patches.per_image, patches.size)
    cut = partial(extract, size=patches.size, stride=patches.stride)
    return jax.vmap(cut, out_axes=1)(images)


def training_vectors(
    plan: Plan, key: Key, unit: Float[Array, ""], images: Float[Array, "n h w c"]
) -> Float[Array, "m d"]:
    """Returns normalised patches of images."""
    units = jax.vmap(partial(image_unit, plan.normalise, unit))(images)
    patches = sample(plan.patches, key, images / units[:, None, None, None])
    return normalise(plan.normalise, patches.reshape(-1, patches.shape[-1])).vectors


def init(plan: Plan, key: Key, maps: Maps) -> Scaled:
    """Returns the state before the first step: the common unit, and that of the model."""
    images = only(maps)
    draw_key, model_key = jax.random.split(key)
    patches = sample(plan.patches, draw_key, images)
    unit = training_unit(plan.normalise, patches.reshape(-1, patches.shape[-1]))
    vectors = training_vectors(plan, draw_key, unit, images)
    return Scaled(unit, plan.model.init(model_key, vectors))


def update(
    plan: Plan, key: Key, state: Scaled, maps: Maps
) -> tuple[Scaled, dict[str, Float[Array, ""]]]:
    """Returns the state after a step on a batch, and what to log."""
    draw_key, model_key = jax.random.split(key)
    vectors = training_vectors(plan, draw_key, state.unit, only(maps))
    model, info = plan.model.update(model_key, state.model, vectors)
    return state._replace(model=model), info


def finish(plan: Plan, key: Key, state: Scaled) -> Scaled:
    """Returns the parameters."""
    return state._replace(model=plan.model.finish(key, state.model))


def patch_errors(plan: Plan, params: Scaled, maps: Maps) -> tuple[Float[Array, "i j"], Diagnostics]:
    """Returns the errors of all patches of one image."""
    image, size, stride = only(maps), plan.patches.size, plan.patches.stride
    unit = image_unit(plan.normalise, params.unit, image)
    vectors = normalise(plan.normalise, extract(image / unit, size, stride)).vectors
    errors, info = plan.model.errors(params.model, vectors)
    rows, columns = (len(grid(side, size, stride)) for side in image.shape[:2])
    return errors.reshape(rows, columns), info


def reconstruct(view: Callable, plan: Plan, params: Scaled, maps: Maps) -> Float[Array, "h w c"]:
    """Returns the image that the model makes of all patches: their mean where they overlap."""
    image, size, stride = only(maps), plan.patches.size, plan.patches.stride
    unit = image_unit(plan.normalise, params.unit, image)
    vectors, offset, contrast = normalise(plan.normalise, extract(image / unit, size, stride))
    patches = view(params.model, vectors) * contrast + offset
    height, width, channels = image.shape
    return unit * average(patches, (height, width, channels), size, stride)


def atoms(view: Callable, plan: Plan, params: Scaled) -> Float[Array, "k size size c"]:
    """Returns the atoms of the model as small images."""
    rows, size = view(params.model), plan.patches.size
    return rows.reshape(rows.shape[0], size, size, -1)


VIEWS = {"reconstruct": reconstruct, "atoms": atoms}
