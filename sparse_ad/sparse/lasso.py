"""The lasso: the problem, its objective, and the certificate of a solution.

    minimise over z:  1/2 ||x - z D||^2 + penalty ||z||_1        (optionally z >= 0)

Source: Imamura et al., MLF-SC, section 3.1, Eq. (1), with D transposed: atoms are rows here.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Lasso(NamedTuple):
    """One signal to be coded by few atoms."""

    dictionary: Float[Array, "k d"]  # atoms in rows
    signal: Float[Array, " d"]
    penalty: Float[Array, ""]


class Solution(NamedTuple):
    """A code, and how good it is known to be."""

    code: Float[Array, " k"]
    objective: Float[Array, ""]
    gap: Float[Array, ""]  # duality gap / objective: the objective is optimal within this share
    steps: Int[Array, ""]
    converged: Bool[Array, ""]  # gap <= tolerance
    settled: Bool[Array, ""]  # converged, or at the rounding floor: float32 allows no better


def product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns a @ b in full float32, also where the accelerator's default is TF32 or bfloat16."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def soft_threshold(
    value: Float[Array, "..."], amount: Float[Array, "..."], nonnegative: bool = False
) -> Float[Array, "..."]:
    """Returns argmin_z 1/2 (z - value)^2 + amount |z|, over z >= 0 if `nonnegative`."""
    shrunk = jnp.maximum(value - amount, 0.0)
    return shrunk if nonnegative else shrunk + jnp.minimum(value + amount, 0.0)


def objective(lasso: Lasso, code: Float[Array, " k"]) -> Float[Array, ""]:
    """Returns 1/2 ||x - z D||^2 + penalty ||z||_1."""
    residual = lasso.signal - product(code, lasso.dictionary)
    return 0.5 * jnp.sum(residual**2) + lasso.penalty * jnp.sum(jnp.abs(code))


def penalty_max(
    dictionary: Float[Array, "k d"], signal: Float[Array, " d"], nonnegative: bool = False
) -> Float[Array, ""]:
    """Returns the smallest penalty whose solution is zero: max_j |d_j . x|, or max(0, d_j . x)."""
    correlation = product(dictionary, signal)
    return jnp.max(jnp.maximum(correlation, 0.0) if nonnegative else jnp.abs(correlation))


def residual_correlation(lasso: Lasso, code: Float[Array, " k"]) -> Float[Array, " k"]:
    """Returns q = D (x - z D), through the residual itself: more exact than through the Gram."""
    return product(lasso.dictionary, lasso.signal - product(code, lasso.dictionary))


class Certificate(NamedTuple):
    """What is known of a code without knowing the solution."""

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
    energy = 0.5 * jnp.sum(residual**2)
    size = lasso.penalty * jnp.abs(code)
    gap = (1.0 - s) ** 2 * energy + jnp.sum(jnp.maximum(size - s * code * q, 0.0))
    rounding = 2.0 * jnp.finfo(q.dtype).eps * jnp.linalg.norm(lasso.signal)
    floor = rounding * jnp.sum(jnp.abs(code))
    total = energy + jnp.sum(size)
    unit = jnp.where(total == 0.0, 1.0, total)  # a zero signal: its gap is zero too
    return Certificate(total, gap / unit, floor / unit)


def spectral_bound(gram: Float[Array, "k k"]) -> Float[Array, ""]:
    """Returns an upper bound, at most k^(1/64) times too large, of the largest eigenvalue.

    For a positive semi-definite G, largest eigenvalue <= trace(G^64)^(1/64).
    """
    power, log_scale = gram, jnp.zeros((), gram.dtype)
    for _ in range(6):
        scale = jnp.maximum(jnp.trace(power), jnp.finfo(gram.dtype).tiny)
        power, log_scale = power / scale, 2.0 * (log_scale + jnp.log(scale))
        power = product(power, power)
    return jnp.exp((jnp.log(jnp.trace(power)) + log_scale) / 64.0)
