"""MLF-SC: a small dictionary for every channel of the maps of a network, all channels at once.

Source: Imamura et al., MLF-SC, section 3.2; each variant's config says where it differs.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.batching import for_each
from sparse_ad.devices import sum_by_image
from sparse_ad.errors import require, require_choice
from sparse_ad.patches import error_map, grid, pooling, resize_map, top_rows
from sparse_ad.sparse.channels import (
    ChannelStatistics,
    begin_channels,
    code_map,
    learn_channels,
    windows,
)
from sparse_ad.sparse.solvers.gram import learning_solver, tiny_solver
from sparse_ad.types import Explanation, Key, Maps, Method, Scores

STANDARDISE = ("none", "image", "training")
SCORE_OF = ("channels", "all_patches", "positions")
AXES = ("channel", "patch")
FLAT = 1e-4  # of a channel's largest value: less deviation than this is rounding


class Fitting(NamedTuple):
    """What is known of one layer while fitting."""

    mean: Float[Array, " c"]
    deviation: Float[Array, " c"]
    learned: ChannelStatistics


class Fitted(NamedTuple):
    """What scoring needs of one layer."""

    mean: Float[Array, " c"]
    deviation: Float[Array, " c"]
    dictionary: Float[Array, "k s s c"]
    unit: Float[Array, " c"]  # what patch errors of a channel are measured in


class LayerErrors(NamedTuple):
    """The patch errors of one image at one layer."""

    errors: Float[Array, "i j c"]
    gap: Float[Array, "i j c"]


def mlf_sc(config, features, shape: tuple[int, int]) -> Method:
    """Returns the detector for images of `shape`.

        layer [h w c], standardised -> patches of each channel -> codes -> errors [i j c] -> score

    Reads patch_size, stride, atoms, the fields of `tiny_solver` and `pooling`, and
    standardise: "none"; "image": each channel of each image to mean 0, deviation 1; "training":
    by mean and deviation of the first batch.
    dictionary_axis: "channel": dictionary c learns from all patches of channel c; "patch": from
    all channels of patch c of each batch, which is how the paper's code indexed until April 2020.
    score_of: "channels": the sum over channels of the `top` largest patch errors; "all_patches":
    the `top` largest of all; "positions": errors summed over channels, then pooled.
    weight_channels: errors in units of the channel's mean error on training images.

    Errors: UserError that names the field, its value and the remedy.
    """
    require_choice("method.standardise", config.standardise, STANDARDISE)
    require_choice("method.score_of", config.score_of, SCORE_OF)
    require_choice("method.dictionary_axis", config.dictionary_axis, AXES)
    grid(config.patch_size, config.patch_size, config.stride)  # both at least 1
    size, stride = config.patch_size, config.stride
    solve, rough, pool = tiny_solver(config), learning_solver(config), pooling(config)
    by_patch = config.dictionary_axis == "patch"

    def standardise(maps: Array, mean: Array, deviation: Array) -> Array:
        if config.standardise == "image":
            mean, deviation = moments(maps, axes=(-3, -2))
        return maps if config.standardise == "none" else (maps - mean) / deviation

    def measured(maps: Array) -> tuple[Array, Array]:
        if config.standardise == "training":
            return tuple(each.ravel() for each in moments(maps, axes=(0, 1, 2)))
        return jnp.zeros(maps.shape[-1:]), jnp.ones(maps.shape[-1:])

    def training(maps: Maps) -> Maps:
        return swap_axes(maps, size, stride) if by_patch else maps

    def init(key: Key, maps: Maps) -> dict[str, Fitting]:
        units = {name: measured(each) for name, each in maps.items()}
        ready = training({name: standardise(maps[name], *units[name]) for name in maps})
        keys = keyed(key, ready)
        begin = partial(begin_channels, size=size, stride=stride, atoms=config.atoms)
        return {name: Fitting(*units[name], begin(keys[name], ready[name])) for name in ready}

    def update(key: Key, state: dict[str, Fitting], maps: Maps):
        ready = training(
            {
                name: standardise(each, state[name].mean, state[name].deviation)
                for name, each in maps.items()
            }
        )
        learn = partial(learn_channels, stride=stride, solve=rough, total=sum_by_image)
        keys, learned, info = keyed(key, ready), {}, {}
        for name, each in ready.items():
            taught, told = learn(keys[name], state[name].learned, each)
            learned[name] = state[name]._replace(learned=taught)
            info |= {f"{title}_{name}": value for title, value in told.items()}
        return learned, info

    def finish(key: Key, state: dict[str, Fitting]) -> dict[str, Fitted]:
        def end(layer: Fitting) -> Fitted:
            mean = layer.learned.error / jnp.maximum(layer.learned.weight, 1.0)
            usable = config.weight_channels & (mean > 0.0)
            unit = jnp.where(usable, jnp.maximum(mean, 1e-3 * jnp.max(mean)), 1.0)
            return Fitted(layer.mean, layer.deviation, layer.learned.dictionary, unit)

        return {name: end(layer) for name, layer in state.items()}

    def errors_of(fitted: Fitted, maps: Float[Array, "h w c"]) -> LayerErrors:
        ready = standardise(maps, fitted.mean, fitted.deviation)
        coded = code_map(fitted.dictionary, ready, stride, solve)
        return LayerErrors(coded.error / fitted.unit, coded.gap)

    def contributions(errors: Float[Array, "i j c"]) -> Float[Array, " c"]:
        """What each channel adds to a score that sums over channels."""
        return top_rows(errors.reshape(-1, errors.shape[-1]), config.top).sum(0)

    def by_layer(layers: dict[str, LayerErrors]) -> dict[str, Array]:
        """The score that each layer would give by itself."""
        pooled = {
            "positions": lambda errors: pool(errors.sum(-1).ravel()),
            "channels": lambda errors: contributions(errors).sum(),
            "all_patches": lambda errors: largest(errors, config.top).sum(),
        }[config.score_of]
        return {name: pooled(each.errors) for name, each in layers.items()}

    def score_one(params: dict[str, Fitted], maps: dict[str, Array]) -> Scores:
        layers = {name: errors_of(params[name], each) for name, each in maps.items()}
        scores = by_layer(layers)
        image = sum(scores.values())
        if config.score_of == "all_patches":
            every = [largest(each.errors, config.top) for each in layers.values()]
            image = largest(jnp.concatenate(every)[:, None], config.top).sum()
        anomaly_map = sum(map_of(layers[name].errors, maps[name].shape) for name in maps)
        info = {f"score_{name}": value for name, value in scores.items()}
        return Scores(image, anomaly_map, info | gaps(layers))

    def map_of(errors: Float[Array, "i j c"], grid_shape) -> Float[Array, "h w"]:
        at_layer = error_map(errors.sum(-1).ravel(), grid_shape[:2], size, stride)
        return resize_map(at_layer, shape, features.border)

    def explain_one(params, maps) -> dict[str, Explanation]:
        layers = {name: errors_of(params[name], each) for name, each in maps.items()}
        return {
            name: Explanation(
                each.errors.sum(-1).ravel(),
                map_of(each.errors, maps[name].shape),
                contributions(each.errors),
            )
            for name, each in layers.items()
        }

    def gaps(layers: dict[str, LayerErrors]) -> dict[str, Array]:
        if config.solver != "lasso":
            return {}
        every = jnp.concatenate([each.gap.ravel() for each in layers.values()])
        settled = jnp.mean((every <= config.tolerance).astype(every.dtype))
        return {"converged": settled, "largest_gap": jnp.max(every)}

    def atoms(params: dict[str, Fitted]) -> Float[Array, "k h w c"]:
        every = [jnp.moveaxis(each.dictionary, -1, 0) for each in params.values()]
        return jnp.concatenate([each.reshape(-1, size, size, 1) for each in every])

    def one_by_one(function):
        return lambda params, maps: for_each(partial(function, params), maps)

    return Method(
        init,
        update,
        finish,
        one_by_one(score_one),
        features=features,
        explain=one_by_one(explain_one),
        atoms=atoms,
    )


def keyed(key: Key, maps: Maps) -> dict[str, Key]:
    """Returns a key for each layer."""
    return dict(zip(maps, jax.random.split(key, len(maps)), strict=True))


def moments(maps: Float[Array, "... h w c"], axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns mean and deviation along axes; a channel without contrast has a deviation of 1."""
    mean = jnp.mean(maps, axis=axes, keepdims=True)
    deviation = jnp.sqrt(jnp.mean((maps - mean) ** 2, axis=axes, keepdims=True))
    most = jnp.max(jnp.abs(maps), axis=axes, keepdims=True)
    return mean, jnp.where(deviation > FLAT * most, deviation, 1.0)


def largest(errors: Float[Array, "... c"], count: int) -> Float[Array, " count"]:
    """Returns the largest of all errors: of each channel first, which is quick, then of those."""
    each = top_rows(errors.reshape(-1, errors.shape[-1]), count).reshape(-1, 1)
    return top_rows(each, count)[:, 0]


def swap_axes(maps: Maps, size: int, stride: int) -> Maps:
    """Returns maps whose channel c holds patch c of the batch, one "image" for each channel of it.

    With C channels in all layers together, each result is [C size size c].
    Errors: UserError where the layers' maps differ in size.
    """
    shapes = {each.shape[:3] for each in maps.values()}
    remedy = "'patch' needs layers of one size; set features.shrink so that they agree"
    require(len(shapes) == 1, "method.dictionary_axis", "patch", remedy)
    stacked = jnp.concatenate(list(maps.values()), axis=-1)
    rows, columns = windows(stacked.shape[1:], size, stride)
    total = stacked.shape[0] * rows * columns

    def cut(place):
        image, rest = place // (rows * columns), place % (rows * columns)
        start = (image, rest // columns * stride, rest % columns * stride, 0)
        return jax.lax.dynamic_slice(stacked, start, (1, size, size, stacked.shape[-1]))[0]

    swapped, first = {}, 0
    for name, each in maps.items():
        places = (first + jnp.arange(each.shape[-1])) % total
        swapped[name] = jnp.transpose(jax.vmap(cut)(places), (3, 1, 2, 0))  # [c s s C] -> [C s s c]
        first += each.shape[-1]
    return swapped
