"""What problems are made of: proximal step, unit atoms, step size."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import unit as unit_in_float64

from sparse_ad.sparse.problems import soft_threshold, spectral_bound, unit


@pytest.mark.parametrize("nonnegative", [False, True])
def test_soft_threshold_minimises(nonnegative):
    grid = np.arange(0.0 if nonnegative else -4.0, 4.0, 1e-3)
    values = np.linspace(-3.0, 3.0, 41)
    for amount in (0.0, 0.3, 1.7):
        costs = 0.5 * (grid[:, None] - values) ** 2 + amount * np.abs(grid[:, None])
        shrunk = soft_threshold(jnp.asarray(values), amount, nonnegative)
        np.testing.assert_allclose(shrunk, grid[costs.argmin(0)], atol=6e-4)  # half a grid step


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 4, 6)])
def test_atoms_of_length_one(shape):
    """Along the axes of the atom: the last one, or those between atoms and channels."""
    atoms = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    atoms[1] = 0.0
    axes = (1,) if len(shape) == 2 else (1, 2)
    scaled = np.asarray(unit(jnp.asarray(atoms), axes))
    lengths = np.sqrt((scaled.astype(np.float64) ** 2).sum(axes))
    np.testing.assert_allclose(lengths, np.sign((atoms**2).sum(axes)), rtol=1e-6)
    along = (scaled * atoms).sum(axes) ** 2
    np.testing.assert_allclose(along, (atoms**2).sum(axes), rtol=1e-5)  # the direction is kept


@pytest.mark.parametrize("shape", [(1, 5), (7, 30), (60, 36), (200, 64)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_spectral_bound(shape, spread):
    """Above the largest eigenvalue, by no more than k^(1/64) (and rounding): within 10 %."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=shape) + spread * rng.normal(size=shape[1])
    gram = (unit_in_float64(rows) @ unit_in_float64(rows).T).astype(np.float32)
    largest = np.linalg.eigvalsh(gram.astype(np.float64))[-1]
    bound = float(spectral_bound(jnp.asarray(gram)))
    assert largest * (1.0 - 1e-5) <= bound <= largest * shape[0] ** (1 / 64) * 1.0001
    assert bound <= 1.1 * largest


def test_spectral_bound_survives_scale():
    """Powers of 64 would overflow float32 without their running scale."""
    gram = jnp.diag(jnp.asarray([1e6, 1.0, 0.0]))
    np.testing.assert_allclose(spectral_bound(gram), 1e6, rtol=1e-4)
