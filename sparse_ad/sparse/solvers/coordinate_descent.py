"""Coordinate descent on the Gram matrix."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.sparse.descent import descend
from sparse_ad.sparse.lasso import Lasso, Solution, product, soft_threshold

BLOCK = 20  # atoms between two updates of the correlations of all others


def coordinate_descent(
    lasso: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: int,
    tolerance: float,
    nonnegative: bool = False,
) -> Solution:
    """Solves one lasso exactly in one coordinate after the other; a step is a sweep over all k.

        z_j <- shrink(q_j + G_jj z_j, penalty) / G_jj,   q = D x - z G,   G = D D^T

    q is brought up to date within a block of atoms at each change, and for all others once a
    block: the same iterates, but most of the work is a matrix product over the lanes of a vmap.

    Atoms of length zero keep a zero coefficient. Errors: none under jit; see `descend`.
    Source: Friedman, Hastie & Tibshirani (2010), section 2.2, covariance updates.
    """
    atoms = lasso.dictionary.shape[0]
    padding = -atoms % BLOCK
    dictionary = jnp.pad(lasso.dictionary, ((0, padding), (0, 0)))
    gram = product(dictionary, dictionary.T)
    correlation = product(dictionary, lasso.signal)
    tiny = jnp.finfo(gram.dtype).tiny

    def visit(block, state):
        code, q = state
        first = block * BLOCK
        rows = lax.dynamic_slice_in_dim(gram, first, BLOCK)
        among = lax.dynamic_slice_in_dim(rows, first, BLOCK, axis=1)
        old = lax.dynamic_slice_in_dim(code, first, BLOCK)
        rest = lax.dynamic_slice_in_dim(q, first, BLOCK)

        def visit_one(j, state):
            new, rest = state
            length = among[j, j]
            best = soft_threshold(rest[j] + length * new[j], lasso.penalty, nonnegative)
            best = best / jnp.maximum(length, tiny)
            return new.at[j].set(best), rest - (best - new[j]) * among[j]

        new, _ = lax.fori_loop(0, BLOCK, visit_one, (old, rest))
        code = lax.dynamic_update_slice_in_dim(code, new, first, 0)
        return code, q - product(new - old, rows)

    def sweep(code):
        q = correlation - product(code, gram)  # afresh, so that rounding does not pile up
        return lax.fori_loop(0, code.shape[0] // BLOCK, visit, (code, q))[0]

    return descend(
        lasso,
        jnp.zeros_like(correlation) if start is None else jnp.pad(start, (0, padding)),
        sweep,
        lambda code: code[:atoms],
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )
