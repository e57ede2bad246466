"""Detectors on arrays in memory, without files: build, fit, score.

method = build(SparseCoding(atoms=64), shape=images.shape[1:])
params = fit(method, images, epochs=4)
scores = score(method, params, others)

There are no calibration images here: scores are raw errors, and there is no threshold.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from sparse_ad import methods
from sparse_ad.data.pipeline import training_order
from sparse_ad.devices import check_batch, everywhere, fit_batch, replicate
from sparse_ad.errors import UserError, require
from sparse_ad.features import Pixels
from sparse_ad.fitting.augmentation import Augmentation
from sparse_ad.fitting.setup import Fit, fit_keys
from sparse_ad.fitting.steps import batch_indices, compile_augment, maps_of
from sparse_ad.methods.compiled import compile_score
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.types import Method, Params, Scores


def build(
    options: Any, shape: tuple[int, ...], features: Any = Pixels(), tiles: Tiles = Tiles()
) -> Method:
    """Returns the detector that options describe, for images of `shape` (height, width, channels).

    Images in memory have one size, which is kept: nothing is resized.
    `options`: those of a detector, such as `SparseCoding()`. `features`: `Pixels()` or `Network()`.
    Raises: FieldError for options that do not go together or with the images.
    """
    require(len(shape) == 3, "shape", shape, "give (height, width, channels)")
    height, width, channels = shape
    whole = (height, width, channels)
    return methods.build(options, features.build(tiles.part(whole)[:2]), whole, tiles)


def fit(
    method: Method,
    images: Any,
    *,
    epochs: float | int = 4.0,
    batch_size: int = 16,
    seed: int = 0,
    augmentation: Augmentation = Augmentation(),
) -> Params:
    """Returns the parameters of a detector fitted to normal images: floats [n h w c] in 0..1.

    Sees the same batches and draws as `fitting.loop.fit` with this seed, in the same order.
    Raises: UserError for images that are no such array, or that cannot be augmented as asked for,
    or a parameter that is not finite.
    """
    images = check_images(images)
    check_batch("batch_size", batch_size)
    size = fit_batch(batch_size, len(images))
    steps = Fit(size, float(epochs)).steps(len(images))
    first_key, key, last_key = fit_keys(seed)
    extract = partial(maps_of, method, compile_augment(augmentation))
    order = training_order(len(images), seed)
    update = jax.jit(method.update, donate_argnums=1, out_shardings=everywhere())
    state = None
    for step in tqdm(range(steps), "fit", delay=1):
        step_key = jax.random.fold_in(key, step)
        maps = extract(step_key, images[batch_indices(order, step, 1, size)[0]])
        if state is None:
            state = replicate(jax.jit(method.init)(first_key, maps))
        state, _ = update(step_key, state, maps)
    params = jax.jit(method.finish)(last_key, state)
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    require(finite, "images", f"array {images.shape}", "the fit did not stay finite")
    return params


def score(method: Method, params: Params, images: Any, *, batch_size: int = 8) -> Scores:
    """Returns scores [n] and anomaly maps [n h w] of images [n h w c]; higher = more anomalous.

    A score does not depend on the other images. Raises: UserError for images that are no such
    array.
    """
    images = check_images(images)
    check_batch("batch_size", batch_size)
    batch_size = fit_batch(batch_size, len(images))
    compiled = compile_score(method)
    padding = ((0, -len(images) % batch_size), (0, 0), (0, 0), (0, 0))
    padded = np.pad(images, padding)
    parts = [
        jax.tree.map(np.asarray, compiled(params, padded[at : at + batch_size]))
        for at in range(0, len(padded), batch_size)
    ]
    join = partial(jax.tree.map, lambda *leaves: np.concatenate(leaves)[: len(images)])
    return join(*parts)


def check_images(images: Any) -> Float[np.ndarray, "n h w c"]:
    """Returns images as a NumPy array. Raises: UserError unless they are [n h w c] in 0..1."""
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"images: {images.dtype} {images.shape}: give floats [n h w c] in 0..1")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        raise UserError(
            f"images: values from {low:g} to {high:g}: divide them so that they are 0..1"
        )
    return images.astype(np.float32)
