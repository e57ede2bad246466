"""The lift from a model of vectors to a detector of images: patches in, grids of errors out.

each layer [h w c] / unit -> patches [p d], normalised -> errors [i j]
errors of all layers -> maps, added up on the finest grid -> score, map

Each layer has a model of its own. Where there is one layer, its errors are pooled as they are.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import within
from sparse_ad.methods.lifts.grid import lift_views, score_grid, total
from sparse_ad.methods.lifts.maps import Shape, map_shapes, only
from sparse_ad.normalisation import Normalise, image_unit, normalise, training_unit
from sparse_ad.patches import (
    Patches,
    Pool,
    average,
    draw,
    error_map,
    extract,
    grid,
    image_map,
    pool,
    resize_map,
)
from sparse_ad.types import (
    Counted,
    Diagnostics,
    ErrorGrid,
    Errors,
    Explanation,
    Features,
    Key,
    Maps,
    Method,
    Params,
    State,
    VectorModel,
    Views,
)

COVERED = 0.5  # of a position of the finest grid: less on errors that count, and it does not count


class Scaled(NamedTuple):
    """The state or parameters of a vector model, with the unit that its vectors are measured in."""

    unit: Float[Array, ""]  # common to all images; see `normalisation`
    model: State | Params


class Plan(NamedTuple):
    """The static part of the lift."""

    models: Mapping[str, VectorModel]  # by layer
    patches: Patches
    normalise: Normalise
    pool: Pool
    shapes: dict[str, Shape]  # of the maps, by layer
    shape: tuple[int, int]  # of the images
    border: int
    weights: Mapping[str, float]  # of each layer in the sum

    def finest(self) -> tuple[int, int]:
        """Returns the size (height, width) of the map with the most positions."""
        return max(
            (shape[:2] for shape in self.shapes.values()), key=lambda size: size[0] * size[1]
        )


def patchwise(
    model: VectorModel | Mapping[str, VectorModel],
    patches: Patches,
    normalise: Normalise,
    pooling: Pool,
    features: Features,
    shape: Shape,
    weights: Mapping[str, float] | None = None,
) -> Method:
    """Returns the detector that applies a model to every patch of an image, or of its features.

    `model`: of every layer, or those of each by its name. `weights`: of each layer in the sum of
    several; None: 1.

    An "image" is here a layer that the features give. The errors are resized to `shape`, the size
    of the images. The detector has views where the features are the pixels, and one of what each
    layer contributes where there are several.

    Raises: FieldError for patches that are larger than a map.
    """
    shapes = map_shapes(features, shape)
    with within("patches"):
        for height, width, _ in shapes.values():
            for side in (height, width):
                grid(side, patches.size, patches.stride)
    models = model if isinstance(model, Mapping) else dict.fromkeys(shapes, model)
    if weights is None or len(shapes) == 1:
        weights = dict.fromkeys(shapes, 1.0)
    plan = Plan(
        models,
        patches,
        normalise,
        pooling,
        shapes,
        shape[:2],
        features.border,
        weights,
    )
    errors = ErrorGrid(
        partial(layer_errors, plan), partial(pool_layers, plan), partial(draw_layers, plan)
    )
    views = lift_views(only(models), VIEWS, plan) if features.raw else Views()
    if len(shapes) > 1:
        views = views._replace(explain=partial(explain, plan))
    return Method(
        init=partial(init, plan),
        update=partial(update, plan),
        finish=partial(finish, plan),
        score=partial(score_grid, errors),
        features=features,
        views=views,
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


def layer_keys(key: Key, names: Maps | dict[str, Scaled]) -> dict[str, Key]:
    """Returns a key for each layer: the key itself where there is one.

    By the order of their names: compiled functions are given layers so, whatever order they had.
    """
    keys = jax.random.split(key, len(names)) if len(names) > 1 else [key]
    return dict(zip(sorted(names), keys, strict=True))


def init(plan: Plan, key: Key, maps: Maps) -> dict[str, Scaled]:
    """Returns the state of each layer before the first step."""
    keys = layer_keys(key, maps)
    return {name: init_layer(plan, name, keys[name], layer) for name, layer in maps.items()}


def init_layer(plan: Plan, name: str, key: Key, images: Float[Array, "n h w c"]) -> Scaled:
    """Returns the state of a layer before the first step: common unit, and state of the model."""
    draw_key, model_key = jax.random.split(key)
    patches = sample(plan.patches, draw_key, images)
    unit = training_unit(plan.normalise, patches.reshape(-1, patches.shape[-1]))
    vectors = training_vectors(plan, draw_key, unit, images)
    return Scaled(unit, plan.models[name].init(model_key, vectors))


def update(
    plan: Plan, key: Key, state: dict[str, Scaled], maps: Maps
) -> tuple[dict[str, Scaled], dict[str, Float[Array, ""]]]:
    """Returns the state after a step on a batch, and what to log of each layer."""
    keys, layers, info = layer_keys(key, maps), {}, {}
    for name, layer in maps.items():
        layers[name], metrics = update_layer(plan, name, keys[name], state[name], layer)
        suffix = f"_{name}" if len(maps) > 1 else ""
        info |= {f"{metric}{suffix}": value for metric, value in metrics.items()}
    return layers, info


def update_layer(
    plan: Plan, name: str, key: Key, state: Scaled, images: Float[Array, "n h w c"]
) -> tuple[Scaled, dict[str, Float[Array, ""]]]:
    """Returns the state of a layer after a step on a batch, and what to log."""
    draw_key, model_key = jax.random.split(key)
    vectors = training_vectors(plan, draw_key, state.unit, images)
    model, info = plan.models[name].update(model_key, state.model, vectors)
    return state._replace(model=model), info


def finish(plan: Plan, key: Key, state: dict[str, Scaled]) -> dict[str, Scaled]:
    """Returns the parameters."""
    keys = layer_keys(key, state)
    return {
        name: layer._replace(model=plan.models[name].finish(keys[name], layer.model))
        for name, layer in state.items()
    }


def layer_errors(
    plan: Plan, params: dict[str, Scaled], maps: Maps
) -> tuple[dict[str, Float[Array, "_ _"]], Diagnostics]:
    """Returns the errors of all patches of one image, by layer."""
    layers = {name: patch_errors(plan, name, params[name], layer) for name, layer in maps.items()}
    infos = [info for _, info in layers.values()]
    count = len(infos)
    mean = {name: total(info.mean[name] for info in infos) / count for name in infos[0].mean}
    largest = {
        name: jnp.max(jnp.stack([info.largest[name] for info in infos]))
        for name in infos[0].largest
    }
    return {name: errors for name, (errors, _) in layers.items()}, Diagnostics(mean, largest)


def patch_errors(
    plan: Plan, name: str, params: Scaled, image: Float[Array, "h w c"]
) -> tuple[Float[Array, "i j"], Diagnostics]:
    """Returns the errors of all patches of a layer of one image."""
    size, stride = plan.patches.size, plan.patches.stride
    unit = image_unit(plan.normalise, params.unit, image)
    vectors = normalise(plan.normalise, extract(image / unit, size, stride)).vectors
    errors, info = plan.models[name].errors(params.model, vectors)
    rows, columns = (len(grid(side, size, stride)) for side in image.shape[:2])
    return errors.reshape(rows, columns), info


def pool_layers(plan: Plan, errors: Errors, counted: Counted | None = None) -> Float[Array, ""]:
    """Returns the score of an image: the pooled errors of its layer, or those of all added up."""
    if len(errors) == 1:
        ((name, values),) = errors.items()
        return pool(plan.pool, values.ravel(), None if counted is None else counted[name].ravel())
    if counted is None:
        return pool(plan.pool, add_layers(plan, errors).ravel())
    kept = {name: jnp.where(counted[name], values, 0.0) for name, values in errors.items()}
    shares = {
        name: at_finest(plan, name, there.astype(jnp.float32)) for name, there in counted.items()
    }
    means = [
        plan.weights[name] * at_finest(plan, name, kept[name]) / jnp.where(share > 0.0, share, 1.0)
        for name, share in shares.items()
    ]
    there = jnp.stack(list(shares.values())).min(axis=0) >= COVERED
    return pool(plan.pool, total(means).ravel(), there.ravel())


def add_layers(plan: Plan, errors: Errors) -> Float[Array, "h w"]:
    """Returns the weighted sum of the errors of all layers, on the finest grid."""
    return total(
        plan.weights[name] * at_finest(plan, name, values) for name, values in errors.items()
    )


def at_finest(plan: Plan, layer: str, errors: Float[Array, "i j"]) -> Float[Array, "h w"]:
    """Returns the errors of a layer as a map on the finest grid."""
    at_map = error_map(errors, plan.shapes[layer][:2], plan.patches.size, plan.patches.stride)
    return resize_map(at_map, plan.finest(), plan.border)


def draw_layer(plan: Plan, layer: str, errors: Float[Array, "i j"]) -> Float[Array, "h w"]:
    """Returns the errors of a layer as an anomaly map, times its weight."""
    return plan.weights[layer] * image_map(
        errors, plan.patches, plan.shapes[layer][:2], plan.shape, plan.border
    )


def draw_layers(plan: Plan, errors: Errors) -> Float[Array, "h w"]:
    """Returns the anomaly map: the weighted sum of those of all layers."""
    return total(draw_layer(plan, name, values) for name, values in errors.items())


def explain(plan: Plan, params: dict[str, Scaled], maps: Maps) -> dict[str, Explanation]:
    """Returns what each layer contributes. Its channels are coded together: they have no part."""
    errors, _ = layer_errors(plan, params, maps)
    return {
        name: Explanation(values.ravel(), draw_layer(plan, name, values), jnp.zeros((0,)))
        for name, values in errors.items()
    }


def reconstruct(
    view: Callable, plan: Plan, layers: dict[str, Scaled], maps: Maps
) -> Float[Array, "h w c"]:
    """Returns the image that the model makes of all patches: their mean where they overlap."""
    params, image = only(layers), only(maps)
    size, stride = plan.patches.size, plan.patches.stride
    unit = image_unit(plan.normalise, params.unit, image)
    vectors, offset, contrast = normalise(plan.normalise, extract(image / unit, size, stride))
    patches = view(params.model, vectors) * contrast + offset
    height, width, channels = image.shape
    return unit * average(patches, (height, width, channels), size, stride)


def atoms(view: Callable, plan: Plan, layers: dict[str, Scaled]) -> Float[Array, "k size size c"]:
    """Returns the atoms of the model as small images."""
    rows, size = view(only(layers).model), plan.patches.size
    return rows.reshape(rows.shape[0], size, size, -1)


VIEWS = {"reconstruct": reconstruct, "atoms": atoms}
