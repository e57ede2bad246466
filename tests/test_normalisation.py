"""Patches without mean and contrast: against NumPy, and undone again."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.errors import FieldError
from sparse_ad.normalisation import (
    GREY_LEVEL,
    SCALES,
    Normalise,
    image_unit,
    mean_and_std,
    normalise,
    standardise_channels,
    training_unit,
)


def patches_of(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(40, 9)) * rng.uniform(0.5, 2.0, (40, 1)) + 3.0).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("remove_mean", [True, False])
def test_normalising_can_be_undone(scale, remove_mean):
    patches = jnp.asarray(patches_of())
    vectors, offset, contrast = normalise(Normalise(remove_mean, scale), patches)
    assert offset.shape == contrast.shape == (40, 1)
    np.testing.assert_allclose(vectors * contrast + offset, patches, rtol=1e-5)  # float32
    if remove_mean:
        np.testing.assert_allclose(vectors.mean(1), 0.0, atol=1e-5)
    else:
        np.testing.assert_array_equal(offset, 0.0)


def test_each_scale_divides_by_its_own_contrast():
    patches, image = patches_of(), patches_of(1).reshape(12, 10, 3)
    centred = patches.astype(np.float64) - patches.mean(1, keepdims=True)
    common = jnp.float32(0.7)
    expected = {  # of training, of the image, of patches
        "global": (np.sqrt((centred**2).mean()), 0.7, np.ones(40)),
        "image": (1.0, image.astype(np.float64).std(), np.ones(40)),
        "patch": (1.0, 0.7, np.sqrt((centred**2).mean(1))),
        "none": (1.0, 0.7, np.ones(40)),
    }
    assert expected.keys() == SCALES.keys()
    for scale, (training, of_image, of_patch) in expected.items():
        options = Normalise(scale=scale)
        found = training_unit(options, jnp.asarray(patches))
        np.testing.assert_allclose(found, training, rtol=1e-5)
        unit = image_unit(options, common, jnp.asarray(image))
        np.testing.assert_allclose(unit, of_image, rtol=1e-5)
        contrast = normalise(options, jnp.asarray(patches)).contrast[:, 0]
        np.testing.assert_allclose(contrast, of_patch, rtol=1e-5)


def test_flat_patches_are_not_amplified():
    flat = jnp.full((3, 4), 0.5).at[0, 0].add(1e-4)
    contrast = normalise(Normalise(scale="patch"), flat).contrast
    np.testing.assert_allclose(contrast, GREY_LEVEL, rtol=1e-6)


def test_a_wrong_scale_is_named():
    with pytest.raises(FieldError, match=r"^scale = 'local': choose one of global, image, none"):
        Normalise(scale="local")


def maps_of(seed: int = 3) -> np.ndarray:
    """Maps of two images, whose channels differ in mean and std."""
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.01, 100.0, (2, 2, 1, 1, 4))
    return (shift + scale * rng.gamma(2.0, size=(2, 7, 9, 4))).astype(np.float32)


def test_each_channel_of_each_map_is_standardised():
    maps = maps_of()
    found = np.asarray(standardise_channels(jnp.asarray(maps)))
    np.testing.assert_allclose(found.mean((1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(found.std((1, 2)), 1.0, rtol=1e-5)
    exact = maps.astype(np.float64)
    expected = (exact - exact.mean((1, 2), keepdims=True)) / exact.std((1, 2), keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # float32, with means above the std
    np.testing.assert_array_equal(standardise_channels(jnp.asarray(maps[1])), found[1])


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, 1e6])
def test_flat_channels_are_not_amplified(value):
    maps = maps_of()
    maps[0, ..., 2] = value
    found = np.asarray(standardise_channels(jnp.asarray(maps)))
    np.testing.assert_allclose(found[0, ..., 2], 0.0, atol=1e-6 * max(value, 1.0))
    np.testing.assert_allclose(np.delete(found.std((1, 2))[0], 2), 1.0, rtol=1e-5)


def test_mean_and_std_along_axes():
    maps = maps_of()
    mean, std = mean_and_std(jnp.asarray(maps), (0, 1, 2))
    assert mean.shape == std.shape == (1, 1, 1, 4)
    np.testing.assert_allclose(mean[0, 0, 0], maps.mean((0, 1, 2), np.float64), rtol=1e-5)
    np.testing.assert_allclose(std[0, 0, 0], maps.std((0, 1, 2), np.float64), rtol=1e-4)
