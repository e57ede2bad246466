"""One contract over every config, and what is particular to the parts of a detector."""

import importlib
import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from sparse_ad import devices, methods
from sparse_ad.errors import UserError
from sparse_ad.methods.sparse_coding import sparse_coding
from sparse_ad.normalisation import SCALES
from sparse_ad.types import Scores

CONFIGS = sorted(
    path.stem for path in Path(__file__).parents[1].glob("configs/*.py") if path.stem != "__init__"
)
SIZE = 24
KEY = jax.random.key(0)

PATCHES = {  # small enough for a test; more slots than atoms, so that there is one path to compile
    "patch_size": 6,
    "stride": 3,
    "atoms": 12,
    "chunk": 64,
    "max_support": 64,
    "patches_per_image": 32,
    "minibatch": 64,
}
SMALL = {  # what makes each config small: a new config needs a line here
    "base": PATCHES,
    "quickstart": PATCHES,
    "sparse_patches": PATCHES,
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def test_every_config_is_covered():
    assert sorted(SMALL) == CONFIGS


def stripes(count: int, seed: int, channels: int = 1) -> np.ndarray:
    """Images 0..1 of diagonal stripes, shifted at random, with a little noise: all normal."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    phase = rng.uniform(0.0, 6.0, (count, 1, 1, 1))
    tint = np.linspace(1.0, 0.6, channels)
    images = 0.5 + 0.3 * np.sin((rows + columns)[..., None] + phase) * tint
    return (images + 0.01 * rng.normal(size=images.shape)).clip(0, 1).astype(np.float32)


def with_defects(images: np.ndarray) -> np.ndarray:
    """A part of each image has its stripes in the other direction."""
    damaged = images.copy()
    damaged[:, 8:16, 8:16] = damaged[:, 8:16, 8:16][:, :, ::-1]
    return damaged


@cache
def small(name: str, **fields) -> ConfigDict:
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.size = (SIZE, SIZE)
    config.method.update({**SMALL[name], **fields})
    return config


@cache
def fitted_to(method_fields: str, channels: int):
    """Equal configs share one fit."""
    method = methods.build(ConfigDict(json.loads(method_fields)))
    train = stripes(8, 0, channels)
    state = jax.jit(method.init)(KEY, train)
    update = jax.jit(method.update)
    for step in range(6):
        state, info = update(jax.random.fold_in(KEY, step), state, train)
    params = jax.jit(method.finish)(KEY, state)
    return method, state, info, params, jax.jit(method.score)


def fitted(name: str, channels: int = 0, **fields):
    config = small(name, **fields)
    channels = channels or {"grey": 1, "rgb": 3}[config.data.color]
    return *fitted_to(json.dumps(config.method.to_dict()), channels), channels


@cache
def score_apart(method):
    return devices.by_image(method.score)


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@EACH
def test_types(name):
    _, state, info, params, score, channels = fitted(name)
    images = stripes(8, 1, channels)
    scores = score(params, images)
    assert isinstance(scores, Scores)
    assert scores.image.shape == (8,)
    assert scores.map.shape == (8, SIZE, SIZE)  # the resolution of the images
    assert all(value.shape == (8,) for value in scores.info.values())
    assert all(value.shape == () for value in info.values())
    for leaf in jax.tree.leaves((state, info, params, scores)):
        assert np.isfinite(leaf).all()
        assert leaf.dtype in (jnp.float32, jnp.int32)


@EACH
def test_state_keeps_its_shape(name):
    """Else it could not be restored, nor fitting be streamed."""
    method, state, _, _, _, channels = fitted(name)
    shape = jax.ShapeDtypeStruct((8, SIZE, SIZE, channels), jnp.float32)
    first = jax.eval_shape(method.init, KEY, shape)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), first) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


@EACH
def test_fit_is_deterministic_and_follows_its_key(name):
    method, state, _, _, _, channels = fitted(name)
    update = jax.jit(method.update)
    images = stripes(8, 0, channels)
    assert_same_bits(update(KEY, state, images), update(KEY, state, images))
    other, _ = update(jax.random.key(9), state, images)
    same, _ = update(KEY, state, images)
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(other), strict=True)
    )


@EACH
def test_score_does_not_see_other_images(name):
    *_, params, score, channels = fitted(name)
    images, others = stripes(8, 1, channels), stripes(8, 2, channels)
    mixed = np.concatenate([images[:3], others[3:]])
    expected = jax.tree.map(lambda leaf: leaf[:3], score(params, images))
    assert_same_bits(jax.tree.map(lambda leaf: leaf[:3], score(params, mixed)), expected)
    assert_same_bits(score(params, images[::-1]).image, score(params, images).image[::-1])


@EACH
def test_batch_of_one_is_batch_of_eight(name):
    *_, params, score, channels = fitted(name)
    images = stripes(8, 1, channels)
    together = score(params, images)
    for place in (0, 5):
        alone = score(params, images[place : place + 1])
        assert_same_bits(alone, jax.tree.map(lambda leaf, at=place: leaf[at : at + 1], together))


@EACH
def test_eight_devices_score_as_one(name):
    method, _, _, params, score, channels = fitted(name)
    assert devices.mesh().size == 8
    images = stripes(8, 1, channels)  # one each
    apart = score_apart(method)(devices.replicate(params), images)
    assert len(apart.image.sharding.device_set) == 8
    assert_same_bits(apart, score(params, images))


@EACH
def test_eight_devices_fit_as_one(name):
    """To the order of float32 sums, which an exact solver does not blow up."""
    method, state, _, _, _, channels = fitted(name)
    images = stripes(8, 3, channels)
    alone, info = jax.jit(method.update)(KEY, state, images)
    shared = jax.jit(method.update)(KEY, devices.replicate(state), devices.spread(images))
    for leaf, other in zip(jax.tree.leaves(shared), jax.tree.leaves((alone, info)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-3)


@EACH
def test_defects_score_higher(name):
    *_, params, score, channels = fitted(name)
    normal = stripes(8, 4, channels)
    good, bad = score(params, normal), score(params, with_defects(normal))
    assert bad.image.min() > good.image.max()
    inside = bad.map[:, 10:14, 10:14].mean((1, 2))
    outside = bad.map[:, :3].mean((1, 2))
    assert (inside > 2.0 * outside).all()


@EACH
def test_training_images_are_reconstructed(name):
    method, _, _, params, _, channels = fitted(name)
    if method.reconstruct is None:
        pytest.skip("has no reconstruction")
    images = stripes(8, 0, channels)
    found = jax.jit(method.reconstruct)(params, images)
    assert found.shape == images.shape
    assert np.mean((found - images) ** 2) < 0.1 * images.var()
    shifted = np.mean((found - np.roll(images, 1, axis=1)) ** 2)
    assert shifted > 0.3 * images.var()  # and it is these images, not any


@EACH
def test_atoms_are_images(name):
    method, _, _, params, _, channels = fitted(name)
    if method.atoms is None:
        pytest.skip("has no atoms")
    found = method.atoms(params)
    size = SMALL[name]["patch_size"]
    assert found.shape == (SMALL[name]["atoms"], size, size, channels)
    assert np.isfinite(found).all()


def test_rgb():
    method, _, _, params, score, _ = fitted("sparse_patches", channels=3)
    images = stripes(8, 4, 3)
    scores = score(params, images)
    assert scores.map.shape == (8, SIZE, SIZE)
    assert score(params, with_defects(images)).image.min() > scores.image.max()
    assert method.atoms(params).shape == (12, 6, 6, 3)
    lengths = jnp.linalg.norm(method.atoms(params).reshape(12, -1), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


# The default, and one that normalises each patch; the others cost a fit each.
SCALES_BY_COST = [
    pytest.param(scale, marks=() if scale in ("global", "patch") else pytest.mark.slow)
    for scale in SCALES
]


@pytest.mark.parametrize("scale", SCALES_BY_COST)
def test_scales(scale):
    """What each does to brightness and contrast; a penalty suits unit deviation, or the pixels'."""
    penalty = 0.2 if scale == "none" else 1.0
    method, *_, params, score, _ = fitted("sparse_patches", scale=scale, penalty=penalty)
    images = stripes(8, 4)
    plain = score(params, images).image
    assert score(params, with_defects(images)).image.min() > plain.max()
    brighter = score(params, images + 0.1).image  # the patch mean is removed
    np.testing.assert_allclose(brighter, plain, rtol=1e-2)
    stronger = score(params, 2.0 * images).image
    if scale in ("image", "patch"):  # contrast is divided out
        np.testing.assert_allclose(stronger, plain, rtol=1e-2)
    else:
        assert (stronger > 1.02 * plain).all()
    found = jax.jit(method.reconstruct)(params, images)
    assert np.mean((found - images) ** 2) < 0.2 * images.var()


def test_flat_image_is_no_anomaly():
    """Not even with contrast normalisation, which would blow up its noise."""
    *_, params, score, _ = fitted("sparse_patches", scale="patch")
    flat = np.full((1, SIZE, SIZE, 1), 0.5, np.float32)
    assert score(params, flat).image[0] < score(params, stripes(8, 4)).image.min()


def test_two_groups_are_two_models():
    config = small("sparse_patches", solver="fista", tolerance=1e-6).method  # quick to compile
    model = sparse_coding(config)
    vectors = np.random.default_rng(0).normal(size=(128, 2, 36)).astype(np.float32)
    vectors = vectors @ np.random.default_rng(1).normal(size=(36, 36)).astype(np.float32) / 3.0
    state = jax.jit(model.init)(KEY, vectors)
    assert (state.dictionary[0] != state.dictionary[1]).any()
    both, info = jax.jit(model.update)(KEY, state, vectors)
    assert info["replaced"] == 0.0  # the only thing that draws at random
    params = model.finish(KEY, both)
    errors, _ = jax.jit(model.errors)(params, vectors)
    assert errors.shape == (128, 2)
    update_one, errors_one = jax.jit(model.update), jax.jit(model.errors)
    for group in range(2):
        one = lambda tree, at=group: jax.tree.map(lambda leaf: leaf[at : at + 1], tree)  # noqa: E731
        mine = vectors[:, group : group + 1]
        alone, _ = update_one(KEY, one(state), mine)
        # To the order of float32 sums: products with a group axis are computed differently.
        np.testing.assert_allclose(alone.dictionary, one(both).dictionary, atol=1e-3)
        found, _ = errors_one(one(params), mine)
        np.testing.assert_allclose(found, errors[:, group : group + 1], rtol=1e-3)
    reconstructed = jax.jit(model.reconstruct)(params, vectors)
    residual = ((vectors - reconstructed) ** 2).sum(-1)
    np.testing.assert_allclose(residual, errors, rtol=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "sparse_codign"),
        ("scale", "local"),
        ("stride", 0),
        ("patch_size", 0),
        ("patches_per_image", 0),
        ("atoms", 0),
        ("minibatch", 0),
        ("penalty", -1.0),
        ("pooling", "mean"),
    ],
)
def test_bad_fields_are_named(field, value):
    config = get_config().method
    config[field] = value
    with pytest.raises(UserError, match=rf"method\.{field} = .*{value}"):
        methods.build(config)
