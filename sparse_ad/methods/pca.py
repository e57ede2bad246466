"""Principal components of small images: what they leave of an image is its anomaly map."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.batching import for_each
from sparse_ad.errors import require
from sparse_ad.methods.lifts.patchwise import only
from sparse_ad.methods.moments import Moments, add_vectors, begin_moments
from sparse_ad.patches import resize_map
from sparse_ad.sparse.problems import product
from sparse_ad.types import PIXELS, Features, Key, Maps, Method, Scores


class Subspace(NamedTuple):
    """What scoring needs."""

    mean: Float[Array, " d"]
    axes: Float[Array, "k d"]  # orthonormal, the one of largest variance first


def pca(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector for images of `shape` whose score is what k components leave.

        x = image, brought to side x side;   y = x - mean
        map = (y - y V V^T)^2, summed over channels;   score = its mean

    Reads side, and components (k). The state is the covariance of all training images: for 32x32
    pixels in colour, 38 MB, however many there are. Features other than pixels are taken as images.

    Errors: UserError that names the field, its value and the remedy.
    """
    require(config.side >= 1, "method.side", config.side, "must be at least 1")
    require(config.components >= 1, "method.components", config.components, "must be at least 1")

    def shrink(image: Float[Array, "h w c"]) -> Float[Array, "side side c"]:
        return jax.image.resize(image, (config.side, config.side, image.shape[-1]), "linear")

    def vectors(maps: Maps) -> Float[Array, "n d"]:
        small = jax.vmap(shrink)(only(maps))
        return small.reshape(small.shape[0], -1)

    def init(key: Key, maps: Maps) -> Moments:
        length = config.side**2 * only(maps).shape[-1]
        remedy = f"images have only {length} values (method.side^2 times channels)"
        require(config.components < length, "method.components", config.components, remedy)
        return begin_moments(length)

    def update(key: Key, state: Moments, maps: Maps):
        state = add_vectors(state, vectors(maps))
        return state, {"variance": jnp.trace(state.covariance)}

    def finish(key: Key, state: Moments) -> Subspace:
        _, axes = jnp.linalg.eigh(state.covariance)
        return Subspace(state.mean, axes[:, ::-1][:, : config.components].T)

    def project(params: Subspace, image: Float[Array, "h w c"]) -> tuple[Array, Array]:
        """Returns the small image and what the components make of it."""
        small = shrink(image)
        code = product(params.axes, small.ravel() - params.mean)
        return small, (params.mean + product(code, params.axes)).reshape(small.shape)

    def score_one(params: Subspace, image: Float[Array, "h w c"]) -> Scores:
        small, found = project(params, image)
        left = jnp.sum((small - found) ** 2, axis=-1)
        return Scores(jnp.mean(left), resize_map(left, shape), {})

    def reconstruct_one(params: Subspace, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return jax.image.resize(project(params, image)[1], image.shape, "linear")

    def one_by_one(function):
        return lambda params, maps: for_each(lambda image: function(params, image), only(maps))

    shown = one_by_one(reconstruct_one) if features is PIXELS else None
    return Method(init, update, finish, one_by_one(score_one), features, reconstruct=shown)
