"""Losses against scikit-image, NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from skimage.metrics import structural_similarity

from sparse_ad.nets import losses

RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 21, 26, 3)).astype(np.float32)
OUTPUTS = (IMAGES + 0.2 * RNG.normal(size=IMAGES.shape)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("window", [3, 7, 11])
def test_ssim_is_scikit_images(window):
    found = losses.dissimilarity(IMAGES, OUTPUTS, window)
    wide, edge = losses.widen(found, window), window // 2
    for image, output, apart, whole in zip(IMAGES, OUTPUTS, found, wide, strict=True):
        _, full = structural_similarity(
            image.astype(np.float64),
            output.astype(np.float64),
            win_size=window,
            data_range=1.0,
            channel_axis=-1,
            full=True,
            use_sample_covariance=False,
        )
        inner = full.mean(-1)[edge:-edge, edge:-edge]
        np.testing.assert_allclose(1.0 - inner, apart, atol=1e-5)  # float32 variances
        assert whole.shape == image.shape[:2]
        np.testing.assert_array_equal(whole[edge:-edge, edge:-edge], apart)
        assert whole[0, 0] == apart[0, 0] and whole[-1, -1] == apart[-1, -1]


def test_ssim_of_an_image_with_itself():
    np.testing.assert_allclose(losses.dissimilarity(IMAGES, IMAGES, 5), 0.0, atol=1e-6)
    flat = np.full_like(IMAGES, 0.5)
    np.testing.assert_allclose(losses.dissimilarity(flat, flat, 5), 0.0, atol=1e-6)


def test_squared_error():
    expected = ((IMAGES.astype(np.float64) - OUTPUTS) ** 2).mean(-1)
    np.testing.assert_allclose(losses.squared_error(IMAGES, OUTPUTS), expected, atol=1e-6)


def test_cross_entropy():
    """And that it is least where the probability is the pixel."""
    logits = RNG.normal(size=IMAGES.shape).astype(np.float32)
    y = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    expected = -(IMAGES * np.log(y) + (1 - IMAGES) * np.log1p(-y)).mean(-1)
    np.testing.assert_allclose(losses.cross_entropy(IMAGES, logits), expected, rtol=1e-5)
    best = np.log(IMAGES) - np.log1p(-IMAGES)
    assert (losses.cross_entropy(IMAGES, best) <= losses.cross_entropy(IMAGES, logits)).all()
    assert np.isfinite(losses.cross_entropy(IMAGES, np.full_like(IMAGES, -1000.0))).all()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5), (-2.0, 1.5)])
def test_divergence_is_the_integral(mean, std):
    p, q = stats.norm(mean, std), stats.norm()
    expected, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -12, 12)
    found = losses.divergence(jnp.float32(mean), jnp.float32(2 * np.log(std)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fraction_active():
    code = np.array([[1.0, 0.5, 0.011, 0.009], [0.0, 0.0, -4.0, 0.0]], np.float32)
    np.testing.assert_allclose(losses.fraction_active(code), [0.75, 0.25])
    np.testing.assert_array_equal(losses.fraction_active(1e-3 * code), losses.fraction_active(code))
    assert losses.fraction_active(np.zeros((1, 4), np.float32))[0] == 0.0
