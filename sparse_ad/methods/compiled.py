"""The scoring function of a detector, compiled, for batches of images."""

import logging
from collections.abc import Callable
from functools import cache, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sparse_ad.batching import batched
from sparse_ad.devices import by_image
from sparse_ad.methods.lifts.grid import score_kept
from sparse_ad.types import Method, Params, Scores

Score = Callable[..., Scores]
"""The compiled scoring function of a detector, features included.

(params, images [n h w c]) -> scores; or (params, images, ignored [n h w]) where pixels are ignored.
"""

log = logging.getLogger(__name__)


@lru_cache(maxsize=8)  # detectors, which hold the weights of their networks
def compile_score(method: Method) -> Score:
    """Returns the compiled score: features first, then the detector."""
    plain = by_image(batched(method.score, method.together))
    kept = by_image(batched(partial(score_kept, method), method.together))
    return partial(score_images, method, plain, kept)


def score_images(
    method: Method,
    plain: Callable,
    kept: Callable,
    params: Params,
    images: Float[Array | np.ndarray, "n h w c"],
    ignored: Bool[np.ndarray, "n h w"] | None = None,
) -> Scores:
    """Returns the scores of images, by the compiled scores of their maps.

    Images with ignored pixels run through a program of their own, `kept`. The others run through
    `plain`, also in a batch with such images: a score does not depend on the rest of the batch.
    """
    maps = method.features.extract(images)
    if ignored is None:
        return plain(params, maps)
    if method.grid is None:
        warn_filled()
    some = np.asarray(ignored.any(axis=(1, 2)))
    apart = kept(params, (maps, ignored))
    if some.all():
        return apart
    return jax.tree.map(partial(choose, some), apart, plain(params, maps))


def choose(
    first: Bool[np.ndarray, " n"], one: Float[Array, "n *s"], other: Float[Array, "n *s"]
) -> Float[Array, "n *s"]:
    """Returns the rows of `one` where `first` is True, and those of `other` elsewhere."""
    return jnp.where(first.reshape(-1, *(1,) * (one.ndim - 1)), one, other)


@cache
def warn_filled() -> None:
    """Warns, once in a process, that ignored pixels are not left out of image scores."""
    log.warning(
        "this detector has no grid of errors: ignored pixels are filled in by the nearest others, "
        "which then count for the image score"
    )
