"""ISTA: gradient steps followed by soft thresholding."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.descent import descend
from sparse_ad.sparse.lasso import Lasso, Solution, product, soft_threshold, spectral_bound


def ista(
    lasso: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: int,
    tolerance: float,
    nonnegative: bool = False,
) -> Solution:
    """Solves one lasso by the iterative shrinkage-thresholding algorithm.

        z <- shrink(z + (D x - z G) / L, penalty / L),   G = D D^T, L >= its largest eigenvalue

    Errors: none under jit; see `descend` for how it stops.
    Source: Daubechies, Defrise & De Mol (2004); Beck & Teboulle (2009), Eq. (1.4).
    """
    gram = product(lasso.dictionary, lasso.dictionary.T)
    correlation = product(lasso.dictionary, lasso.signal)
    rate = 1.0 / spectral_bound(gram)

    def advance(code):
        moved = code + rate * (correlation - product(code, gram))
        return soft_threshold(moved, rate * lasso.penalty, nonnegative)

    return descend(
        lasso,
        jnp.zeros_like(correlation) if start is None else start,
        advance,
        lambda code: code,
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )
