"""ISTA: gradient steps followed by soft thresholding. When it stops: `stopping.py`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import (
    Count,
    Lasso,
    Number,
    Solution,
    product,
    soft_threshold,
    spectral_bound,
)
from sparse_ad.sparse.solvers.stopping import descend


def ista(
    problem: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: Count,
    tolerance: Number,
    nonnegative: bool = False,
) -> Solution:
    """Solves one lasso by the iterative shrinkage-thresholding algorithm.

        z <- shrink(z + (D x - z G) / L, penalty / L),   G = D D^T, L >= its largest eigenvalue

    Source: Daubechies, Defrise & De Mol (2004); Beck & Teboulle (2009), Eq. (1.4).
    """
    gram = product(problem.dictionary, problem.dictionary.T)
    correlation = product(problem.dictionary, problem.signal)
    rate = 1.0 / spectral_bound(gram)

    def advance(code):
        moved = code + rate * (correlation - product(code, gram))
        return soft_threshold(moved, rate * problem.penalty, nonnegative)

    return descend(
        problem,
        jnp.zeros_like(correlation) if start is None else start,
        advance,
        lambda code: code,
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )
