"""A detector simple enough to be checked by hand, and images for it."""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np

from sparse_ad.errors import require
from sparse_ad.methods.lifts.grid import one_map, score_grid
from sparse_ad.methods.lifts.maps import only
from sparse_ad.patches import Pool, pool
from sparse_ad.types import (
    NO_DIAGNOSTICS,
    Diagnostics,
    Example,
    Method,
    Scores,
    Splits,
    Views,
)

SIZE = 24


def mean_image() -> Method:
    """The image score is the largest difference from the mean image, the map all of them."""

    def score(params, maps):
        image = maps["pixels"]
        anomaly_map = jnp.abs(image - params["mean"]).mean(-1)
        info = Diagnostics({"brightness": image.mean()}, {"pixel": image.max()})
        return Scores(anomaly_map.max(), anomaly_map, info)

    views = Views(
        reconstruct=lambda params, maps: params["mean"],
        atoms=lambda params: jnp.stack([params["mean"], 1 - params["mean"]]),
    )
    return Method(
        init=lambda key, maps: maps["pixels"].mean(0),
        update=lambda key, state, maps: (state, {}),
        finish=lambda key, state: {"mean": state},
        score=score,
        views=views,
    )


@dataclass(frozen=True)
class ToyDetector:
    """A whole detector, as one would be added: squared differences from the mean image."""

    rate: float = 0.5  # weight of a new batch in the mean image
    pool: Pool = Pool("top_mean", fraction=0.05)

    def __post_init__(self):
        require(0 < self.rate <= 1, "rate", self.rate, "must be in (0, 1]")

    def build(self, features, shape) -> Method:
        grid = one_map(toy_errors, partial(pool, self.pool), lambda errors: errors)
        return Method(
            init=lambda key, maps: only(maps).mean(0),
            update=partial(toy_update, self.rate),
            finish=lambda key, state: state,
            score=partial(score_grid, grid),
            features=features,
            views=Views(reconstruct=lambda params, maps: params),
            grid=grid,
        )


def toy_update(rate, key, state, maps):
    state = (1 - rate) * state + rate * only(maps).mean(0)
    return state, {"mean": state.mean()}


def toy_errors(params, maps):
    return ((only(maps) - params) ** 2).mean(-1), NO_DIAGNOSTICS


def examples(count, label, name, seed, size=SIZE, strength=60, masks=True):
    """Grey noise; anomalous images have a brighter square with its mask."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        image = rng.normal(120, 10, (size, size)).clip(0, 255)
        mask = np.zeros((size, size), np.uint8)
        if label:
            row, column = rng.integers(2, size - 8, 2)
            mask[row : row + 6, column : column + 6] = 255
            image = (image + strength * (mask > 0)).clip(0, 255)
        path = f"{name}/{index:03d}.png"
        known = mask if label and masks else None
        made.append(Example(image.astype(np.uint8), label, name, known, path, path))
    return tuple(made)


def broken(example):
    return example._replace(image=b"not an image")


def make_splits():
    cut, hole = examples(7, 1, "cut", 4), examples(4, 1, "hole", 5, strength=25)
    test = examples(10, 0, "good", 3) + cut + hole
    return Splits(examples(8, 0, "good", 1), examples(19, 0, "good", 2), test)


def fit(splits):
    images = np.stack([each.image for each in splits.train])[..., None] / np.float32(255)
    return {"mean": jnp.asarray(images.mean(0))}
