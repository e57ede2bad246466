"""Homotopy: the whole solution path, from the penalty that gives zero down to the one asked for.

The path z(penalty) is linear between events. An event is an atom that joins the support, because
its correlation with the residual has reached the penalty, or one that leaves it, because its
coefficient has reached zero. Codes are sparse, so events are few; and one event is a handful of
small dense operations of fixed shape, so a vmap over patches keeps every lane of the machine busy.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_ad.sparse.descent import conclude
from sparse_ad.sparse.lasso import Lasso, Solution, certify, product, residual_correlation

MIN_PIVOT = 1e-5  # squared distance of a unit atom from the span of the support, below which
# the atom is as good as in it, and float32 could not tell its coefficient


class Path(NamedTuple):
    """Where on the path we are. The support has m slots; an empty slot has sign 0."""

    atoms: Int[Array, " m"]  # which atom a slot holds
    signs: Float[Array, " m"]  # of its coefficient: -1, 0, 1
    values: Float[Array, " m"]  # its coefficient
    slopes: Float[Array, " m"]  # change of the coefficient as the penalty falls by 1
    inverse: Float[Array, "m m"]  # of the Gram of the support; zero in empty slots
    q: Float[Array, " k"]  # correlation of each atom with the residual
    barred: Bool[Array, " k"]  # atoms that may not join: in the support or in its span
    left: Int[Array, ""]  # atom that left in the last event, -1 if none: it may not rejoin at once
    penalty: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def first_min(values: Float[Array, " a"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Returns the first position of the smallest value, and the value.

    Two plain reductions, which vectorise where an argmin, a reduction over pairs, does not.
    """
    low = jnp.min(values)
    last = values.shape[0] - 1
    places = jnp.arange(values.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(values == low, places, last)), low


def begin(correlation: Float[Array, " k"], penalty: Array, slots: int, nonnegative: bool) -> Path:
    """Returns the start of the path: the most correlated atom enters at zero."""
    atom, low = first_min(-correlation if nonnegative else -jnp.abs(correlation))
    sign = jnp.where(-low > penalty, jnp.sign(correlation[atom]), 0.0)
    signs = jnp.zeros(slots, correlation.dtype).at[0].set(sign)
    return Path(
        atoms=jnp.zeros(slots, jnp.int32).at[0].set(atom),
        signs=signs,
        values=jnp.zeros_like(signs),
        slopes=signs,
        inverse=jnp.zeros((slots, slots), correlation.dtype).at[0, 0].set(jnp.abs(sign)),
        q=correlation,
        barred=jnp.arange(correlation.shape[0]) == atom,
        left=jnp.full((), -1, jnp.int32),
        penalty=-low,
        steps=jnp.zeros((), jnp.int32),
        done=~(-low > penalty),  # NaN, too, is done
    )


def spread(path: Path, values: Float[Array, " m"]) -> Float[Array, " k"]:
    """Returns the values of the slots at the places of their atoms."""
    return jnp.zeros_like(path.q).at[path.atoms].add(values, mode="promise_in_bounds")


def next_join(path: Path, decline: Float[Array, " k"], nonnegative: bool):
    """Returns the atom that joins next, and by how much the penalty falls until then.

    |q_j - fall decline_j| = penalty - fall, for either sign of the left side.
    """
    gain = 1.0 - decline
    fall = jnp.where(gain > 1e-6, (path.penalty - path.q) / gain, jnp.inf)
    if not nonnegative:
        gain = 1.0 + decline
        fall = jnp.minimum(fall, jnp.where(gain > 1e-6, (path.penalty + path.q) / gain, jnp.inf))
    may_not = path.barred | (jnp.arange(fall.shape[0]) == path.left)
    atom, fall = first_min(jnp.where(may_not, jnp.inf, fall))
    return atom, jnp.maximum(fall, 0.0)


def next_leave(path: Path):
    """Returns the slot that empties next, and by how much the penalty falls until then."""
    shrinks = path.values * path.slopes < 0.0
    return first_min(jnp.where(shrinks, -path.values / path.slopes, jnp.inf))


def event(path: Path, gram: Float[Array, "k k"], target: Array, nonnegative: bool) -> Path:
    """Moves along the path to its next event and takes it.

    Joining and leaving both change the inverse by one rank: inverse + w w^T / pivot, with
    w = inverse g - e and pivot the Schur complement 1 - g . inverse g when an atom with
    correlations g joins the empty slot e; w the slot's column and pivot minus its diagonal when
    it leaves. The slopes, inverse . signs, follow by the same update.
    """
    decline = product(spread(path, path.slopes), gram)
    atom, until_join = next_join(path, decline, nonnegative)
    slot_out, until_leave = next_leave(path)
    empty, occupied = first_min(jnp.abs(path.signs))
    full = occupied > 0.0
    fall = jnp.minimum(jnp.minimum(until_join, until_leave), path.penalty - target)
    ends = fall >= path.penalty - target
    leaves = ~ends & (until_leave <= fall)
    joins = ~ends & ~leaves

    q = path.q - fall * decline
    values = path.values + fall * path.slopes
    slots = jnp.arange(values.shape[0], dtype=jnp.int32)
    at = slots == jnp.where(leaves, slot_out, empty)
    unit = at.astype(q.dtype)
    g = gram[atom, path.atoms] * jnp.abs(path.signs)
    w = jnp.sum(path.inverse * jnp.where(leaves, unit, g), axis=-1)
    pivot = jnp.where(leaves, -jnp.sum(w * unit), 1.0 - jnp.sum(g * w))
    w = jnp.where(leaves, w, w - unit)
    changes = leaves | (joins & ~full & (pivot > MIN_PIVOT))
    strength = jnp.where(changes, 1.0 / pivot, 0.0)
    keep = 1.0 - jnp.where(leaves, unit, 0.0)

    old_sign = jnp.sum(path.signs * jnp.where(leaves, unit, 0.0))
    new_sign = jnp.where(leaves, 0.0, jnp.sign(q[atom]))
    signs = jnp.where(at & changes, new_sign, path.signs)
    slopes = path.slopes - old_sign * w + strength * jnp.sum(w * signs) * w
    atoms = jnp.arange(q.shape[0], dtype=jnp.int32)
    gone = jnp.where(leaves, jnp.sum(jnp.where(at, path.atoms, 0)), -1)
    return Path(
        atoms=jnp.where(at & joins & changes, atom, path.atoms),
        signs=signs,
        values=values * keep,
        slopes=slopes * keep,
        inverse=(path.inverse + strength * w[:, None] * w) * keep[:, None] * keep,
        q=q,
        barred=(path.barred | (joins & (atoms == atom))) & (atoms != gone),
        left=gone,
        penalty=path.penalty - fall,
        steps=path.steps + 1,
        done=path.done | ends | (joins & full) | ~jnp.isfinite(fall),
    )


def refine(lasso: Lasso, path: Path, nonnegative: bool) -> Float[Array, " k"]:
    """Returns the code at the end of the path, by two Newton steps on its support and signs.

    They take off the rounding that the events have piled up.
    """
    values = path.values
    for _ in range(2):
        q = residual_correlation(lasso, spread(path, values))
        excess = jnp.where(path.signs != 0.0, q[path.atoms] - lasso.penalty * path.signs, 0.0)
        values = values + jnp.sum(path.inverse * excess, axis=-1)
    return spread(path, jnp.where(values * path.signs > 0.0, values, 0.0))


def homotopy(
    lasso: Lasso,
    *,
    max_steps: int,
    tolerance: float,
    nonnegative: bool = False,
    max_support: int = 16,
) -> Solution:
    """Solves one lasso by following its solution path; unit atoms. A step is an event.

    A path that needs more than `max_support` atoms at once ends where it is, not converged;
    `sparse_coder` then has other solvers go on. Work and memory grow as max_support^2.

    Errors: none under jit; `converged` says whether the gap meets the tolerance.
    Source: Osborne, Presnell & Turlach (2000); Efron et al. (2004), LARS with the lasso
    modification, section 3.1, which MLF-SC uses (section 4, "Lasso-LARS").
    Differs: an explicit inverse in place of a Cholesky factor, so that joining and leaving are
    one formula, and Newton steps at the end.
    """
    gram = product(lasso.dictionary, lasso.dictionary.T)
    correlation = product(lasso.dictionary, lasso.signal)
    slots = min(max_support, *lasso.dictionary.shape)  # no support needs more than k or d
    path = lax.while_loop(
        lambda path: ~path.done & (path.steps < max_steps),
        partial(event, gram=gram, target=lasso.penalty, nonnegative=nonnegative),
        begin(correlation, lasso.penalty, slots, nonnegative),
    )
    code = refine(lasso, path, nonnegative)
    return conclude(code, certify(lasso, code, nonnegative), path.steps, tolerance)
