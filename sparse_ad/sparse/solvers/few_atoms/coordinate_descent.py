"""Coordinate descent, for dictionaries of a few atoms and millions of signals.

It stops by the duality gap alone, whatever rounding allows: of a few atoms descent is fast, and
float32 certifies gaps down to about 1e-6.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.sparse.problems import Quadratic, Solution, soft_threshold
from sparse_ad.sparse.solvers.few_atoms.least_squares import (
    apply_gram,
    change_of_error,
    on_own_support,
    squared_error,
)

SWEEPS = 5  # between two certificates
TOGETHER = 2  # certificates of all signals; those whose gaps are too large by then are gathered
GATHERED = 512  # of them at a time


class Descent(NamedTuple):
    """Codes under way, an array for each atom."""

    code: tuple[Float[Array, "..."], ...]
    gap: Float[Array, "..."]
    steps: Int[Array, "..."]


class Stacked(NamedTuple):
    """Codes between the loops."""

    code: Float[Array, "k ..."]
    gap: Float[Array, "..."]
    steps: Int[Array, "..."]


def coordinate_descent(
    problem: Quadratic,
    start: Float[Array, "k ..."] | None = None,
    *,
    penalty: float,
    max_steps: int,
    tolerance: float,
) -> Solution:
    """Minimises 1/2 ||x - z D||^2 + penalty ||z||_1, one coordinate after the other.

        z_j <- soft(q_j - sum_{i != j} z_i G_ij, penalty) / G_jj

    A step is a sweep over all atoms. Few sweeps suffice for nearly all signals; the others, they
    alone, are gathered and descend until their relative duality gap meets the tolerance, or for
    max_steps sweeps. `steps` counts the sweeps that a signal took part in.

    Source: Friedman, Hastie & Tibshirani (2010), section 2.2, covariance updates.
    """
    descend = partial(descend_together, penalty=penalty, tolerance=tolerance)
    begin = jnp.zeros_like(problem.correlation) if start is None else start
    most = min(max_steps, TOGETHER * SWEEPS)
    code, gap, steps = descend(problem, tuple(begin), max_steps=most)
    descent = Stacked(jnp.stack(code), gap, jnp.full(gap.shape, steps))
    if most < max_steps:
        further = partial(descend, max_steps=max_steps - most)
        descent = gather_and_descend(further, problem, descent, tolerance)
    code, gap, steps = descent
    error = squared_error(problem, code)
    objective = 0.5 * error + penalty * jnp.sum(jnp.abs(code), axis=0)
    converged = gap <= tolerance
    return Solution(code, error, objective, gap, steps, converged, converged)


def descend_together(
    problem: Quadratic, code: tuple[Array, ...], *, penalty, tolerance, max_steps: int
) -> Descent:
    """Sweeps until all gaps meet the tolerance, or max_steps times; `steps` is one number."""

    def proceed(descent: Descent):
        return (jnp.max(descent.gap) > tolerance) & (descent.steps < max_steps)

    def move(descent: Descent) -> Descent:
        once = partial(sweep, problem=problem, inverse=inverse, penalty=penalty)
        code = lax.fori_loop(0, SWEEPS, once, descent.code)
        code = polish(problem, code, penalty)
        return Descent(code, relative_gap(problem, code, penalty), descent.steps + SWEEPS)

    tiny = jnp.finfo(problem.gram.dtype).tiny
    inverse = [1.0 / jnp.maximum(problem.gram[j, j], tiny) for j in range(len(code))]
    unknown = jnp.full(problem.energy.shape, jnp.inf, problem.energy.dtype)
    return lax.while_loop(proceed, move, Descent(code, unknown, jnp.zeros((), jnp.int32)))


def sweep(_, code: tuple[Array, ...], *, problem: Quadratic, inverse, penalty):
    """Returns the codes after each coordinate took its best value in turn."""
    new, count = list(code), len(code)
    for j in range(count):
        left = problem.correlation[j]
        for i in range(count):
            left = left - new[i] * problem.gram[i, j] if i != j else left
        new[j] = soft_threshold(left, penalty) * inverse[j]
    return tuple(new)


def gather_and_descend(
    solve: Callable[..., Descent], problem: Quadratic, descent: Stacked, tolerance: float
) -> Stacked:
    """Returns the descent with the signals whose gap misses the tolerance solved further."""
    code, gap, steps = descent
    shape, count = gap.shape, len(code)
    missed = (gap > tolerance).ravel()
    left, total = jnp.sum(missed), missed.shape[0]
    order = jnp.cumsum(missed) - 1  # of the missed ones among themselves

    def turn(state):
        done, (code, gap, steps) = state
        due = missed & (order >= done) & (order < done + GATHERED)
        indices = jnp.nonzero(due, size=min(GATHERED, total), fill_value=total)[0]
        inside = jnp.minimum(indices, total - 1)
        better = solve(pick(problem, inside, shape), tuple(code[:, inside]))
        code = code.at[:, indices].set(jnp.stack(better.code), mode="drop")
        gap = gap.at[indices].set(better.gap, mode="drop")
        return done + GATHERED, Stacked(code, gap, steps.at[indices].add(better.steps, mode="drop"))

    flat = Stacked(code.reshape(count, -1), gap.ravel(), steps.ravel())
    begin = (jnp.zeros((), left.dtype), flat)
    code, gap, steps = lax.while_loop(lambda state: state[0] < left, turn, begin)[1]
    return Stacked(code.reshape(count, *shape), gap.reshape(shape), steps.reshape(shape))


def pick(problem: Quadratic, indices: Int[Array, " m"], shape: tuple[int, ...]) -> Quadratic:
    """Returns the problems of the signals at flat `indices` into batch axes of `shape`."""
    index = jnp.unravel_index(indices, shape)

    def columns(array, axes: int):  # the batch axes behind the first `axes` broadcast to `shape`
        sides = zip(index, array.shape[axes:], strict=True)
        return array[(slice(None),) * axes + tuple(i if side > 1 else 0 for i, side in sides)]

    return Quadratic(
        *(columns(array, axes) for array, axes in zip(problem, (2, 1, 0), strict=True))
    )


def polish(
    problem: Quadratic, code: tuple[Array, ...], penalty: float
) -> tuple[Float[Array, "..."], ...]:
    """Returns the minimiser among codes of the same signs, where it has these signs.

        z_S = G_SS^-1 (q_S - penalty sign(z_S))

    Descent finds the signs early and the values late, where atoms are coherent.
    """
    signs = [jnp.sign(z) for z in code]
    right = [problem.correlation[j] - penalty * sign for j, sign in enumerate(signs)]
    exact = on_own_support(problem.gram, [sign != 0.0 for sign in signs], right)
    pairs = zip(exact, signs, strict=True)
    agrees = reduce(jnp.logical_and, [jnp.sign(z) == sign for z, sign in pairs])
    return tuple(jnp.where(agrees, z, old) for z, old in zip(exact, code, strict=True))


def relative_gap(
    problem: Quadratic, code: tuple[Array, ...], penalty: float
) -> Float[Array, "..."]:
    """Returns the relative duality gap as `certify` does; the residual here is implicit."""
    fitted = apply_gram(problem.gram, code)  # used below more than once
    projected = [problem.correlation[j] - fit for j, fit in enumerate(fitted)]  # D r
    change = change_of_error(problem.correlation, code, fitted)
    error = jnp.maximum(problem.energy + change, 0.0)
    steepest = reduce(jnp.maximum, map(jnp.abs, projected))
    s = penalty / jnp.maximum(steepest, penalty)
    size = [penalty * jnp.abs(z) for z in code]
    pairs = zip(size, code, projected, strict=True)
    slack = sum(jnp.maximum(most - s * z * q, 0.0) for most, z, q in pairs)
    gap = 0.5 * (1.0 - s) ** 2 * error + slack
    total = 0.5 * error + sum(size)
    return gap / jnp.where(total == 0.0, 1.0, total)
