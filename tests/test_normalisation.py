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
    normalise,
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
