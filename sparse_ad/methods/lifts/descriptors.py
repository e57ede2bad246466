"""The lift from a description of an image to a detector: is it described as normal ones are?

Descriptions: `mean_colour`, `entropy`, `statistics` of each channel.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.batching import for_each
from sparse_ad.data.decode import LUMA
from sparse_ad.errors import require
from sparse_ad.methods.moments import (
    Moments,
    Whitening,
    add_vectors,
    begin_moments,
    distance,
    whiten,
)
from sparse_ad.patches import resize_map
from sparse_ad.sparse.problems import product
from sparse_ad.types import PIXELS, Features, Key, Maps, Method, Scores

BINS = 64  # grey levels that the entropy tells apart
FLOOR = 0.01  # activations below this count as none; those of the networks are around 1


class Description(NamedTuple):
    """What is said of an image."""

    whole: Float[Array, " d"]
    places: Float[Array, "h w e"]


class Fitting(NamedTuple):
    """How training images are described."""

    whole: Moments  # of all layers together
    places: dict[str, Moments]  # of each layer


class Fitted(NamedTuple):
    """What scoring needs."""

    whole: Whitening
    places: dict[str, Whitening]


def described(describe: Callable, config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector of images of `shape` by the Gaussian of their descriptions.

        score = (v - m)^T (C + whitening tr(C)/d I)^-1 (v - m) / d

    v holds the `whole` of all layers, one after the other; m and C are the mean and covariance of
    the v of training images. The map says the same of the position alone, by all positions of
    training images, summed over layers. Nothing is held but moments; nothing is drawn at random.

    Reads whitening. Errors: UserError that names the field, its value and the remedy.
    """
    remedy = "must be positive: what never varied would have no distance"
    require(config.whitening > 0, "method.whitening", config.whitening, remedy)

    def look(maps: dict[str, Float[Array, "h w c"]]) -> tuple[Array, dict[str, Array]]:
        said = {name: describe(layer) for name, layer in maps.items()}
        whole = jnp.concatenate([each.whole for each in said.values()])
        return whole, {name: each.places for name, each in said.items()}

    def init(key: Key, maps: Maps) -> Fitting:
        one = {
            name: jax.ShapeDtypeStruct(each.shape[1:], each.dtype) for name, each in maps.items()
        }
        begin = lambda each: begin_moments(each.shape[-1])  # noqa: E731
        whole, places = jax.eval_shape(look, one)
        return Fitting(begin(whole), {name: begin(each) for name, each in places.items()})

    def update(key: Key, state: Fitting, maps: Maps):
        whole, places = jax.vmap(look)(maps)
        rows = {name: each.reshape(-1, each.shape[-1]) for name, each in places.items()}
        state = Fitting(
            add_vectors(state.whole, whole),
            {name: add_vectors(state.places[name], rows[name]) for name in rows},
        )
        return state, {"variance": jnp.trace(state.whole.covariance)}

    def finish(key: Key, state: Fitting) -> Fitted:
        end = partial(whiten, shrinkage=config.whitening)
        return Fitted(end(state.whole), {name: end(each) for name, each in state.places.items()})

    def score_one(params: Fitted, maps: dict[str, Float[Array, "h w c"]]) -> Scores:
        whole, places = look(maps)
        layers = (distance(params.places[name], each) for name, each in places.items())
        anomaly_map = sum(resize_map(each, shape, features.border) for each in layers)
        return Scores(distance(params.whole, whole), anomaly_map, {})

    def score(params: Fitted, maps: Maps) -> Scores:
        return for_each(partial(score_one, params), maps)

    return Method(init, update, finish, score, features)


def mean_colour(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector by the mean of all pixels. Errors: as `described`, and of features."""
    require_pixels("mean_colour", features)
    describe = lambda image: Description(jnp.mean(image, axis=(0, 1)), image)  # noqa: E731
    return described(describe, config, features, shape)


def entropy(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector by the entropy of the grey histogram, in bits.

        H = - sum_b p_b log2 p_b = mean over pixels of -log2 p_(bin of the pixel)

    The terms of that mean are what is said of the positions. An entropy is as suspicious below that
    of training images as above: a defect may be flatter than what it covers, or busier.

    Errors: as `described`, and of features.
    """
    require_pixels("entropy", features)
    return described(describe_entropy, config, features, shape)


def pooled_features(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector by mean, deviation and maximum of each channel of each layer.

    Reads logarithm: channels as sign(a) log(1 + |a| / FLOOR). Statistics of positive values have a
    long tail to one side, which a Gaussian has not; their logarithms have less of it.

    Source: Rippel, Mertens & Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep
    Features for Anomaly Detection", ICPR 2020: a Gaussian of pooled features of a frozen network.
    Differs: theirs are means alone, of deep layers, without the logarithm.
    Errors: as `described`.
    """
    return described(partial(statistics, config.logarithm), config, features, shape)


def statistics(logarithm: bool, layer: Float[Array, "h w c"]) -> Description:
    """Returns mean, deviation and maximum of each channel; the places say what the layer does."""
    both = jnp.mean(layer, axis=(0, 1)), jnp.std(layer, axis=(0, 1))
    whole = jnp.concatenate([*both, jnp.max(layer, axis=(0, 1))])
    change = partial(jax.tree.map, signed_log) if logarithm else lambda description: description
    return change(Description(whole, layer))


def signed_log(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns sign(a) log(1 + |a| / FLOOR): nearly linear below FLOOR, and defined everywhere."""
    return jnp.sign(values) * jnp.log1p(jnp.abs(values) / FLOOR)


def describe_entropy(image: Float[Array, "h w c"]) -> Description:
    """Returns the entropy of the grey histogram, and the surprise of each pixel: its terms."""
    grey = product(image, LUMA) if image.shape[-1] == len(LUMA) else image[..., 0]
    bins = jnp.clip(jnp.floor(grey * BINS).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.bincount(bins.ravel(), length=BINS)  # whole numbers: added in any order
    surprise = -jnp.log2(jnp.maximum(counts, 1) / bins.size)
    share = counts / bins.size
    return Description(jnp.sum(share * surprise)[None], surprise[bins][..., None])


def require_pixels(name: str, features: Features) -> None:
    """Raises UserError unless features are the pixels."""
    remedy = f"method.name = {name!r} looks at pixels; set it 'pixels'"
    require(features.identity == PIXELS.identity, "features.backbone", features.identity, remedy)
