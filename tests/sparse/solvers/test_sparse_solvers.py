"""Solvers of one problem without penalty: against scikit-learn and brute force in float64."""

from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import make_problem
from sklearn.linear_model import orthogonal_mp

from sparse_ad.sparse.problems import Sparse
from sparse_ad.sparse.solvers import SPARSE_SOLVERS

DICTIONARY, SIGNALS, _ = make_problem("random", k=6, d=16, m=40)


@cache
def compiled(solver, nonzeros, with_start):
    def one(dictionary, signal, start):
        return SPARSE_SOLVERS[solver](Sparse(dictionary, signal, nonzeros), start)

    return jax.jit(jax.vmap(one, (None, 0, 0 if with_start else None)))


def solve_all(solver, nonzeros, signals=SIGNALS, dictionary=DICTIONARY, start=None):
    solve = compiled(solver, nonzeros, start is not None)
    return jax.tree.map(np.asarray, solve(dictionary, signals, start))


def errors(codes, signals=SIGNALS, dictionary=DICTIONARY) -> np.ndarray:
    """||x - z D||^2 in float64."""
    residual = signals.astype(np.float64) - np.float64(codes) @ dictionary.astype(np.float64)
    return (residual**2).sum(1)


def smallest_errors(nonzeros: int) -> np.ndarray:
    """Of any support, by least squares in float64."""
    best = np.full(len(SIGNALS), np.inf)
    for support in combinations(range(len(DICTIONARY)), nonzeros):
        part = DICTIONARY[list(support)].astype(np.float64)
        codes = np.linalg.lstsq(part.T, SIGNALS.T.astype(np.float64), rcond=None)[0].T
        best = np.minimum(best, errors(codes, dictionary=part))
    return best


@pytest.mark.parametrize("nonzeros", [1, 2, 3, 6])
def test_omp_equals_scikit_learn(nonzeros):
    solution = solve_all("omp", nonzeros)
    exact = DICTIONARY.astype(np.float64), SIGNALS.astype(np.float64)
    expected = orthogonal_mp(exact[0].T, exact[1].T, n_nonzero_coefs=nonzeros).T
    # float32 Gram-Schmidt against float64 least squares: rounding by the condition of the atoms
    np.testing.assert_allclose(solution.code, expected, atol=1e-4)
    assert ((solution.code != 0.0).sum(1) == nonzeros).all()


@pytest.mark.parametrize("nonzeros", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_exact_l0_is_the_best_of_all_supports(nonzeros):
    solution = solve_all("exact_l0", nonzeros)
    best = smallest_errors(nonzeros)
    np.testing.assert_allclose(errors(solution.code), best, rtol=1e-5)  # choice of near-equals
    assert ((solution.code != 0.0).sum(1) <= nonzeros).all()
    assert (solution.gap == 0.0).all()
    greedy = errors(solve_all("omp", nonzeros).code)
    assert (greedy >= best * (1 - 1e-6)).all()
    assert nonzeros == 1 or (greedy > best * 1.01).any()


@pytest.mark.parametrize("solver", ["omp", pytest.param("exact_l0", marks=pytest.mark.slow)])
def test_the_error_is_that_of_the_code(solver):
    solution = solve_all(solver, 3)
    energy = (SIGNALS**2).sum(1)
    assert (np.abs(solution.error - errors(solution.code)) <= 3e-6 * energy).all()  # cancellation
    np.testing.assert_allclose(solution.objective, 0.5 * solution.error, rtol=1e-6)
    assert solution.converged.all()


def test_omp_does_not_know_its_gap():
    assert np.isnan(solve_all("omp", 2).gap).all()


@pytest.mark.parametrize("solver", SPARSE_SOLVERS)
def test_a_start_that_is_better_is_returned(solver):
    """The best code of all supports; and one that has a non-zero too many is not."""
    best, cold = solve_all("exact_l0", 2), solve_all(solver, 2)
    solution = solve_all(solver, 2, start=best.code)
    np.testing.assert_allclose(solution.error, best.error, rtol=1e-5)  # rounding of near-equals
    worse = solve_all(solver, 2, start=np.zeros_like(best.code))
    np.testing.assert_array_equal(worse.code, cold.code)
    refused = solve_all(solver, 2, start=solve_all("exact_l0", 3).code)
    np.testing.assert_array_equal(refused.code, cold.code)


@pytest.mark.parametrize("solver", SPARSE_SOLVERS)
def test_degenerate_atoms_and_signals(solver):
    """Atoms twice, opposite and of length zero; signals of zeros and of one atom."""
    atoms, signals = DICTIONARY.copy(), SIGNALS.copy()
    atoms[1], atoms[3], atoms[5:] = atoms[0], -atoms[2], 0.0  # of rank 3
    signals[0], signals[1] = 0.0, 3.0 * atoms[0]
    solution = solve_all(solver, {"omp": 5, "exact_l0": 3}[solver], signals, atoms)
    assert np.isfinite(solution.code).all()
    assert not solution.code[0].any()
    assert solution.error[1] <= 1e-4
    exact = np.linalg.lstsq(atoms[[0, 2, 4]].T, signals.T, rcond=None)[0].T
    best = errors(exact, signals, atoms[[0, 2, 4]])
    np.testing.assert_allclose(errors(solution.code, signals, atoms), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SPARSE_SOLVERS)
def test_jit_and_vmap_change_nothing(solver):
    together = solve_all(solver, 3)
    for index in range(3):
        problem = Sparse(jnp.asarray(DICTIONARY), jnp.asarray(SIGNALS[index]), 3)
        alone = SPARSE_SOLVERS[solver](problem)
        np.testing.assert_allclose(alone.code, together.code[index], atol=1e-5)  # order of sums


@pytest.mark.parametrize("solver", SPARSE_SOLVERS)
def test_a_broken_signal_spoils_no_other(solver):
    broken = SIGNALS.copy()
    broken[4, 7] = np.nan
    solution, intact = solve_all(solver, 3, broken), solve_all(solver, 3)
    assert not solution.converged[4]
    others = np.arange(len(SIGNALS)) != 4
    np.testing.assert_array_equal(solution.code[others], intact.code[others])
