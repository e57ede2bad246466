"""The scoring function of a detector, compiled, for batches of images."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Array, Float

from sparse_ad.batching import batched
from sparse_ad.devices import by_image
from sparse_ad.types import Features, Method, Params, Scores

Score = Callable[[Params, Float[np.ndarray, "n h w c"]], Scores]
"""The compiled scoring function of a detector: of n images, features included."""


@lru_cache(maxsize=8)  # detectors, which hold the weights of their networks
def compile_score(method: Method) -> Score:
    """Returns the compiled `score(params, images)`: features first, then the detector."""
    return partial(score_maps, by_image(batched(method.score, method.together)), method.features)


def score_maps(
    score: Callable,
    features: Features,
    params: Params,
    images: Float[Array | np.ndarray, "n h w c"],
) -> Scores:
    """Returns the scores of images, by the compiled scores of their maps."""
    return score(params, features.extract(images))
