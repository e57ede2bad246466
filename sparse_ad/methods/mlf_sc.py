"""MLF-SC: a small dictionary for every channel of the maps of a network, all channels at once.

Source: Imamura et al., "MLF-SC: Incorporating multi-layer features to sparse coding for anomaly
detection", 2021, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.devices import sum_by_image
from sparse_ad.errors import require, require_choice, within
from sparse_ad.methods.layer_scores import SCORES, channel_scores
from sparse_ad.methods.lifts.grid import score_grid, total
from sparse_ad.methods.lifts.maps import Shape, map_shapes
from sparse_ad.methods.standardisation import STANDARDISE, MeanStd
from sparse_ad.options import choice
from sparse_ad.patches import ChannelPatches, Pool, grid, image_map, pool
from sparse_ad.sparse.channels import (
    CHANNEL_CODERS,
    MOST_ATOMS,
    ChannelCoder,
    ChannelLasso,
    begin_channels,
    channel_coder,
    learn_channels,
)
from sparse_ad.sparse.dictionary import Statistics
from sparse_ad.sparse.problems import Coder, Solution
from sparse_ad.types import (
    NO_DIAGNOSTICS,
    Counted,
    Diagnostics,
    ErrorGrid,
    Errors,
    Explanation,
    Features,
    Key,
    Maps,
    Method,
    Scores,
    Views,
)


@dataclass(frozen=True)
class MlfSc:
    """Maps of a network whose channels a dictionary each, learned from normal images, cannot code.

        layer [h w c], standardised -> patches of each channel -> sparse codes -> errors [i j c]
        error of a patch x of channel c = ||x - z D_c||^2

    score_of says how the errors of an image become its score. "channels": the sum over channels of
    the `pool.top` largest errors of each; "all_patches": the `pool.top` largest of all errors;
    "positions": errors are summed over channels, pooled, and added up over layers. The anomaly map
    has the errors summed over channels and layers.

    Source: Imamura et al., section 3.2; the code published with it uses "channels" and "image".
    Differs: dictionaries are learned online, from one batch of images after the other.
    """

    patches: ChannelPatches = ChannelPatches(size=8, stride=2)
    coder: ChannelCoder = choice(CHANNEL_CODERS, ChannelLasso())
    atoms: int = 5  # of the dictionary of each channel, at most 24
    # channels to mean 0, std 1 first: none | image: each by itself | training: by the first batch
    standardise: str = "none"
    score_of: str = "channels"  # channels | all_patches | positions
    weight_channels: bool = False  # errors in units of their channel's mean error in training
    pool: Pool = Pool()  # of positions; the others use `top` alone

    def __post_init__(self):
        remedy = (
            f"give 1 to {MOST_ATOMS}, for each channel has a dictionary of its own; "
            "method.name = sparse_coding has one large dictionary"
        )
        require(1 <= self.atoms <= MOST_ATOMS, "atoms", self.atoms, remedy)
        require_choice("standardise", self.standardise, STANDARDISE)
        require_choice("score_of", self.score_of, SCORES)
        with within("coder"):
            self.coder.check_atoms(self.atoms)
        read = SCORES[self.score_of].sums_channels or self.pool.rule == Pool().rule
        with within("pool"):
            require(read, "rule", self.pool.rule, "has no meaning but with score_of = positions")

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`.

        Raises: FieldError for patches that are larger than a map.
        """
        return mlf_sc(self, features, shape)


class Plan(NamedTuple):
    """The static part of the detector."""

    options: MlfSc
    coder: Coder
    learning_coder: Coder  # as exact as learning needs it
    rearrange: Callable[[Maps], Maps]  # standardised training maps -> those that are learned from
    shapes: dict[str, Shape]  # of the maps
    shape: tuple[int, int]  # of the images
    border: int


class Fitting(NamedTuple):
    """The state of one layer."""

    training: MeanStd  # of the maps of training images
    learned: Statistics


class Fitted(NamedTuple):
    """What scoring needs of one layer."""

    training: MeanStd
    dictionary: Float[Array, "k s s c"]
    unit: Float[Array, " c"]  # that the errors of a channel are measured in


def same(maps: Maps) -> Maps:
    """Returns the maps."""
    return maps


def mlf_sc(
    options: MlfSc,
    features: Features,
    shape: Shape,
    rearrange: Callable[[Maps], Maps] = same,
) -> Method:
    """Returns the detector; dictionaries learn from `rearrange(standardised maps)`."""
    shapes, stride = map_shapes(features, shape), options.patches.stride
    with within("patches"):
        for height, width, _ in shapes.values():
            for side in (height, width):
                grid(side, options.patches.size, stride)
    coders = (
        channel_coder(options.coder, stride),
        channel_coder(options.coder.for_learning(), stride),
    )
    plan = Plan(options, *coders, rearrange, shapes, shape[:2], features.border)
    errors, one_layer = error_grid(plan), len(shapes) == 1
    return Method(
        init=partial(init, plan),
        update=partial(update, plan),
        finish=partial(finish, options.weight_channels),
        score=partial(score_grid, errors) if errors and one_layer else partial(score, plan),
        features=features,
        views=Views(atoms=atoms, explain=partial(explain, plan)),
        grid=errors,
    )


def standardise(options: MlfSc, training: dict[str, MeanStd], maps: Maps) -> Maps:
    """Returns the maps as they are coded, given mean and std of training images, by layer."""
    apply = STANDARDISE[options.standardise].apply
    return {name: apply(training[name], layer) for name, layer in maps.items()}


def training_of(layers: dict[str, Fitting] | dict[str, Fitted]) -> dict[str, MeanStd]:
    """Returns mean and std of training images, by layer."""
    return {name: layer.training for name, layer in layers.items()}


def layer_keys(key: Key, maps: Maps) -> dict[str, Key]:
    """Returns a key for each layer."""
    return dict(zip(maps, jax.random.split(key, len(maps)), strict=True))


def init(plan: Plan, key: Key, maps: Maps) -> dict[str, Fitting]:
    """Returns the state before the first step: dictionaries of patches."""
    measure = STANDARDISE[plan.options.standardise].measure
    training = {name: measure(layer) for name, layer in maps.items()}
    ready = plan.rearrange(standardise(plan.options, training, maps))
    keys, patches = layer_keys(key, ready), plan.options.patches
    begin = partial(
        begin_channels, size=patches.size, stride=patches.stride, atoms=plan.options.atoms
    )
    return {
        name: Fitting(training[name], begin(keys[name], layer)) for name, layer in ready.items()
    }


def update(
    plan: Plan, key: Key, state: dict[str, Fitting], maps: Maps
) -> tuple[dict[str, Fitting], dict[str, Float[Array, ""]]]:
    """Returns the dictionaries after a step on a batch of maps, and what to log of each layer."""
    ready = plan.rearrange(standardise(plan.options, training_of(state), maps))
    learn = partial(
        learn_channels,
        stride=plan.options.patches.stride,
        coder=plan.learning_coder,
        total=sum_by_image,
    )
    keys, layers, info = layer_keys(key, ready), {}, {}
    for name, layer in ready.items():
        learned, metrics = learn(keys[name], state[name].learned, layer)
        layers[name] = state[name]._replace(learned=learned)
        info |= {f"{metric}_{name}": value for metric, value in metrics.items()}
    return layers, info


def finish(weight_channels: bool, key: Key, state: dict[str, Fitting]) -> dict[str, Fitted]:
    """Returns the dictionaries, and the unit of each channel."""
    return {name: finish_layer(weight_channels, layer) for name, layer in state.items()}


def finish_layer(weight_channels: bool, layer: Fitting) -> Fitted:
    """Returns what scoring needs of a layer; units are at least 1e-3 of the largest."""
    mean = layer.learned.error / jnp.maximum(layer.learned.weight, 1.0)
    usable = weight_channels & (mean > 0.0)
    unit = jnp.where(usable, jnp.maximum(mean, 1e-3 * jnp.max(mean)), 1.0)
    return Fitted(layer.training, layer.learned.dictionary, unit)


def code_layers(plan: Plan, params: dict[str, Fitted], maps: Maps) -> dict[str, Solution]:
    """Returns the codes of one image, by layer; errors [i j c] are in units of their channel."""
    ready = standardise(plan.options, training_of(params), maps)
    codes = {name: plan.coder(params[name].dictionary, layer) for name, layer in ready.items()}
    return {
        name: code._replace(error=code.error / params[name].unit[None, None])
        for name, code in codes.items()
    }


def error_grid(plan: Plan) -> ErrorGrid | None:
    """Returns how errors summed over channels become scores, where these are what is pooled."""
    if not SCORES[plan.options.score_of].sums_channels:
        return None
    return ErrorGrid(
        partial(position_errors, plan), partial(pool_layers, plan), partial(draw_layers, plan)
    )


def position_errors(
    plan: Plan, params: dict[str, Fitted], maps: Maps
) -> tuple[dict[str, Float[Array, "_ _"]], Diagnostics]:
    """Returns the errors of each layer [i j], summed over channels."""
    codes = code_layers(plan, params, maps)
    return {name: code.error.sum(-1) for name, code in codes.items()}, diagnostics(plan, codes)


def pool_layers(plan: Plan, errors: Errors, counted: Counted | None = None) -> Float[Array, ""]:
    """Returns the sum over layers of their errors, pooled; NaN where none of a layer counts."""
    there = {name: None if counted is None else counted[name].ravel() for name in plan.shapes}
    return total(pool(plan.options.pool, errors[name].ravel(), there[name]) for name in there)


def draw_layers(plan: Plan, errors: Errors) -> Float[Array, "h w"]:
    """Returns the sum over layers of their anomaly maps."""
    return total(layer_map(plan, name, errors[name]) for name in plan.shapes)


def score(plan: Plan, params: dict[str, Fitted], maps: Maps) -> Scores:
    """Returns the scores of one image."""
    codes = code_layers(plan, params, maps)
    errors = {name: code.error for name, code in codes.items()}
    image, layers = SCORES[plan.options.score_of].score(plan.options.pool, errors)
    anomaly_map = total(layer_map(plan, name, layer.sum(-1)) for name, layer in errors.items())
    info = diagnostics(plan, codes)
    by_layer = {f"score_{name}": value for name, value in layers.items()}
    return Scores(image, anomaly_map, info._replace(mean=by_layer | info.mean))


def layer_map(plan: Plan, layer: str, errors: Float[Array, "i j"]) -> Float[Array, "h w"]:
    """Returns the errors of a layer as an anomaly map."""
    map_shape = plan.shapes[layer][:2]
    return image_map(errors, plan.options.patches, map_shape, plan.shape, plan.border)


def diagnostics(plan: Plan, codes: dict[str, Solution]) -> Diagnostics:
    """Returns how well the codes are known to be solved, where the solver says so."""
    if not plan.options.coder.certified:
        return NO_DIAGNOSTICS
    gaps = jnp.concatenate([code.gap.ravel() for code in codes.values()])
    converged = jnp.concatenate([code.converged.ravel() for code in codes.values()])
    return Diagnostics(
        {"converged": jnp.mean(converged.astype(gaps.dtype))}, {"gap": jnp.max(gaps)}
    )


def explain(plan: Plan, params: dict[str, Fitted], maps: Maps) -> dict[str, Explanation]:
    """Returns what each layer, and each of its channels, contributes."""
    errors = {name: code.error for name, code in code_layers(plan, params, maps).items()}
    return {
        name: Explanation(
            layer.sum(-1).ravel(),
            layer_map(plan, name, layer.sum(-1)),
            channel_scores(plan.options.pool, layer),
        )
        for name, layer in errors.items()
    }


def atoms(params: dict[str, Fitted]) -> Float[Array, "k s s 1"]:
    """Returns the atoms of all channels of all layers as small images."""
    layers = [jnp.moveaxis(layer.dictionary, -1, 0) for layer in params.values()]
    return jnp.concatenate([layer.reshape(-1, *layer.shape[2:], 1) for layer in layers])
