"""Coding many signals: no signal sees the others, memory is bounded, fields are checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import exact_codes, make_problem, objectives

from configs.base import get_config
from sparse_ad.errors import UserError
from sparse_ad.sparse.coder import in_chunks, sparse_coder

PENALTY = 0.5
PROBLEM = make_problem("texture", m=24)._replace(penalty=np.full(24, PENALTY, np.float32))
DICTIONARY, SIGNALS, _ = PROBLEM


def coder(**fields):
    config = get_config().method
    # More slots than atoms: one path to compile.
    config.update({"penalty": PENALTY, "max_support": 64, **fields})
    return jax.jit(sparse_coder(config))


def assert_same_bits(found, expected):
    for leaf, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(leaf, other)


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
def test_codes_are_right_and_in_place(nonnegative):
    found = coder(chunk=7, nonnegative=nonnegative)(DICTIONARY, SIGNALS)
    best = objectives(PROBLEM, exact_codes(PROBLEM, nonnegative))
    np.testing.assert_allclose(objectives(PROBLEM, found.code), best, rtol=1e-4)


@pytest.mark.parametrize("max_support", [1, 4])
def test_codes_with_more_atoms_than_slots(max_support):
    """4: a wider homotopy ends all paths; 1: none is wide enough, and FISTA does."""
    problem = make_problem("random", m=24)._replace(penalty=PROBLEM.penalty)
    exact = exact_codes(problem)
    assert ((exact != 0.0).sum(1) > 9).any()
    found = coder(max_support=max_support, chunk=8)(problem.dictionary, problem.signals)
    assert found.converged.all()
    best = objectives(problem, exact)
    np.testing.assert_allclose(objectives(problem, found.code), best, rtol=1e-4)


def test_broken_signal_spoils_no_other():
    code = coder(chunk=8)
    broken = SIGNALS.copy()
    broken[5] = np.nan
    found, intact = code(DICTIONARY, broken), code(DICTIONARY, SIGNALS)
    others = np.arange(24) != 5
    assert_same_bits([leaf[others] for leaf in found], [leaf[others] for leaf in intact])
    assert not found.converged[5]


@pytest.mark.parametrize("solver", ["homotopy", "fista"])
def test_memory_is_bounded(solver):
    """More signals cost no more than three copies of themselves and their solutions."""

    def temporary(count: int) -> int:
        shapes = (jax.ShapeDtypeStruct((rows, 36), jnp.float32) for rows in (60, count))
        compiled = coder(solver=solver, chunk=64).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one_signal = 4 * (36 + 60 + 4)
    growth = temporary(4096) - temporary(1024)
    assert 0 < growth <= 3 * 3072 * one_signal


def test_in_chunks_pads_and_cuts():
    rows = jnp.arange(10.0).reshape(5, 2)
    widths = []

    def double(chunk):
        widths.append(chunk.shape)
        return {"twice": 2.0 * chunk, "first": chunk[:, 0]}

    for chunk, width in ((1, 1), (2, 2), (5, 5), (99, 5)):
        found = in_chunks(double, (rows,), chunk)
        np.testing.assert_array_equal(found["twice"], 2.0 * rows)
        np.testing.assert_array_equal(found["first"], rows[:, 0])
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
    with pytest.raises(UserError, match=rf"method\.{field} = .*{value}"):
        coder(**{field: value})
