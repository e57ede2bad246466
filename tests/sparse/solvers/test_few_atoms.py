"""Solvers for a few atoms: against scikit-learn, brute force in float64, their certificate."""

import sys
from functools import cache, partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso, LassoLars, orthogonal_mp

from sparse_ad.sparse.problems import Quadratic
from sparse_ad.sparse.solvers.few_atoms import coordinate_descent, exact_l0, omp
from sparse_ad.sparse.solvers.few_atoms.least_squares import squared_error

ATOMS, LENGTH, COUNT = 5, 16, 200
DESCENT = sys.modules[coordinate_descent.__module__]  # the function hides its module
PENALTY = 0.3
TOLERANCE = 1e-5  # relative gap; float32 certifies down to about 1e-6


def dictionary(coherence: float, seed: int = 0) -> np.ndarray:
    """Unit atoms that share a direction: coherence 0.9 makes inner products of about 0.9."""
    rng = np.random.default_rng(seed)
    own, shared = rng.normal(size=(ATOMS, LENGTH)), rng.normal(size=LENGTH)
    atoms = np.sqrt(1 - coherence) * own + np.sqrt(coherence) * shared
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def signals(count: int = COUNT, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, LENGTH))


def problem(atoms: np.ndarray, x: np.ndarray) -> Quadratic:
    """gram [k k 1], correlation [k m], energy [m]"""
    parts = (atoms @ atoms.T)[..., None], atoms @ x.T, (x**2).sum(1)
    return Quadratic(*(jnp.asarray(part, jnp.float32) for part in parts))


@cache
def lasso(max_steps: int = 500):
    solve = partial(coordinate_descent, penalty=PENALTY, max_steps=max_steps, tolerance=TOLERANCE)
    return jax.jit(solve)


@cache
def greedy(nonzeros: int):
    return jax.jit(partial(omp, nonzeros=nonzeros))


@cache
def exact(nonzeros: int):
    return jax.jit(partial(exact_l0, nonzeros=nonzeros))


def objective(atoms, x, z) -> np.ndarray:
    return 0.5 * ((x - z @ atoms) ** 2).sum(1) + PENALTY * np.abs(z).sum(1)


def gap_in_float64(atoms, x, z) -> np.ndarray:
    """Primal less dual at the scaled residual, over the primal; Fenchel duality, not our sum."""
    residual = x - z @ atoms
    steepest = np.abs(residual @ atoms.T).max(1, keepdims=True)
    dual_point = residual * np.minimum(1.0, PENALTY / np.maximum(steepest, 1e-300))
    dual = 0.5 * (x**2).sum(1) - 0.5 * ((x - dual_point) ** 2).sum(1)
    primal = objective(atoms, x, z)
    return (primal - dual) / primal


def left_over(atoms, x, z) -> np.ndarray:
    return ((x - np.asarray(z, np.float64).T @ atoms) ** 2).sum(1)


def by_brute_force(atoms, x, nonzeros: int) -> np.ndarray:
    """The smallest squared error of any support."""
    best = np.full(len(x), np.inf)
    for support in combinations(range(len(atoms)), nonzeros):
        part = atoms[list(support)]
        z = np.linalg.lstsq(part.T, x.T, rcond=None)[0]
        best = np.minimum(best, ((x.T - part.T @ z) ** 2).sum(0))
    return best


@pytest.mark.parametrize("coherence", [0.0, 0.9, 0.99])
def test_lasso_equals_scikit_learn(coherence):
    atoms, x = dictionary(coherence), signals()
    solution = lasso()(problem(atoms, x))
    z = np.asarray(solution.code, np.float64).T
    scale = 1.0 / LENGTH  # scikit-learn divides the squared error by the length
    lars = LassoLars(alpha=PENALTY * scale, fit_intercept=False)
    descent = Lasso(alpha=PENALTY * scale, fit_intercept=False, tol=1e-10, max_iter=100_000)
    for peer in (lars, descent):
        expected = np.stack([peer.fit(atoms.T, row).coef_ for row in x])
        ours, theirs = objective(atoms, x, z), objective(atoms, x, expected)
        # The gap bounds what is above the minimum; 2e-6: float32 sums in z.
        assert (ours <= theirs * (1 + TOLERANCE + 2e-6)).all()
        if coherence < 0.99:  # the minimiser itself is solution as well as it is conditioned
            np.testing.assert_allclose(z, expected, atol=2e-2)


@pytest.mark.parametrize("coherence", [0.0, 0.9, 0.99])
def test_certificate_is_true_in_float64(coherence):
    atoms, x = dictionary(coherence), signals()
    solution = lasso()(problem(atoms, x))
    assert (solution.gap <= TOLERANCE).all()
    true = gap_in_float64(atoms, x, np.asarray(solution.code, np.float64).T)
    # Rounding of ||x||^2 and of the correlations, relative to the objective.
    assert (true <= solution.gap + 3e-6).all()


def test_certificate_of_an_unfinished_code():
    """Its size, not only that it is small: coherent atoms, one look."""
    atoms, x = dictionary(0.99), signals()
    quadratic = problem(atoms, x)
    code = 0.1 * quadratic.correlation  # a bad code
    gap = jax.jit(partial(DESCENT.relative_gap, penalty=PENALTY))
    solution = gap(quadratic, tuple(code))
    expected = gap_in_float64(atoms, x, np.asarray(code, np.float64).T)
    assert expected.min() > 1e-4
    np.testing.assert_allclose(solution, expected, rtol=1e-3)  # the implicit residual cancels


@pytest.mark.slow
def test_more_signals_are_unsettled_than_are_gathered_at_once(monkeypatch):
    monkeypatch.setattr(DESCENT, "GATHERED", 16)
    monkeypatch.setattr(DESCENT, "SWEEPS", 1)  # so that two certificates settle few
    monkeypatch.setattr(DESCENT, "polish", lambda problem, code, penalty: code)
    atoms, x = dictionary(0.9), signals(120).reshape(4, 30, LENGTH)
    gram, correlation, energy = problem(atoms, x.reshape(-1, LENGTH))
    args = Quadratic(gram[..., None], correlation.reshape(ATOMS, 4, 30), energy.reshape(4, 30))
    solve = partial(coordinate_descent, penalty=PENALTY, tolerance=TOLERANCE)
    first = jax.jit(partial(solve, max_steps=2))(args)
    assert (first.gap > TOLERANCE).sum() > 2 * 16 + 1
    solution = jax.jit(partial(solve, max_steps=2000))(args)
    assert (solution.gap <= TOLERANCE).all()
    expected = lasso()(Quadratic(gram, correlation, energy))
    assert (solution.steps >= 2).all() and (solution.steps > 2).sum() > 2 * 16
    np.testing.assert_allclose(solution.code.reshape(ATOMS, -1), expected.code, atol=2e-2)
    # Some stay unsettled where the steps end: the gap says so.
    short = jax.jit(partial(solve, max_steps=4))(args)
    assert 0 < (short.gap > TOLERANCE).sum() < (first.gap > TOLERANCE).sum()


@pytest.mark.parametrize("nonzeros", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), 5])
def test_omp_equals_scikit_learn(nonzeros):
    atoms, x = dictionary(0.3), signals()
    solution = greedy(nonzeros)(problem(atoms, x)).code.T
    expected = orthogonal_mp(atoms.T, x.T, n_nonzero_coefs=nonzeros).T
    # Two atoms that fit equally to 1e-5 may change places in float32; there are none here.
    np.testing.assert_allclose(solution, expected, atol=1e-4)
    assert ((solution != 0).sum(1) == nonzeros).all()


@pytest.mark.parametrize("nonzeros", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), 5])
def test_exact_l0_is_the_best_of_all_supports(nonzeros):
    atoms, x = dictionary(0.6), signals()
    args = problem(atoms, x)
    solution = exact(nonzeros)(args)
    assert ((solution.code != 0).sum(0) <= nonzeros).all() and (solution.gap == 0).all()
    best = by_brute_force(atoms, x, nonzeros)
    left = left_over(atoms, x, solution.code)
    np.testing.assert_allclose(left, best, rtol=1e-5)  # float32 choice between near-equals
    greedily = left_over(atoms, x, greedy(nonzeros)(args).code)
    assert (left <= greedily * (1 + 1e-5)).all()
    optimal = greedily <= best * (1 + 1e-6)
    if nonzeros in (1, ATOMS):  # then greed is optimal
        assert optimal.all()
    else:
        assert 0.3 < optimal.mean() < 1.0  # both cases are met
    codes = greedy(nonzeros)(args).code[:, optimal]
    np.testing.assert_allclose(solution.code[:, optimal], codes, atol=1e-3)


@pytest.mark.parametrize("solver", [greedy, exact])
def test_all_atoms_are_least_squares(solver):
    atoms, x = dictionary(0.6), signals()
    solution = solver(ATOMS)(problem(atoms, x)).code
    expected = np.linalg.lstsq(atoms.T, x.T, rcond=None)[0]
    np.testing.assert_allclose(solution, expected, atol=1e-4)  # rounding by the Gram's condition


def degenerate(kind: str) -> np.ndarray:
    atoms = dictionary(0.3)
    atoms[4] = {"zero": 0.0 * atoms[4], "copy": atoms[1], "opposite": -atoms[1]}[kind]
    return atoms


ALL = [lasso(), *(solver(nonzeros) for solver in (greedy, exact) for nonzeros in (1, 3, 5))]


@pytest.mark.parametrize("coherence", [0.0, 0.6, 0.99])
@pytest.mark.parametrize("solve", ALL)
def test_the_error_is_that_of_the_code(solve, coherence):
    """Against the residual written out in float64; a signal of the atoms' span has none."""
    atoms, x = dictionary(coherence), signals()
    x[:5] = 2.0 * atoms
    solution = solve(problem(atoms, x))
    assert solution.error.shape == (COUNT,) and solution.error.dtype == jnp.float32
    true, energy = left_over(atoms, x, solution.code), (x**2).sum(1)
    # ||x||^2 less what is explained: row exact to 1e-6 of ||x||^2, where codes are no larger than
    # signals. Coherence makes them larger by the root of the Gram's condition number, 10 at 0.99.
    most = 2e-5 if coherence == 0.99 else 3e-6
    assert (np.abs(solution.error - true) <= most * energy).all()
    assert (solution.error >= 0).all()
    if solve is not lasso():
        assert (solution.error[:5] <= most * energy[:5]).all()


@pytest.mark.parametrize("kind", ["zero", "copy", "opposite"])
def test_dependent_atoms(kind):
    atoms, x = degenerate(kind), signals()
    args = problem(atoms, x)
    for nonzeros in (3, 5):
        code = exact(nonzeros)(args).code
        assert np.isfinite(code).all()
        best = by_brute_force(atoms, x, nonzeros)
        np.testing.assert_allclose(left_over(atoms, x, code), best, rtol=1e-4)
    code = greedy(5)(args).code
    best = by_brute_force(atoms, x, 5)
    np.testing.assert_allclose(left_over(atoms, x, code), best, rtol=1e-4)
    solution = lasso()(args)
    assert np.isfinite(solution.code).all() and (solution.gap <= TOLERANCE).all()
    z = np.asarray(solution.code, np.float64).T
    assert (gap_in_float64(atoms, x, z) <= 2 * TOLERANCE).all()


@pytest.mark.parametrize("solve", [lasso(), greedy(2), exact(2)])
def test_zero_signals_and_zero_dictionaries(solve):
    x, others = signals(), np.arange(COUNT) != 1
    x[1] = 0.0
    for atoms in (dictionary(0.3), np.zeros((ATOMS, LENGTH))):
        args = problem(atoms, x)
        solution = solve(args)
        assert np.isfinite(solution.code).all() and (solution.code[:, 1] == 0).all()
        errors = squared_error(args, solution.code)
        assert errors[1] == 0 and (errors[others] > 0).all()
        if solve is lasso():
            assert (solution.gap <= TOLERANCE).all()


@pytest.mark.slow
@pytest.mark.parametrize("solve", [lasso(), greedy(2), exact(2)])
def test_shapes_broadcast(solve):
    """A Gram for row channel, signals [i j c]: as if row channel were alone."""
    grams, correlations, energy = [], [], []
    for channel in range(3):
        parts = problem(dictionary(0.5, channel), signals(20, 10 + channel))
        for some, part in zip((grams, correlations, energy), parts, strict=True):
            some.append(part)
    gram = jnp.stack(grams, -1)[:, :, None]  # [k k 1 1 c]
    correlation = jnp.stack(correlations, -1).reshape(ATOMS, 4, 5, 3)
    together = solve(Quadratic(gram, correlation, jnp.stack(energy, -1).reshape(4, 5, 3)))
    assert together.code.shape == (ATOMS, 4, 5, 3) and together.gap.shape == (4, 5, 3)
    for channel in range(3):
        alone = solve(Quadratic(grams[channel], correlations[channel], energy[channel]))
        np.testing.assert_allclose(  # other shapes, other order of multiplications and sums
            together.code[..., channel].reshape(ATOMS, -1), alone.code, atol=1e-4
        )


def test_squared_error():
    atoms, x = dictionary(0.6), signals()
    args = problem(atoms, x)
    code = jnp.asarray(signals(ATOMS, 5)[:, :1] + signals(COUNT, 6)[:, :ATOMS].T, jnp.float32)
    solution = squared_error(args, code)
    expected = left_over(atoms, x, code)
    np.testing.assert_allclose(solution, expected, rtol=1e-4)  # three large terms cancel


@pytest.mark.parametrize("solve", [lasso(), greedy(2), exact(2)])
def test_objective_steps_and_convergence(solve):
    atoms, x = dictionary(0.6), signals()
    solution = solve(problem(atoms, x))
    penalty = PENALTY if solve is lasso() else 0.0
    z = np.asarray(solution.code, np.float64).T
    value = 0.5 * ((x - z @ atoms) ** 2).sum(1) + penalty * np.abs(z).sum(1)
    # ||x||^2 less what is explained: exact to 3e-6 of ||x||^2
    np.testing.assert_allclose(solution.objective, value, atol=3e-6 * (x**2).sum(1).max())
    assert solution.converged.all() and solution.settled.all()
    assert solution.steps.shape == (COUNT,)
    expected = {greedy(2): 2, exact(2): 10}  # supports of 2 in 5 atoms
    assert solve is lasso() or (solution.steps == expected[solve]).all()


def test_descent_continues_from_its_start():
    """A start at the solution stays there; a bad one leads to it."""
    args = problem(dictionary(0.9), signals())
    cold = lasso()(args)
    warm = lasso()(args, cold.code)
    assert (warm.gap <= TOLERANCE).all() and (warm.steps <= 5).all()
    np.testing.assert_allclose(warm.code, cold.code, atol=1e-3)  # as well as it is conditioned
    far = lasso()(args, cold.code + 3.0)
    assert (far.gap <= TOLERANCE).all()
    np.testing.assert_allclose(far.objective, cold.objective, rtol=1e-4)


def test_omp_returns_a_start_that_is_better_and_allowed():
    args = problem(dictionary(0.6), signals())
    best, greedily = exact(2)(args), greedy(2)(args)
    improved = np.asarray(best.error < greedily.error * (1 - 1e-3))
    assert 0.1 < improved.mean() < 0.9  # both cases are met
    solution = greedy(2)(args, best.code)
    np.testing.assert_array_equal(solution.code[:, improved], best.code[:, improved])
    assert (solution.error <= greedily.error).all()
    refused = greedy(2)(args, exact(3)(args).code)  # one non-zero too many
    np.testing.assert_array_equal(refused.code, greedily.code)
    np.testing.assert_array_equal(exact(2)(args, greedily.code).code, best.code)


@pytest.mark.parametrize("solve", [greedy, exact])
def test_more_nonzeros_than_atoms_are_all_atoms(solve):
    args = problem(dictionary(0.3), signals())
    np.testing.assert_array_equal(solve(ATOMS + 2)(args).code, solve(ATOMS)(args).code)
