"""What is known of a code without knowing the solution: objective, duality gap, rounding floor."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Lasso, product


class Certificate(NamedTuple):
    """How good a code of a lasso is, at least."""

    error: Float[Array, ""]  # ||x - z D||^2
    objective: Float[Array, ""]
    gap: Float[Array, ""]  # relative to the objective
    floor: Float[Array, ""]  # the rounding error of that gap


def certify(lasso: Lasso, code: Float[Array, " k"], nonnegative: bool = False) -> Certificate:
    """Returns a code's objective, its duality gap, and how exactly float32 knows that gap.

    With r = x - z D, q = D r and the dual point s r, s = min(1, penalty / max|q|),

        gap = 1/2 (1 - s)^2 ||r||^2 + sum_j (penalty |z_j| - s z_j q_j).

    Every term is non-negative, so that float32 loses nothing to cancellation, as it does when a
    dual objective is subtracted from a primal one. What is left is the rounding of q, about
    eps ||x|| for unit atoms, which moves the gap by about eps ||x|| ||z||_1: the floor.

    Source: the duality gap of the lasso, as in Fercoq, Gramfort & Salmon, "Mind the duality gap"
    (2015), Eq. (2)-(4); terms rearranged.
    """
    residual = lasso.signal - product(code, lasso.dictionary)
    q = product(lasso.dictionary, residual)
    steepest = jnp.max(jnp.maximum(q, 0.0) if nonnegative else jnp.abs(q))
    s = lasso.penalty / jnp.maximum(steepest, lasso.penalty)
    error = jnp.sum(residual**2)
    size = lasso.penalty * jnp.abs(code)
    gap = (1.0 - s) ** 2 * (0.5 * error) + jnp.sum(jnp.maximum(size - s * code * q, 0.0))
    rounding = 2.0 * jnp.finfo(q.dtype).eps * jnp.linalg.norm(lasso.signal)
    floor = rounding * jnp.sum(jnp.abs(code))
    objective = 0.5 * error + jnp.sum(size)
    scale = jnp.where(objective == 0.0, 1.0, objective)  # a zero signal: its gap is zero too
    return Certificate(error, objective, gap / scale, floor / scale)
