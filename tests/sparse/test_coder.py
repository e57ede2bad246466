"""Coding many signals: no signal sees the others, memory is bounded, fields are checked."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import exact_codes, make_problem, objectives

from sparse_ad.errors import FieldError, UserError
from sparse_ad.options import comments
from sparse_ad.sparse.coder import LassoCoder, in_chunks, lasso_coder, linear_coder
from sparse_ad.sparse.exemplars import ExemplarCoder, exemplar_coder
from sparse_ad.sparse.solvers import LASSO_SOLVERS

PENALTY = 0.5
PROBLEM = make_problem("texture", m=24)._replace(penalty=np.full(24, PENALTY, np.float32))
DICTIONARY, SIGNALS, _ = PROBLEM


@cache
def coder(**fields):
    # More slots than atoms: one path to compile.
    return jax.jit(lasso_coder(LassoCoder(**{"penalty": PENALTY, "max_support": 64, **fields})))


def assert_same_bits(solution, expected):
    for leaf, other in zip(solution, expected, strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["homotopy", "fista"])
def test_company_and_order_do_not_matter(solver):
    """Bit for bit, as long as the chunks have the same width."""
    code = coder(solver=solver, chunk=8)
    all_at_once = code(DICTIONARY, SIGNALS)
    order = np.random.default_rng(0).permutation(24)
    assert_same_bits(code(DICTIONARY, SIGNALS[order]), [leaf[order] for leaf in all_at_once])
    assert_same_bits(code(DICTIONARY, SIGNALS[:9]), [leaf[:9] for leaf in all_at_once])
    strangers = np.concatenate([SIGNALS[:2], 30.0 * SIGNALS[2:]])
    assert_same_bits(
        [leaf[:2] for leaf in code(DICTIONARY, strangers)], [x[:2] for x in all_at_once]
    )


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["homotopy", "fista"])
def test_width_of_a_chunk_matters_little(solver):
    """XLA orders a product's sums by its shape: objectives agree to the tolerance asked for."""
    together = coder(solver=solver, chunk=24)(DICTIONARY, SIGNALS)
    by_threes = coder(solver=solver, chunk=3)(DICTIONARY, SIGNALS)
    np.testing.assert_allclose(by_threes.objective, together.objective, rtol=1e-4)
    alone = coder(solver=solver)(DICTIONARY, SIGNALS[:1])
    np.testing.assert_allclose(alone.objective, together.objective[:1], rtol=1e-4)
    assert together.converged.all()
    assert by_threes.converged.all()
    assert alone.converged.all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_codes_are_right_and_in_order(nonnegative):
    solution = coder(chunk=7, nonnegative=nonnegative)(DICTIONARY, SIGNALS)
    best = objectives(PROBLEM, exact_codes(PROBLEM, nonnegative))
    np.testing.assert_allclose(objectives(PROBLEM, solution.code), best, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("max_support", [1, 4])
def test_codes_with_more_atoms_than_slots(max_support):
    """4: a wider homotopy ends all paths; 1: none is wide enough, and FISTA does."""
    problem = make_problem("random", m=24)._replace(penalty=PROBLEM.penalty)
    exact = exact_codes(problem)
    assert ((exact != 0.0).sum(1) > 9).any()
    solution = coder(max_support=max_support, chunk=8)(problem.dictionary, problem.signals)
    assert solution.converged.all()
    best = objectives(problem, exact)
    np.testing.assert_allclose(objectives(problem, solution.code), best, rtol=1e-4)


OTHERS = [name for name in LASSO_SOLVERS if name != "homotopy"]  # which solves the codes above


@pytest.mark.parametrize("solver", [pytest.param("homotopy", marks=pytest.mark.slow), *OTHERS])
def test_every_solver_solves(solver):
    problem = make_problem("random", m=8)._replace(penalty=np.full(8, PENALTY, np.float32))
    solution = coder(solver=solver, max_steps=5000)(problem.dictionary, problem.signals)
    assert solution.converged.all()
    best = objectives(problem, exact_codes(problem))
    np.testing.assert_allclose(solution.objective, best, rtol=2e-4)  # tolerance, float32 sums
    left = problem.signals - np.float64(solution.code) @ problem.dictionary
    np.testing.assert_allclose(solution.error, (left**2).sum(1), rtol=1e-4)


def test_orthonormal_atoms_project():
    """The error is that of a projection, and no gap is left."""
    atoms = np.linalg.qr(np.random.default_rng(0).normal(size=(36, 5)))[0].T.astype(np.float32)
    solution = jax.jit(linear_coder)(atoms, SIGNALS)
    exact = np.linalg.lstsq(np.float64(atoms).T, np.float64(SIGNALS).T, rcond=None)[0].T
    np.testing.assert_allclose(solution.code, exact, atol=1e-4)  # float32 products
    left = SIGNALS - exact @ np.float64(atoms)
    np.testing.assert_allclose(solution.error, (left**2).sum(1), rtol=1e-4)
    assert solution.converged.all() and not solution.gap.any()


def test_broken_signal_spoils_no_other():
    code = coder(chunk=7, nonnegative=False)  # compiled above
    broken = SIGNALS.copy()
    broken[5] = np.nan
    solution, intact = code(DICTIONARY, broken), code(DICTIONARY, SIGNALS)
    others = np.arange(24) != 5
    assert_same_bits([leaf[others] for leaf in solution], [leaf[others] for leaf in intact])
    assert not solution.converged[5]


LENGTHS = {
    "longer": np.full(60, 1.1),
    "shorter": np.full(60, 0.1),
    "mixed": np.geomspace(0.1, 10.0, 60),
}


@pytest.mark.parametrize(
    "lengths",
    [pytest.param(each, marks=() if each == "mixed" else pytest.mark.slow) for each in LENGTHS],
)
@pytest.mark.parametrize("solver", ["homotopy", "fista"])
def test_atoms_may_have_any_length(solver, lengths):
    atoms = np.float32(DICTIONARY * LENGTHS[lengths][:, None])
    penalty = float(0.15 * np.abs(SIGNALS @ atoms.T).max(1).mean())
    problem = PROBLEM._replace(dictionary=atoms, penalty=np.full(24, penalty, np.float32))
    solution = coder(solver=solver, penalty=penalty, max_steps=20_000)(atoms, SIGNALS)
    assert solution.converged.all()
    best = objectives(problem, exact_codes(problem))
    np.testing.assert_allclose(objectives(problem, solution.code), best, rtol=2e-4)


FEW = LassoCoder(penalty=PENALTY, max_support=2, chunk=4)  # all solvers of the cascade
FEW_CODERS = lasso_coder(FEW), exemplar_coder(ExemplarCoder(nonzeros=2))
CALLS = {"eager": lambda code: code, "jit": jax.jit}  # of one function, compiled once


@pytest.mark.parametrize("call", [pytest.param("eager", marks=pytest.mark.slow), "jit"])
def test_arrays_of_numpy_and_jax_are_alike(call):
    for each in FEW_CODERS:
        code = CALLS[call](each)
        found = code(DICTIONARY, SIGNALS[:6])
        assert_same_bits(code(jnp.asarray(DICTIONARY), jnp.asarray(SIGNALS[:6])), found)
        assert_same_bits(code(np.float64(DICTIONARY), np.float64(SIGNALS[:6])), found)
        assert found.converged.all()


@pytest.mark.parametrize("call", [pytest.param("eager", marks=pytest.mark.slow), "jit"])
def test_no_signals_have_no_codes(call):
    for each in FEW_CODERS:
        code = CALLS[call](each)
        none, some = code(DICTIONARY, SIGNALS[:0]), code(DICTIONARY, SIGNALS[:6])
        for leaf, other in zip(none, some, strict=True):
            assert leaf.shape == (0, *other.shape[1:]) and leaf.dtype == other.dtype


@pytest.mark.slow
def test_whole_numbers_are_converted():
    numbers = np.arange(8).reshape(2, 4)
    for code in (lasso_coder(FEW), linear_coder, exemplar_coder(ExemplarCoder())):
        found = code(np.eye(4, dtype=int), numbers)
        assert_same_bits(found, code(np.eye(4, dtype=np.float32), np.float32(numbers)))


@pytest.mark.parametrize("call", [pytest.param("eager", marks=pytest.mark.slow), "jit"])
@pytest.mark.parametrize(
    ("dictionary", "signals", "message"),
    [
        (DICTIONARY[:0], SIGNALS, r"dictionary of shape \(0, 36\): give at least one atom"),
        (DICTIONARY[:, :9], SIGNALS, r"dictionary \(60, 9\) and signals \(24, 36\): give atoms"),
        (DICTIONARY, SIGNALS[0], r"signals of shape \(36,\): give a matrix"),
        (DICTIONARY, SIGNALS > 0.0, r"signals of bool: give floats, as by signals\.astype"),
        (DICTIONARY, SIGNALS + 0j, r"signals of complex64: give floats"),
    ],
)
def test_wrong_arrays_are_named(call, dictionary, signals, message):
    for code in (lasso_coder(LassoCoder()), linear_coder, exemplar_coder(ExemplarCoder())):
        with pytest.raises(UserError, match=f"^{message}"):
            CALLS[call](code)(dictionary, signals)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["homotopy", "fista"])
def test_memory_is_bounded(solver):
    """More signals cost no more than three copies of themselves and their solutions."""

    def temporary(count: int) -> int:
        shapes = (jax.ShapeDtypeStruct((rows, 36), jnp.float32) for rows in (60, count))
        compiled = coder(solver=solver, chunk=64).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one_signal = 4 * (36 + 60 + 6)
    growth = temporary(4096) - temporary(1024)
    assert 0 < growth <= 3 * 3072 * one_signal


def test_in_chunks_pads_and_cuts():
    rows = jnp.arange(10.0).reshape(5, 2)
    widths = []

    def double(chunk):
        widths.append(chunk.shape)
        return {"twice": 2.0 * chunk, "first": chunk[:, 0]}

    for chunk, width in ((1, 1), (2, 2), (5, 5), (99, 5)):
        solution = in_chunks(double, (rows,), chunk)
        np.testing.assert_array_equal(solution["twice"], 2.0 * rows)
        np.testing.assert_array_equal(solution["first"], rows[:, 0])
        assert widths[-1] == (width, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("penalty", 0.0),
        ("penalty", -1.0),
        ("penalty", float("nan")),
        ("tolerance", 0.0),
        ("max_steps", 0),
        ("chunk", 0),
        ("max_support", 0),
        ("solver", "newton"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(FieldError, match=rf"^{field} = .*{value}"):
        LassoCoder(**{field: value})


def test_every_option_says_what_it_means():
    assert all(comments(LassoCoder).values())
