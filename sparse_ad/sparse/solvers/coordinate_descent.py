"""Coordinate descent on the Gram matrix."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.sparse.descent import descend
from sparse_ad.sparse.lasso import Lasso, Solution, product, soft_threshold


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

    Atoms of length zero keep a zero coefficient. Errors: none under jit; see `descend`.
    Source: Friedman, Hastie & Tibshirani (2010), section 2.2, covariance updates.
    """
    gram = product(lasso.dictionary, lasso.dictionary.T)
    correlation = product(lasso.dictionary, lasso.signal)
    lengths = jnp.diag(gram)

    def visit(j, state):
        code, q = state
        length = jnp.maximum(lengths[j], jnp.finfo(q.dtype).tiny)
        old = code[j]
        new = soft_threshold(q[j] + lengths[j] * old, lasso.penalty, nonnegative) / length
        return code.at[j].set(new), q - (new - old) * gram[j]

    def sweep(code):
        q = correlation - product(code, gram)  # afresh, so that rounding does not pile up
        return lax.fori_loop(0, code.shape[0], visit, (code, q))[0]

    return descend(
        lasso,
        jnp.zeros_like(correlation) if start is None else start,
        sweep,
        lambda code: code,
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )
