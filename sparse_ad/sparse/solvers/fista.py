"""FISTA: ISTA with momentum that is dropped whenever it points uphill.

When it stops: `stopping.py`, as for ISTA and coordinate descent.
"""

from typing import NamedTuple

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


class Momentum(NamedTuple):
    """The state between two steps."""

    code: Float[Array, " k"]
    ahead: Float[Array, " k"]  # where the next gradient is taken
    weight: Float[Array, ""]


def fista(
    problem: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: Count,
    tolerance: Number,
    nonnegative: bool = False,
) -> Solution:
    """Solves one lasso by accelerated proximal gradient steps with adaptive restart.

        z' = shrink(y + (D x - y G) / L, penalty / L)
        t' = (1 + sqrt(1 + 4 t^2)) / 2,   y' = z' + (t - 1) / t' (z' - z)
        t' = 1, y' = z'  where (y - z') . (z' - z) > 0

    It stops as `stopping.py` says.
    Source: Beck & Teboulle (2009), Eq. (4.1)-(4.3); restart: O'Donoghue & Candes (2015),
    gradient scheme, Eq. (13).
    """
    gram = product(problem.dictionary, problem.dictionary.T)
    correlation = product(problem.dictionary, problem.signal)
    rate = 1.0 / spectral_bound(gram)

    def advance(state: Momentum) -> Momentum:
        moved = state.ahead + rate * (correlation - product(state.ahead, gram))
        code = soft_threshold(moved, rate * problem.penalty, nonnegative)
        change = code - state.code
        uphill = jnp.sum((state.ahead - code) * change) > 0.0
        weight = jnp.where(uphill, 1.0, 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * state.weight**2)))
        push = jnp.where(uphill, 0.0, (state.weight - 1.0) / weight)
        return Momentum(code, code + push * change, weight)

    code = jnp.zeros_like(correlation) if start is None else start
    return descend(
        problem,
        Momentum(code, code, jnp.ones((), code.dtype)),
        advance,
        lambda state: state.code,
        max_steps=max_steps,
        tolerance=tolerance,
        nonnegative=nonnegative,
    )
