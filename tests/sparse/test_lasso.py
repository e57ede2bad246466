"""The lasso itself: objective, proximal step, certificate, step size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import exact_codes, make_problem, objectives, unit

from sparse_ad.sparse.lasso import (
    Lasso,
    certify,
    objective,
    penalty_max,
    residual_correlation,
    soft_threshold,
    spectral_bound,
)

certify_all = jax.jit(
    jax.vmap(certify, (Lasso(None, 0, 0), 0, None)), static_argnames="nonnegative"
)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_soft_threshold_minimises(nonnegative):
    grid = np.arange(0.0 if nonnegative else -4.0, 4.0, 1e-3)
    values = np.linspace(-3.0, 3.0, 41)
    for amount in (0.0, 0.3, 1.7):
        costs = 0.5 * (grid[:, None] - values) ** 2 + amount * np.abs(grid[:, None])
        found = soft_threshold(jnp.asarray(values), amount, nonnegative)
        np.testing.assert_allclose(found, grid[costs.argmin(0)], atol=6e-4)  # half a grid step


def test_objective_is_the_equation():
    problem = make_problem("random")
    codes = np.random.default_rng(0).normal(size=(24, 60)).astype(np.float32)
    found = jax.vmap(objective, (Lasso(None, 0, 0), 0))(Lasso(*problem), codes)
    np.testing.assert_allclose(found, objectives(problem, codes), rtol=1e-5)  # float32 sums


def test_residual_correlation_is_minus_the_gradient():
    dictionary, signals, _ = make_problem("random")
    lasso = Lasso(dictionary, signals[0], jnp.zeros(()))
    code = np.random.default_rng(0).normal(size=60).astype(np.float32)
    gradient = jax.grad(lambda z: objective(lasso, z))(code)
    np.testing.assert_allclose(residual_correlation(lasso, code), -gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_penalty_max_is_where_codes_become_zero(nonnegative):
    problem = make_problem("random", m=8)
    largest = jax.vmap(penalty_max, (None, 0, None))(*problem[:2], nonnegative)
    above = exact_codes(problem._replace(penalty=np.asarray(largest) * 1.001), nonnegative)
    below = exact_codes(problem._replace(penalty=np.asarray(largest) * 0.98), nonnegative)
    assert not above.any()
    assert (below != 0.0).any(axis=1).all()


@pytest.mark.parametrize("kind", ["random", "texture", "coherent"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_gap_bounds_suboptimality(kind, nonnegative):
    """On codes from the solution itself to far from it; gap and objective are relative."""
    problem = make_problem(kind)
    exact = exact_codes(problem, nonnegative)
    best = objectives(problem, exact)
    rng = np.random.default_rng(1)
    for distance in (0.0, 1e-4, 1e-2, 1.0, 30.0):
        noise = distance * rng.normal(size=exact.shape)
        codes = exact + noise * (exact != 0.0) + noise * (rng.random(exact.shape) < 0.05)
        codes = np.maximum(codes, 0.0) if nonnegative else codes
        found = certify_all(Lasso(*problem), codes.astype(np.float32), nonnegative)
        value = objectives(problem, codes)
        np.testing.assert_allclose(found.objective, value, rtol=1e-5)
        assert (np.asarray(found.gap) >= 0.0).all()
        # The floor is what the gap may be off by; the objectives themselves round by 1e-7 each.
        assert ((value - best) / value <= found.gap + found.floor + 2e-7).all()
        if distance == 0.0:
            assert (found.gap <= 3e-6 + found.floor).all()  # and tight at the solution


def test_gap_equals_primal_minus_dual():
    """The textbook form, in float64: P(z) - D(s r) with s r the scaled residual."""
    dictionary, signals, penalty = (np.float64(part) for part in make_problem("random"))
    codes = np.random.default_rng(2).normal(size=(24, 60)) * 0.1
    residual = signals - codes @ dictionary
    steepest = np.abs(residual @ dictionary.T).max(1)
    dual_point = residual * np.minimum(1.0, penalty / steepest)[:, None]
    dual = 0.5 * (signals**2).sum(1) - 0.5 * ((signals - dual_point) ** 2).sum(1)
    primal = 0.5 * (residual**2).sum(1) + penalty * np.abs(codes).sum(1)
    lasso = Lasso(*make_problem("random"))
    found = certify_all(lasso, codes.astype(np.float32), False)
    np.testing.assert_allclose(found.gap, (primal - dual) / primal, rtol=1e-4)


def test_zero_signal_has_no_gap():
    dictionary = jnp.asarray(make_problem("random").dictionary)
    found = certify(Lasso(dictionary, jnp.zeros(36), jnp.ones(())), jnp.zeros(60))
    assert [float(value) for value in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(1, 5), (7, 30), (60, 36), (200, 64)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_spectral_bound(shape, spread):
    """Above the largest eigenvalue, by no more than k^(1/64) (and rounding): within 10 %."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=shape) + spread * rng.normal(size=shape[1])
    gram = (unit(rows) @ unit(rows).T).astype(np.float32)
    largest = np.linalg.eigvalsh(gram.astype(np.float64))[-1]
    found = float(spectral_bound(jnp.asarray(gram)))
    assert largest * (1.0 - 1e-5) <= found <= largest * shape[0] ** (1 / 64) * 1.0001
    assert found <= 1.1 * largest


def test_spectral_bound_survives_scale():
    """Powers of 64 would overflow float32 without their running scale."""
    gram = jnp.diag(jnp.asarray([1e6, 1.0, 0.0]))
    np.testing.assert_allclose(spectral_bound(gram), 1e6, rtol=1e-4)
