"""Codes and their costs."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.autoencoders import drawn

from sparse_ad.nets.latents import CODES

KEYS = jax.random.split(jax.random.key(0), 2000)


def test_plain_codes_cost_their_size():
    raw = drawn(2, 3, 5)
    code, cost = CODES["linear"].make(None, raw)
    np.testing.assert_array_equal(code, raw)
    np.testing.assert_array_equal(cost, np.abs(raw))
    code, cost = CODES["sigmoid"].make(None, raw)
    np.testing.assert_allclose(code, 1 / (1 + np.exp(-np.asarray(raw, float))), rtol=1e-5)
    np.testing.assert_array_equal(cost, code)


def test_gaussian_codes_are_draws_about_the_mean():
    """Of 2000 draws: the mean within 4 standard errors, the std within 4 / sqrt(2 n) of itself."""
    mean, std = jnp.array([[0.5, -1.0]]), jnp.array([[0.1, 2.0]])
    raw = jnp.concatenate([mean, 2 * jnp.log(std)], axis=1)
    code, cost = CODES["gaussian"].make(None, raw)
    np.testing.assert_array_equal(code, mean)
    draws, costs = jax.vmap(lambda key: CODES["gaussian"].make(key, raw))(KEYS)
    assert (np.abs(draws.mean(0) - mean) < 4 * std / len(KEYS) ** 0.5).all()
    np.testing.assert_allclose(draws.std(0), std, rtol=4 / (2 * len(KEYS)) ** 0.5)
    assert (costs == cost[None]).all() and cost.shape == code.shape
