"""Principal components of small images: the residual of an image is its anomaly map."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.methods.lifts.grid import one_map, score_grid
from sparse_ad.methods.lifts.maps import Shape, map_shapes, only
from sparse_ad.methods.moments import Moments, add_vectors, begin_moments
from sparse_ad.patches import Pool, pool, resize_map
from sparse_ad.sparse.coder import linear_coder
from sparse_ad.sparse.problems import product
from sparse_ad.types import (
    NO_DIAGNOSTICS,
    Diagnostics,
    Features,
    Key,
    Maps,
    Method,
    Views,
)

MOST_VALUES = 16_384  # of a small image: their covariance takes 1 GB


@dataclass(frozen=True)
class Pca:
    """What k principal components of small images leave of an image: a linear auto-encoder.

        x = image, resized to side x side;   y = x - mean;   errors = (y - y V^T V)^2

    summed over channels; rows of V are the components. The image score is the mean of all errors,
    the anomaly map the errors, resized. The state is the covariance of all training images: for
    32x32 pixels in colour, 38 MB, however many images. Other features than pixels count as images.

    Source: ours.
    """

    side: int = 32  # images are resized to side x side pixels
    components: int = 100  # principal components that are kept

    def __post_init__(self):
        require(self.side >= 1, "side", self.side, "must be at least 1")
        require(self.components >= 1, "components", self.components, "must be at least 1")

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`.

        Raises: FieldError where the small images have too few values; UserError for several maps.
        """
        height, width, channels = only(map_shapes(features, shape))
        length = self.side**2 * channels
        remedy = f"small images have only {length} values: side^2 times channels"
        require(self.components < length, "components", self.components, remedy)
        remedy = f"covers {length} values with {channels} channels: at most {MOST_VALUES} can be"
        require(length <= MOST_VALUES, "side", self.side, remedy)
        grid = one_map(
            errors=partial(errors, self.side),
            pool=partial(pool, Pool("top_mean", fraction=1.0)),
            to_map=partial(enlarge, (height, width), shape[:2], features.border),
        )
        return Method(
            init=partial(init, length),
            update=partial(update, self.side),
            finish=partial(finish, self.components),
            score=partial(score_grid, grid),
            features=features,
            views=Views(reconstruct=partial(reconstruct, self.side)) if features.raw else Views(),
            grid=grid,
        )


class Subspace(NamedTuple):
    """What scoring needs."""

    mean: Float[Array, " d"]
    axes: Float[Array, "k d"]  # orthonormal, the one of largest variance first


def shrink(side: int, image: Float[Array, "h w c"]) -> Float[Array, "side side c"]:
    """Returns the small image."""
    return jax.image.resize(image, (side, side, image.shape[-1]), "linear")


def init(length: int, key: Key, maps: Maps) -> Moments:
    """Returns the moments of no images."""
    return begin_moments(length, only(maps).dtype)


def update(
    side: int, key: Key, state: Moments, maps: Maps
) -> tuple[Moments, dict[str, Float[Array, ""]]]:
    """Returns the moments with those of a batch of images, and what to log."""
    small = jax.vmap(partial(shrink, side))(only(maps))
    state = add_vectors(state, small.reshape(small.shape[0], -1))
    return state, {"variance": jnp.trace(state.covariance)}


def finish(components: int, key: Key, state: Moments) -> Subspace:
    """Returns the mean and the axes of largest variance."""
    _, axes = jnp.linalg.eigh(state.covariance)
    return Subspace(state.mean, axes[:, ::-1][:, :components].T)


def project(side: int, params: Subspace, image: Float[Array, "h w c"]) -> tuple[Array, Array]:
    """Returns the small image and its projection on the components: [side side c] each."""
    small = shrink(side, image)
    code = linear_coder(params.axes, (small.ravel() - params.mean)[None]).code[0]
    return small, (params.mean + product(code, params.axes)).reshape(small.shape)


def errors(
    side: int, params: Subspace, maps: Maps
) -> tuple[Float[Array, "side side"], Diagnostics]:
    """Returns the squared residual of each pixel of the small image, summed over channels."""
    small, projection = project(side, params, only(maps))
    return jnp.sum((small - projection) ** 2, axis=-1), NO_DIAGNOSTICS


def enlarge(
    map_shape: tuple[int, int],
    shape: tuple[int, int],
    border: int,
    errors: Float[Array, "side side"],
) -> Float[Array, "h w"]:
    """Returns the errors at the size of the map they are of, and then of the image."""
    return resize_map(jax.image.resize(errors, map_shape, "linear"), shape, border)


def reconstruct(side: int, params: Subspace, maps: Maps) -> Float[Array, "h w c"]:
    """Returns the projection of one image, at the size of the image."""
    image = only(maps)
    return jax.image.resize(project(side, params, image)[1], image.shape, "linear")
