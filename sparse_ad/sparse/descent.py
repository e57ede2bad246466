"""The loop that all iterative lasso solvers share: when to look, when to stop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.sparse.lasso import Certificate, Lasso, Solution, certify

CHECK_EVERY = 5  # steps between two looks at the gap, which costs about as much as a step
PATIENCE = 4  # looks without progress before giving up, or half of the steps so far
ENOUGH = 1e-4  # a relative gap; a tolerance below the floor doubles the steps it took, at most
NEVER = jnp.iinfo(jnp.int32).max // 2


class Progress(NamedTuple):
    """What the loop remembers between two looks."""

    state: Any
    steps: Array
    code: Array  # the one with the smallest gap so far
    best: Certificate  # that code's
    mark: Certificate  # at the last step that counted as progress
    last_gain: Array  # that step
    enough: Array  # the first step whose gap was ENOUGH


def descend(
    lasso: Lasso,
    state: Any,
    advance: Callable[[Any], Any],
    code_of: Callable[[Any], Float[Array, " k"]],
    *,
    max_steps: int,
    tolerance: float,
    nonnegative: bool,
) -> Solution:
    """Advances until the relative gap meets the tolerance, progress ends, or max_steps.

    Returns the best code seen. Where float32 allows no further progress (the gap is down to its
    rounding floor, or neither gap nor objective falls any more) the loop ends, and the solution
    says `converged = False` if the tolerance was not met; it never raises. A tolerance below the
    floor cannot be met, and takes at most twice the steps that a gap of ENOUGH took.
    """
    eps = jnp.finfo(lasso.signal.dtype).eps

    def proceed(p: Progress) -> Array:
        idle = p.steps - p.last_gain
        stalled = idle >= jnp.maximum(PATIENCE * CHECK_EVERY, p.steps // 2)
        unmet = p.best.gap > jnp.maximum(tolerance, p.best.floor)
        futile = (tolerance < p.best.floor) & (p.steps + CHECK_EVERY > 2 * p.enough)
        return unmet & ~stalled & ~futile & (p.steps < max_steps)

    def move(p: Progress) -> Progress:
        state = lax.fori_loop(0, CHECK_EVERY, lambda _, s: advance(s), p.state)
        code, steps = code_of(state), p.steps + CHECK_EVERY
        now = certify(lasso, code, nonnegative)
        better = now.gap < p.best.gap
        gains = (now.gap < 0.9 * p.mark.gap) | (now.objective < p.mark.objective * (1 - 4 * eps))
        return Progress(
            state=state,
            steps=steps,
            code=jnp.where(better, code, p.code),
            best=choose(better, now, p.best),
            mark=choose(gains, now, p.mark),
            last_gain=jnp.where(gains, steps, p.last_gain),
            enough=jnp.minimum(p.enough, jnp.where(now.gap <= ENOUGH, steps, NEVER)),
        )

    def choose(condition: Array, new: Certificate, old: Certificate) -> Certificate:
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)

    zero = jnp.zeros((), jnp.int32)
    code = code_of(state)
    first = certify(lasso, code, nonnegative)
    enough = jnp.where(first.gap <= ENOUGH, zero, NEVER)
    begin = Progress(state, zero, code, first, first, zero, enough)
    end = lax.while_loop(proceed, move, begin)
    return conclude(end.code, end.best, end.steps, tolerance)


def conclude(
    code: Float[Array, " k"], known: Certificate, steps: Array, tolerance: float
) -> Solution:
    """Returns the solution that a code and its certificate make."""
    converged = known.gap <= tolerance
    settled = converged | (known.gap <= known.floor)
    return Solution(code, known.objective, known.gap, steps, converged, settled)
