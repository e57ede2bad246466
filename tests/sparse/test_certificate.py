"""The certificate of a lasso's code: objective, duality gap and rounding floor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import exact_codes, make_problem, objectives

from sparse_ad.sparse.certificate import certify
from sparse_ad.sparse.problems import Lasso

certify_all = jax.jit(
    jax.vmap(certify, (Lasso(None, 0, 0), 0, None)), static_argnames="nonnegative"
)


def test_objective_and_error_are_the_equations():
    problem = make_problem("random")
    codes = np.random.default_rng(0).normal(size=(24, 60)).astype(np.float32)
    known = certify_all(Lasso(*problem), codes, False)
    np.testing.assert_allclose(known.objective, objectives(problem, codes), rtol=1e-5)  # float32
    dictionary, signals, _ = (np.float64(part) for part in problem)
    error = ((signals - np.float64(codes) @ dictionary) ** 2).sum(1)
    np.testing.assert_allclose(known.error, error, rtol=1e-5)  # float32 sums


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
        known = certify_all(Lasso(*problem), codes.astype(np.float32), nonnegative)
        value = objectives(problem, codes)
        np.testing.assert_allclose(known.objective, value, rtol=1e-5)
        assert (np.asarray(known.gap) >= 0.0).all()
        # The floor is what the gap may be off by; the objectives themselves round by 1e-7 each.
        assert ((value - best) / value <= known.gap + known.floor + 2e-7).all()
        if distance == 0.0:
            assert (known.gap <= 3e-6 + known.floor).all()  # and tight at the solution


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
    known = certify_all(lasso, codes.astype(np.float32), False)
    np.testing.assert_allclose(known.gap, (primal - dual) / primal, rtol=1e-4)


def test_zero_signal_has_no_gap():
    dictionary = jnp.asarray(make_problem("random").dictionary)
    known = certify(Lasso(dictionary, jnp.zeros(36), jnp.ones(())), jnp.zeros(60))
    assert [float(value) for value in known] == [0.0, 0.0, 0.0, 0.0]
