"""Detectors of a few moments: against NumPy, SciPy and scikit-learn."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from scipy.spatial.distance import mahalanobis
from scipy.stats import entropy
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA

from sparse_ad.batching import batched
from sparse_ad.errors import FieldError, UserError
from sparse_ad.methods.entropy import BINS, Entropy, describe_entropy
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.methods.moments import add_vectors, begin_moments, distance, whiten
from sparse_ad.methods.pca import Pca
from sparse_ad.methods.pooled_features import PooledFeatures, signed_log, statistics
from sparse_ad.types import PIXELS, Features

KEY = jax.random.key(0)
SIDE = 8
TINY = 1e-6  # shrinkage that does not show


add, distances = jax.jit(add_vectors), jax.jit(distance)
whitened = jax.jit(whiten, static_argnums=1)
described = jax.jit(describe_entropy)


def images_of(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Smooth colour images whose channels go together, as those of photographs do."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(count, 4, 4, 3)).astype(np.float32)
    smooth = np.asarray(jax.image.resize(coarse, (count, side, side, 3), "linear"))
    return (0.6 * smooth + 0.4 * smooth.mean(-1, keepdims=True)).astype(np.float32)


def fitted(options, batches, features=PIXELS):
    """The detector and its parameters, fitted to batches of images."""
    method = options.build(features, batches[0].shape[1:])
    extract = features.extract
    state = jax.jit(method.init)(KEY, extract(batches[0]))
    for batch in batches:
        state, _ = jax.jit(method.update)(KEY, state, extract(batch))
    params = jax.jit(method.finish)(KEY, state)
    score = jax.jit(batched(method.score))
    return method, params, lambda images: score(params, extract(images))


def test_moments_are_those_of_all_vectors():
    """Far from the origin, in batches of several sizes: no difference of large squares."""
    vectors = (100.0 + np.random.default_rng(0).normal(size=(40, 5))).astype(np.float32)
    state = begin_moments(5)
    for batch in np.split(vectors, [1, 8, 30]):
        state = add(state, jnp.asarray(batch))
    assert state.count == 40
    exact = vectors.astype(np.float64)
    assert_allclose(state.mean, exact.mean(0), rtol=1e-6)
    assert_allclose(state.covariance, np.cov(exact.T, bias=True), atol=1e-4)  # float32 at 100


def test_distance_is_that_of_mahalanobis():
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    state = add(begin_moments(4), jnp.asarray(vectors))
    found = distances(whitened(state, 0.0), jnp.asarray(vectors))
    assert_allclose(found, EmpiricalCovariance().fit(vectors).mahalanobis(vectors) / 4, rtol=1e-3)


def test_shrinkage_adds_to_the_covariance():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(3, 6)).astype(np.float32)  # fewer than dimensions
    state = add(begin_moments(6), jnp.asarray(vectors))
    found = distances(whitened(state, 0.5), jnp.asarray(vectors))
    covariance = np.cov(vectors.T.astype(np.float64), bias=True)
    shrunk = covariance + 0.5 * np.trace(covariance) / 6 * np.eye(6)
    inverse, mean = np.linalg.inv(shrunk), vectors.mean(0)
    assert_allclose(found, [mahalanobis(v, mean, inverse) ** 2 / 6 for v in vectors], rtol=1e-4)


def test_vectors_that_never_vary():
    """A distance all the same: the plain one."""
    whitening = whitened(add(begin_moments(2), jnp.ones((5, 2))), 0.1)
    assert_allclose(distances(whitening, jnp.array([[1.0, 1.0], [1.0, 3.0]])), [0.0, 2.0])


@cache
def linear():
    """A fit of eight components in three batches, and scikit-learn's of the same images."""
    train = images_of(60)
    fit = fitted(Pca(SIDE, 8), np.split(train, [20, 40]))
    return *fit, PCA(8, svd_solver="full").fit(train.reshape(60, -1).astype(np.float64))


def test_pca_leaves_what_scikit_learn_leaves():
    method, params, score, peer = linear()
    test = images_of(10, seed=1)
    rows = test.reshape(10, -1)
    shown = peer.inverse_transform(peer.transform(rows)).reshape(test.shape)
    left = ((test - shown) ** 2).sum(-1)
    found = score(test)
    assert_allclose(found.map, left, atol=1e-5)  # images of the fit's size: not resized
    assert_allclose(found.image, left.mean((1, 2)), rtol=1e-3)  # float32 eigenvectors
    reconstruct = jax.jit(batched(method.views.reconstruct))
    assert_allclose(reconstruct(params, PIXELS.extract(test)), shown, atol=1e-4)


def test_pca_of_larger_images_sees_them_shrunk():
    _, params, score = fitted(Pca(SIDE, 4), [images_of(40)])
    small = images_of(6, seed=2)
    large = np.repeat(np.repeat(small, 4, axis=1), 4, axis=2)
    shrunk = np.stack(
        [
            np.stack([np.asarray(Image.fromarray(c).resize((SIDE, SIDE), 2)) for c in image.T], -1)
            for image in large.transpose(0, 2, 1, 3)
        ]
    )
    expected = score(shrunk).image
    bigger = Pca(SIDE, 4).build(PIXELS, large.shape[1:])
    found = jax.jit(batched(bigger.score))(params, {"pixels": jnp.asarray(large)})
    assert found.map.shape == large.shape[:3]
    assert_allclose(found.image, expected, rtol=1e-3)


def test_pca_maps_are_put_back_behind_their_border():
    """A border that was cut off the maps belongs to the image all the same."""

    def cut(images):
        return {"map": jnp.asarray(images)[..., 1:-1, 1:-1, :]}

    images = images_of(40)
    method = Pca(SIDE - 2, 4).build(Features(cut, "cut", border=1), images.shape[1:])
    state = jax.jit(method.init)(KEY, cut(images))
    state, _ = jax.jit(method.update)(KEY, state, cut(images))
    damaged = images[:1].copy()
    damaged[:, 4, 2] += 2.0
    params = jax.jit(method.finish)(KEY, state)
    found = jax.jit(method.score)(params, {"map": cut(damaged)["map"][0]}).map
    assert np.unravel_index(np.argmax(found), found.shape) == (4, 2)


def test_entropy_is_that_of_the_histogram():
    for image in (*images_of(3), images_of(1)[0][..., :1]):
        grey = image @ [0.299, 0.587, 0.114] if image.shape[-1] == 3 else image[..., 0]
        counts = np.histogram(grey, BINS, (0.0, 1.0))[0]
        found = described(jnp.asarray(image))
        assert_allclose(found.whole, entropy(counts, base=2), rtol=1e-5)
        assert_allclose(jnp.mean(found.positions), found.whole[0], rtol=1e-5)


def test_entropy_of_white_and_black_is_one_bit():
    image = jnp.zeros((4, 4, 1)).at[:2].set(1.0)
    assert_allclose(described(image).whole, [1.0])


def test_entropy_is_suspicious_on_both_sides():
    score = fitted(Entropy(0.1), [images_of(40)])[2]
    flat = np.full((1, SIDE, SIDE, 3), 0.5, np.float32)
    noise = np.random.default_rng(3).uniform(size=(1, SIDE, SIDE, 3)).astype(np.float32)
    normal = score(images_of(20, seed=4)).image
    assert score(flat).image[0] > normal.max()
    assert described(jnp.asarray(noise[0])).whole > described(jnp.asarray(images_of(1)[0])).whole
    assert score(noise).image[0] > np.median(normal)


def test_mean_colour_scores_are_distances_of_mean_colours():
    train, test = images_of(50), images_of(8, seed=5)
    score = fitted(MeanColour(TINY), np.split(train, [10, 35]))[2]
    means = train.mean((1, 2)).astype(np.float64)
    peer = EmpiricalCovariance().fit(means)
    found = score(test)
    assert_allclose(found.image, peer.mahalanobis(test.mean((1, 2))) / 3, rtol=1e-2)
    pixels = EmpiricalCovariance().fit(train.reshape(-1, 3).astype(np.float64))
    expected = pixels.mahalanobis(test.reshape(-1, 3)).reshape(test.shape[:3]) / 3
    assert_allclose(found.map, expected, rtol=1e-2)  # float32 covariances; colours go together


def test_mean_colour_sees_no_order():
    score = fitted(MeanColour(0.01), [images_of(30)])[2]
    images = images_of(4, seed=6)
    order = np.random.default_rng(0).permutation(SIDE)
    assert_allclose(score(images[:, order]).image, score(images).image, rtol=1e-4, atol=1e-5)


def two_layers(images):
    n, height, width, _ = images.shape
    pooled = images.reshape(n, height // 2, 2, width // 2, 2, 3).mean((2, 4))
    return {"fine": images[..., :2], "coarse": pooled - 0.4}  # the latter of either sign


LAYERS = Features(two_layers, "hand-made")


@pytest.mark.parametrize("logarithm", [False, True])
def test_pooled_features_are_one_gaussian_of_all_layers(logarithm):
    train, test = images_of(60), images_of(8, seed=7)
    fit = fitted(PooledFeatures(0.01, logarithm), [train], LAYERS)

    def describe(images):
        parts = [
            getattr(np, name)(each.astype(np.float64), axis=(1, 2))
            for each in two_layers(images).values()
            for name in ("mean", "std", "max")
        ]
        values = np.concatenate(parts, axis=1)
        return np.sign(values) * np.log(1 + np.abs(values) / 0.01) if logarithm else values

    known, new = describe(train), describe(test)
    covariance = np.cov(known.T, bias=True)
    covariance += 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    expected = [mahalanobis(row, known.mean(0), inverse) ** 2 / len(row) for row in new]
    found = fit[2](test)
    assert_allclose(found.image, expected, rtol=1e-3)
    assert found.map.shape == test.shape[:3]


def test_pooled_features_see_no_order_but_their_map_does():
    score = fitted(PooledFeatures(0.01), [images_of(30)], LAYERS)[2]
    images = images_of(4, seed=8)
    turned = score(images[:, ::-1])
    assert_allclose(turned.image, score(images).image, rtol=1e-4)
    assert_allclose(turned.map, score(images).map[:, ::-1], rtol=1e-4)


def test_signed_log_is_odd_and_rises():
    values = jnp.linspace(-3.0, 3.0, 101)
    found = signed_log(values)
    assert (jnp.diff(found) > 0).all()
    assert_allclose(found, -found[::-1], atol=1e-5)
    assert_allclose(found[-1], np.log(301.0), rtol=1e-6)


def test_statistics_without_logarithm_are_plain():
    image = jnp.asarray(images_of(1)[0])
    assert_allclose(statistics(False, image).whole[6:], image.max((0, 1)))


@pytest.mark.parametrize("options", [MeanColour(), Entropy()])
def test_checks_of_pixels_want_pixels(options):
    with pytest.raises(UserError, match=r"features = 'hand-made': .* choose pixels"):
        options.build(LAYERS, (SIDE, SIDE, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pca(side=0), "side = 0: must be at least 1"),
        (lambda: Pca(components=0), "components = 0: must be at least 1"),
        (lambda: MeanColour(0.0), "shrinkage = 0.0: must be positive"),
        (lambda: Entropy(0.0), "shrinkage = 0.0: must be positive"),
        (lambda: PooledFeatures(-1.0), "shrinkage = -1.0: must be positive"),
        (
            lambda: Pca(side=4, components=48).build(PIXELS, (SIDE, SIDE, 3)),
            "components = 48: small images have only 48 values",
        ),
    ],
)
def test_a_wrong_field_is_named(make, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        make()
