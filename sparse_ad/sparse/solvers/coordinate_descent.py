"""Coordinate descent on the Gram matrix, for any number of atoms. When it stops: `stopping.py`.

For dictionaries of a few atoms and millions of signals: `few_atoms/coordinate_descent.py`.
"""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Count, Lasso, Number, Solution, product, soft_threshold
from sparse_ad.sparse.solvers.stopping import descend

BLOCK = 20  # atoms between two updates of the correlations of all others


def coordinate_descent(
    problem: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: Count,
    tolerance: Number,
    nonnegative: bool = False,
) -> Solution:
    """Solves one lasso exactly in one coordinate after the other; a step is a sweep over all k.

        z_j <- shrink(q_j + G_jj z_j, penalty) / G_jj,   q = D x - z G,   G = D D^T

    q is kept current within a block of atoms at each change, and for all others once a block: the
    same iterates, but most of the work is a matrix product over the lanes of a vmap. Atoms of
    length zero keep a zero coefficient.

    Source: Friedman, Hastie & Tibshirani (2010), section 2.2, covariance updates.
    """
    atoms = problem.dictionary.shape[0]
    padding = -atoms % BLOCK
    dictionary = jnp.pad(problem.dictionary, ((0, padding), (0, 0)))
    gram = product(dictionary, dictionary.T)
    correlation = product(dictionary, problem.signal)
    penalty = problem.penalty
    visit = partial(visit_block, gram=gram, penalty=penalty, nonnegative=nonnegative)

    def sweep(code):
        q = correlation - product(code, gram)  # recomputed, so that rounding does not pile up
        return lax.fori_loop(0, code.shape[0] // BLOCK, visit, (code, q))[0]

    return descend(
        problem,
        jnp.zeros_like(correlation) if start is None else jnp.pad(start, (0, padding)),
        sweep,
        lambda code: code[:atoms],
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )


def visit_block(block, state, *, gram: Float[Array, "k k"], penalty: Array, nonnegative: bool):
    """Returns code and correlations (z, q) after a visit to each atom of a block."""
    code, q = state
    first = block * BLOCK
    rows = lax.dynamic_slice_in_dim(gram, first, BLOCK)
    inner = lax.dynamic_slice_in_dim(rows, first, BLOCK, axis=1)
    old = lax.dynamic_slice_in_dim(code, first, BLOCK)
    visit = partial(visit_atom, gram=inner, penalty=penalty, nonnegative=nonnegative)
    start = (old, lax.dynamic_slice_in_dim(q, first, BLOCK))
    new, _ = lax.fori_loop(0, BLOCK, visit, start)
    code = lax.dynamic_update_slice_in_dim(code, new, first, 0)
    return code, q - product(new - old, rows)


def visit_atom(j, state, *, gram: Float[Array, "b b"], penalty: Array, nonnegative: bool):
    """Returns code and correlations of a block after atom j took its best coefficient."""
    code, q = state
    length = gram[j, j]
    best = soft_threshold(q[j] + length * code[j], penalty, nonnegative)
    best = best / jnp.maximum(length, jnp.finfo(gram.dtype).tiny)
    return code.at[j].set(best), q - (best - code[j]) * gram[j]
