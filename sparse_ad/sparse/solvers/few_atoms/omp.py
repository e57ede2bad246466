"""Orthogonal matching pursuit, for dictionaries of a few atoms and millions of signals."""

from functools import partial, reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Quadratic, Solution
from sparse_ad.sparse.solvers.few_atoms.least_squares import (
    apply_gram,
    on_own_support,
    squared_error,
)


def omp(
    problem: Quadratic, start: Float[Array, "k ..."] | None = None, *, nonzeros: int
) -> Solution:
    """The atom that fits the residual best joins, then least squares; `nonzeros` steps.

    Greed has no use for a `start`: it is returned where its error is smaller, which it may be, and
    it has no more than `nonzeros` non-zeros.
    Source: Pati, Rezaiifar & Krishnaprasad (1993).
    """
    correlation, energy, count = problem.correlation, problem.energy, problem.gram.shape[0]
    rounds = min(nonzeros, count)
    # A loop, not unrolled: XLA would fuse the rounds, and compute each again for all that uses it.
    nothing = tuple(jnp.zeros(energy.shape, bool) for _ in range(count))
    begin = (nothing, tuple(jnp.zeros_like(energy) for _ in range(count)))
    _, code = lax.fori_loop(0, rounds, partial(join_best, problem=problem), begin)
    explained = sum(z * correlation[j] for j, z in enumerate(code))  # of least squares
    code, error = jnp.stack(code), jnp.maximum(energy - explained, 0.0)
    if start is not None:
        known = squared_error(problem, tuple(start))
        better = (known < error) & (jnp.sum(start != 0.0, axis=0) <= nonzeros)
        code, error = jnp.where(better[None], start, code), jnp.where(better, known, error)
    steps = jnp.full(energy.shape, rounds, jnp.int32)
    unknown, finite = jnp.full_like(error, jnp.nan), jnp.isfinite(error)
    return Solution(code, error, 0.5 * error, unknown, steps, finite, finite)


def join_best(_, state, *, problem: Quadratic):
    """Returns the supports and codes (two tuples of k arrays) after one more atom has joined."""
    chosen, code = state
    gram, correlation, count = problem.gram, problem.correlation, len(code)
    fitted = apply_gram(gram, code)
    fit = [jnp.where(chosen[j], -1.0, jnp.abs(correlation[j] - fitted[j])) for j in range(count)]
    best = reduce(jnp.maximum, fit)
    taken, joined = jnp.zeros(best.shape, bool), []
    for j in range(count):  # of equals the first
        wins = (fit[j] == best) & ~taken
        taken |= wins
        joined.append(chosen[j] | wins)
    return tuple(joined), tuple(on_own_support(gram, joined, correlation))
