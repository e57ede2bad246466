"""The scoring function of a detector, compiled, for batches of images."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sparse_ad.batching import batched
from sparse_ad.devices import by_image
from sparse_ad.methods.lifts.grid import score_kept
from sparse_ad.sparse.coder import choose_rows
from sparse_ad.types import Method, Params, Scores

Score = Callable[..., Scores]
"""The compiled scoring function of a detector, features included.

(params, images [n h w c]) -> scores; or (params, images, ignored [n h w]) where pixels are ignored.
"""


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
    has_ignored = jnp.asarray(ignored.any(axis=(1, 2)))
    masked_scores = kept(params, (maps, ignored))
    if has_ignored.all():
        return masked_scores
    return jax.tree.map(partial(choose_rows, has_ignored), masked_scores, plain(params, maps))
