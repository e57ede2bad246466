"""Sums over shifted maps: against patches written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.channels import ATOMS, CHANNELS, normal, patches_of, unit_dictionary

from sparse_ad.sparse import shifted_maps

# height, width, size, stride: dense; rows and columns left over; gaps; one patch; single values
SHAPES = [(7, 9, 3, 1), (8, 9, 3, 2), (11, 8, 2, 3), (4, 4, 4, 2), (3, 5, 1, 1)]
EACH = pytest.mark.parametrize(("height", "width", "size", "stride"), SHAPES)


@EACH
def test_correlate_and_energies_are_those_of_patches(height, width, size, stride):
    maps, dictionary = normal(height, width, CHANNELS), unit_dictionary(size)
    patches = patches_of(maps, size, stride)
    expected = np.einsum("ijabc,kabc->kijc", patches, dictionary)
    result = jax.jit(shifted_maps.correlate, static_argnums=2)(maps, dictionary, stride)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)  # 16 terms about 1, in float32
    energy = jax.jit(shifted_maps.energies, static_argnums=(1, 2))(maps, size, stride)
    np.testing.assert_allclose(energy, (patches**2).sum((2, 3)), rtol=1e-5)  # likewise
    assert shifted_maps.windows(maps.shape, size, stride) == patches.shape[:2]


@EACH
def test_collect_is_the_adjoint_of_correlate(height, width, size, stride):
    """<correlate(maps, D), z> = <D, collect(maps, z)>, and each sum is that of patches."""
    maps, dictionary = normal(height, width, CHANNELS), unit_dictionary(size)
    patches = patches_of(maps, size, stride)
    code = normal(ATOMS, *patches.shape[:2], CHANNELS, seed=2)
    result = shifted_maps.collect(jnp.asarray(maps), jnp.asarray(code), size, stride)
    assert result.shape == dictionary.shape
    expected = np.einsum("kijc,ijabc->kabc", code.astype(np.float64), patches)
    np.testing.assert_allclose(result, expected, atol=3e-5)  # up to 35 terms about 1, in float32
    one = np.vdot(
        np.asarray(shifted_maps.correlate(jnp.asarray(maps), jnp.asarray(dictionary), stride)), code
    )
    np.testing.assert_allclose(np.vdot(dictionary, result), one, rtol=1e-4, atol=1e-4)
