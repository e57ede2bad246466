"""The stopping rule of ISTA, FISTA and coordinate descent, and the loop that applies it.

A loop ends when the relative duality gap meets the tolerance, when it makes no more progress, or
after max_steps. Where float32 allows no further progress (the gap is down to its rounding floor, or
neither gap nor objective falls any more) the solution has `converged = False` if the tolerance was
not met. A tolerance below the floor cannot be met, and takes at most twice the steps that a gap of
ENOUGH took.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_ad.sparse.certificate import Certificate, certify
from sparse_ad.sparse.problems import Count, Lasso, Number, Solution

CHECK_EVERY = 5  # steps between two certificates, each of which costs about as much as a step
PATIENCE = 4  # certificates without progress before the loop ends, or half of the steps so far
ENOUGH = 1e-4  # a relative gap; a tolerance below the floor doubles the steps it took, at most
NEVER = jnp.iinfo(jnp.int32).max // 2


class Progress(NamedTuple):
    """What the loop remembers between two certificates."""

    state: Any  # of the solver
    steps: Int[Array, ""]
    code: Float[Array, " k"]  # the one with the smallest gap so far
    best: Certificate  # of that code
    mark: Certificate  # at the last step that counted as progress
    last_gain: Int[Array, ""]  # that step
    enough: Int[Array, ""]  # the first step whose gap was ENOUGH


def descend(
    lasso: Lasso,
    state: Any,
    advance: Callable[[Any], Any],
    code_of: Callable[[Any], Float[Array, " k"]],
    *,
    max_steps: Count,
    tolerance: Number,
    nonnegative: bool,
) -> Solution:
    """Advances a solver's state until the stopping rule ends it; returns the best code seen."""
    assess = partial(certify, lasso, nonnegative=nonnegative)
    code = code_of(state)
    known, zero = assess(code), jnp.zeros((), jnp.int32)
    enough = jnp.where(known.gap <= ENOUGH, zero, NEVER)
    end = lax.while_loop(
        partial(continues, max_steps=max_steps, tolerance=tolerance),
        partial(advance_and_assess, advance=advance, code_of=code_of, assess=assess),
        Progress(state, zero, code, known, known, zero, enough),
    )
    return solution_of(end.code, end.best, end.steps, tolerance)


def continues(progress: Progress, *, max_steps: Count, tolerance: Number) -> Bool[Array, ""]:
    """Returns whether to go on: the stopping rule at the top of this module."""
    steps, best = progress.steps, progress.best
    unmet = best.gap > jnp.maximum(tolerance, best.floor)
    stalled = steps - progress.last_gain >= jnp.maximum(PATIENCE * CHECK_EVERY, steps // 2)
    futile = (tolerance < best.floor) & (steps + CHECK_EVERY > 2 * progress.enough)
    return unmet & ~stalled & ~futile & (steps < max_steps)


def advance_and_assess(
    progress: Progress, *, advance: Callable, code_of: Callable, assess: Callable
) -> Progress:
    """Returns the progress after CHECK_EVERY more steps and a certificate."""
    state = lax.fori_loop(0, CHECK_EVERY, lambda _, state: advance(state), progress.state)
    code, steps = code_of(state), progress.steps + CHECK_EVERY
    now, best, mark = assess(code), progress.best, progress.mark
    eps = jnp.finfo(code.dtype).eps
    better = now.gap < best.gap
    gains = (now.gap < 0.9 * mark.gap) | (now.objective < mark.objective * (1 - 4 * eps))
    return Progress(
        state=state,
        steps=steps,
        code=jnp.where(better, code, progress.code),
        best=choose(better, now, best),
        mark=choose(gains, now, mark),
        last_gain=jnp.where(gains, steps, progress.last_gain),
        enough=jnp.minimum(progress.enough, jnp.where(now.gap <= ENOUGH, steps, NEVER)),
    )


def choose(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    """Returns one of two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def solution_of(
    code: Float[Array, " k"], known: Certificate, steps: Int[Array, ""], tolerance: Number
) -> Solution:
    """Returns the solution that a code and its certificate make."""
    converged = known.gap <= tolerance
    settled = converged | (known.gap <= known.floor)
    return Solution(code, known.error, known.objective, known.gap, steps, converged, settled)
