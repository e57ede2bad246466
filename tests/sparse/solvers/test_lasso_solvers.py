"""Solvers of one lasso: exact against scikit-learn, honest about it, and sound at the edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import KINDS, exact_codes, make_problem, objectives

from sparse_ad.sparse.certificate import certify
from sparse_ad.sparse.problems import Lasso
from sparse_ad.sparse.solvers import LASSO_SOLVERS as SOLVERS

SHAPES = {"fewer_atoms": (20, 36), "more_atoms": (60, 36), "one_atom": (1, 16)}

# All solvers are compared with scikit-learn; other tests always run for these.
SOME_SOLVERS = [
    pytest.param(name, marks=() if name in ("homotopy", "fista") else pytest.mark.slow)
    for name in SOLVERS
]
OTHERS = [name for name in SOLVERS if name != "fista"]
# Of kinds that take long, one always runs.
SOME_KINDS = [
    pytest.param(kind, marks=() if kind == "random" else pytest.mark.slow) for kind in KINDS
]


def solve_one(solver, dictionary, signal, penalty, max_steps, tolerance, nonnegative=False, **more):
    return SOLVERS[solver](
        Lasso(dictionary, signal, penalty),
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
        **more,
    )


def solve_all(solver, dictionary, signals, penalties, *options, **more):
    one = lambda signal, penalty: solve_one(solver, dictionary, signal, penalty, *options, **more)  # noqa: E731
    return jax.vmap(one)(signals, penalties)


# Steps and tolerance are traced: one compilation serves all that a shape is asked.
fast = jax.jit(solve_all, static_argnames=("solver", "nonnegative", "max_support"))


def solved(solver, problem, max_steps=40_000, tolerance=1e-5, nonnegative=False, **more):
    if solver == "homotopy":
        more.setdefault("max_support", 64)  # above what there is: one path to compile
    solution = fast(solver, *problem, max_steps, tolerance, nonnegative=nonnegative, **more)
    return jax.tree.map(np.asarray, solution)


def kind_for(solver, kind):
    """ISTA closes the gap by a fraction 1 / condition a step: textures get an easier penalty."""
    return make_problem(kind, fraction=0.5 if (solver, kind) == ("ista", "texture") else 0.15)


def test_coherent_is_coherent():
    dictionary = make_problem("coherent").dictionary
    assert np.abs(dictionary @ dictionary.T - np.eye(len(dictionary))).max() > 0.95


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_scikit_learn(solver, nonnegative, kind):
    problem = kind_for(solver, kind)
    solution = solved(solver, problem, nonnegative=nonnegative)
    best = objectives(problem, exact_codes(problem, nonnegative))
    value = objectives(problem, solution.code)
    # To 1e-5, which is also what the gap promises; 1e-9: scikit-learn's own tolerance.
    assert (np.abs(value - best) <= 1e-5 * best).all()
    assert (value >= best * (1.0 - 1e-9)).all()
    np.testing.assert_allclose(solution.objective, value, rtol=1e-5)  # float32 sums
    left = problem.signals - np.float64(solution.code) @ problem.dictionary
    np.testing.assert_allclose(solution.error, (left**2).sum(1), rtol=1e-4)  # likewise
    assert (solution.gap >= 0.0).all()
    # ISTA's last steps are below float32's rounding of the code: it gives up, and says so.
    assert (solution.gap <= (1e-4 if solver == "ista" else 1e-5)).all()
    np.testing.assert_array_equal(solution.converged, solution.gap <= 1e-5)
    assert not nonnegative or (solution.code >= 0.0).all()


@pytest.mark.parametrize("solver", SOME_SOLVERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(solver, shape):
    problem = make_problem("random", *SHAPES[shape], m=24)
    solution = solved(solver, problem)
    np.testing.assert_allclose(
        objectives(problem, solution.code), objectives(problem, exact_codes(problem)), rtol=1e-5
    )
    assert solution.converged.all()


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_large_penalty_gives_zero(solver):
    problem = make_problem("random", fraction=1.0)
    rounded_up = problem._replace(penalty=problem.penalty * np.float32(1 + 1e-6))
    solution = solved(solver, rounded_up)
    assert not solution.code.any()
    assert solution.converged.all()
    just_below = problem._replace(penalty=problem.penalty * np.float32(0.98))
    assert (solved(solver, just_below).code != 0.0).any(axis=1).all()


@pytest.mark.parametrize("solver", SOME_SOLVERS)
@pytest.mark.parametrize("kind", SOME_KINDS)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_tolerance_below_the_floor_ends_soon(solver, kind, nonnegative):
    problem = kind_for(solver, kind)
    usual = solved(solver, problem, tolerance=1e-4, nonnegative=nonnegative)
    futile = solved(solver, problem, tolerance=1e-9, nonnegative=nonnegative)
    assert usual.converged.all()
    assert not futile.converged.any()
    assert (futile.gap > 1e-9).all()
    assert (futile.gap <= 1e-4).all()  # it has not become worse
    assert (futile.steps <= 2 * usual.steps).all()  # and so for sums and largest
    assert (futile.steps < 40_000).all()


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_max_steps_is_kept(solver):
    solution = solved(solver, make_problem("coherent"), max_steps=2)
    assert not solution.converged.any()
    assert (solution.gap > 1e-5).all()
    assert (solution.steps <= 2 + 5).all()  # 5: steps between two certificates


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_converged_means_gap_within_tolerance(solver):
    for max_steps in (5, 30, 20_000):
        solution = solved(solver, make_problem("texture"), max_steps, 1e-3)
        np.testing.assert_array_equal(solution.converged, solution.gap <= 1e-3)


@pytest.mark.parametrize(
    "solver", ["fista", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_jit_and_vmap_change_nothing(solver):
    """Up to the order of float32 sums: both answers are within the gap of the optimum."""
    problem = make_problem("random", fraction=0.3)
    together = solved(solver, problem)
    more = {"max_support": 64} if solver == "homotopy" else {}
    one = jax.jit(lambda *lasso: solve_one(solver, *lasso, 20_000, 1e-5, **more))
    for index in range(3):
        parts = (problem.dictionary, problem.signals[index], problem.penalty[index])
        parts = tuple(map(jnp.asarray, parts))
        alone = one(*parts)
        eager = solve_one(solver, *parts, 20_000, 1e-5, **more)
        assert alone.converged
        assert eager.converged
        for other in (alone, eager):
            # The code of a problem this well conditioned follows its gap: 1e-5 gives 1e-2 at most.
            np.testing.assert_allclose(other.code, together.code[index], atol=1e-2)
            np.testing.assert_allclose(other.objective, together.objective[index], rtol=1e-5)


def test_homotopy_says_where_it_has_too_few_slots():
    problem = make_problem("random")
    assert ((exact_codes(problem) != 0.0).sum(1) > 4).all()
    solution = solved("homotopy", problem, max_support=4)
    assert not solution.converged.any()
    assert not solution.settled.any()
    assert ((solution.code != 0.0).sum(1) <= 4).all()
    np.testing.assert_allclose(solution.objective, objectives(problem, solution.code), rtol=1e-5)


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_degenerate_atoms_and_signals(solver):
    """Atoms twice, opposite and of length zero; signals of zeros, and a single atom's."""
    problem = make_problem("random")
    atoms, signals = problem.dictionary.copy(), problem.signals.copy()
    atoms[1], atoms[3], atoms[5] = atoms[0], -atoms[2], 0.0
    signals[0], signals[1], signals[2] = 0.0, 3.0 * atoms[0], 2.0 * atoms[2]
    problem = problem._replace(dictionary=atoms, signals=signals)
    solution = solved(solver, problem)
    assert np.isfinite(solution.code).all()
    assert solution.converged.all()
    assert not solution.code[0].any()
    assert not solution.code[:, 5].any()
    best = objectives(problem, exact_codes(problem))
    np.testing.assert_allclose(objectives(problem, solution.code), best, rtol=1e-5)


@pytest.mark.parametrize("solver", SOME_SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_signal_ends_and_spoils_no_other(solver, bad):
    problem = make_problem("random")
    broken = problem.signals.copy()
    broken[4, 7] = bad
    solution = solved(solver, problem._replace(signals=broken))
    assert not solution.converged[4]
    assert solution.steps[4] <= 5  # at once
    others = np.arange(24) != 4
    intact = solved(solver, problem)
    for leaf, was in zip(solution, intact, strict=True):
        np.testing.assert_array_equal(leaf[others], was[others])


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOME_SOLVERS)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_of_the_signals_is_immaterial(solver, scale):
    problem = make_problem("random")
    scaled = problem._replace(
        signals=problem.signals * np.float32(scale), penalty=problem.penalty * np.float32(scale)
    )
    solution = solved(solver, scaled)
    assert solution.converged.all()
    best = objectives(problem, exact_codes(problem))
    np.testing.assert_allclose(objectives(scaled, solution.code) / scale**2, best, rtol=1e-5)


@partial(jax.jit, static_argnames="solver")
def solve_all_from(solver, problem, start, max_steps, tolerance):
    fields = {"max_support": 64} if solver == "homotopy" else {}
    solve = partial(SOLVERS[solver], max_steps=max_steps, tolerance=tolerance, **fields)
    return jax.vmap(solve, in_axes=(Lasso(None, 0, 0), 0))(problem, start)


def solve_from(solver, problem, start, max_steps, tolerance):
    """Solutions of all signals, each from its own start."""
    solution = solve_all_from(solver, Lasso(*problem), start, max_steps, tolerance)
    return jax.tree.map(np.asarray, solution)


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_a_start_at_the_solution_is_returned_in_no_steps(solver):
    problem = make_problem("random", m=4)
    codes = exact_codes(problem).astype(np.float32)
    solution = solve_from(solver, problem, codes, 100, 1e-4)
    assert (solution.steps == 0).all() and solution.converged.all()
    np.testing.assert_array_equal(solution.code, codes)
    np.testing.assert_allclose(solution.objective, objectives(problem, codes), rtol=1e-5)


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_any_start_leads_to_the_solution(solver):
    """Near it, far from it, and broken."""
    problem = make_problem("random", m=4)
    exact = exact_codes(problem)
    noise = np.random.default_rng(0).normal(size=exact.shape)
    scale = np.asarray([1e-2, 1.0, 10.0, 0.0])[:, None]
    start = (exact + scale * noise).astype(np.float32)
    solution = solve_from(solver, problem, start, 40_000, 1e-5)
    assert solution.converged.all()
    best = objectives(problem, exact)
    np.testing.assert_allclose(objectives(problem, solution.code), best, rtol=1e-5)


@pytest.mark.parametrize("solver", SOME_SOLVERS)
def test_a_good_start_is_not_lost(solver):
    """Too few steps for anything: the solution is no worse than the start."""
    problem = make_problem("random", m=4)
    exact = exact_codes(problem)
    start = (exact * (1.0 + 1e-3)).astype(np.float32)
    solution = solve_from(solver, problem, start, 1, 1e-9)
    cold = solve_from(solver, problem, np.zeros_like(start), 1, 1e-9)
    assert (solution.gap < 0.5 * cold.gap).all()
    gap = jax.vmap(certify, (Lasso(None, 0, 0), 0))(Lasso(*map(jnp.asarray, problem)), start).gap
    assert (solution.gap <= np.asarray(gap) * (1 + 1e-3)).all()  # the certificate's rounding


def test_homotopy_ignores_a_broken_start():
    problem = make_problem("random", m=4)
    broken = np.full((4, 60), np.nan, np.float32)
    solution = solve_from("homotopy", problem, broken, 1000, 1e-5)
    assert solution.converged.all()
