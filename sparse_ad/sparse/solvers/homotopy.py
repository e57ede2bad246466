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

from sparse_ad.sparse.certificate import certify
from sparse_ad.sparse.problems import Count, Lasso, Number, Solution, product
from sparse_ad.sparse.solvers.stopping import choose, solution_of

MIN_PIVOT = 1e-5  # squared distance of an atom from the span of the support, of its squared
# length, below which it is as good as in it, and float32 could not tell its coefficient
ROUNDING = 1e-5  # a squared length this near to 1 is 1


class Path(NamedTuple):
    """Where on the path we are. The support has m slots; an empty slot has sign 0."""

    atoms: Int[Array, " m"]  # which atom a slot holds
    signs: Float[Array, " m"]  # of its coefficient: -1, 0, 1
    values: Float[Array, " m"]  # its coefficient
    rates: Float[Array, " m"]  # change of the coefficient as the penalty falls by 1
    inverse: Float[Array, "m m"]  # of the Gram of the support; zero in empty slots
    q: Float[Array, " k"]  # correlation of each atom with the residual
    excluded: Bool[Array, " k"]  # atoms that may not join: in the support or in its span
    left: Int[Array, ""]  # atom that left in the last event, -1 if none: it may not rejoin at once
    penalty: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def first_min(values: Float[Array, " a"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Returns the first index of the smallest value, and the value.

    Two plain reductions, which vectorise where an argmin, a reduction over pairs, does not.
    """
    low = jnp.min(values)
    last = values.shape[0] - 1
    indices = jnp.arange(values.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(values == low, indices, last)), low


def squared_lengths(gram: Float[Array, "k k"]) -> Float[Array, " k"]:
    """Returns the squared lengths of atoms, exactly 1 for unit atoms, whatever the rounding."""
    squares = jnp.diagonal(gram)
    return jnp.where(jnp.abs(squares - 1.0) <= ROUNDING, 1.0, squares)


def begin(
    correlation: Float[Array, " k"],
    squares: Float[Array, " k"],
    penalty: Array,
    slots: int,
    nonnegative: bool,
) -> Path:
    """Returns the start of the path: the most correlated atom enters at zero."""
    atom, low = first_min(-correlation if nonnegative else -jnp.abs(correlation))
    sign = jnp.where(-low > penalty, jnp.sign(correlation[atom]), 0.0)
    signs = jnp.zeros(slots, correlation.dtype).at[0].set(sign)
    inverse = 1.0 / jnp.where(sign == 0.0, 1.0, squares[atom])
    return Path(
        atoms=jnp.zeros(slots, jnp.int32).at[0].set(atom),
        signs=signs,
        values=jnp.zeros_like(signs),
        rates=signs * inverse,
        inverse=jnp.zeros((slots, slots), signs.dtype).at[0, 0].set(jnp.abs(sign) * inverse),
        q=correlation,
        excluded=jnp.arange(correlation.shape[0]) == atom,
        left=jnp.full((), -1, jnp.int32),
        penalty=-low,
        steps=jnp.zeros((), jnp.int32),
        done=~(-low > penalty),  # NaN, too, is done
    )


def to_atoms(path: Path, values: Float[Array, " m"]) -> Float[Array, " k"]:
    """Returns the values of the slots, each at the index of its atom; zero elsewhere."""
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
    may_not = path.excluded | (jnp.arange(fall.shape[0]) == path.left)
    atom, fall = first_min(jnp.where(may_not, jnp.inf, fall))
    return atom, jnp.maximum(fall, 0.0)


def next_leave(path: Path):
    """Returns the slot that empties next, and by how much the penalty falls until then."""
    shrinks = path.values * path.rates < 0.0
    return first_min(jnp.where(shrinks, -path.values / path.rates, jnp.inf))


class Event(NamedTuple):
    """What happens next on a path, and by how much the penalty falls until then."""

    fall: Float[Array, ""]
    atom: Int[Array, ""]  # that joins, if one does
    slot: Int[Array, ""]  # that it would take, or that empties
    ends: Bool[Array, ""]  # the penalty asked for comes first
    leaves: Bool[Array, ""]
    joins: Bool[Array, ""]
    full: Bool[Array, ""]  # no slot is empty


def next_event(path: Path, decline: Float[Array, " k"], target: Array, nonnegative: bool) -> Event:
    """Returns the first of: an atom joins, an atom leaves, the penalty reaches its target."""
    atom, until_join = next_join(path, decline, nonnegative)
    slot_out, until_leave = next_leave(path)
    empty, occupied = first_min(jnp.abs(path.signs))
    fall = jnp.minimum(jnp.minimum(until_join, until_leave), path.penalty - target)
    ends = fall >= path.penalty - target
    leaves = ~ends & (until_leave <= fall)
    slot = jnp.where(leaves, slot_out, empty)
    return Event(fall, atom, slot, ends, leaves, ~ends & ~leaves, occupied > 0.0)


def event(
    path: Path,
    gram: Float[Array, "k k"],
    squares: Float[Array, " k"],
    target: Array,
    nonnegative: bool,
) -> Path:
    """Moves along the path to its next event and takes it.

    Joining and leaving both change the inverse by one rank: inverse + w w^T / pivot, with
    w = inverse g - e and pivot the Schur complement s - g . inverse g when an atom of
    squared length s with correlations g joins the empty slot e; w the slot's column and pivot minus
    its diagonal when it leaves. The rates, inverse . signs, follow by the same update.
    """
    decline = product(to_atoms(path, path.rates), gram)
    fall, atom, slot, ends, leaves, joins, full = next_event(path, decline, target, nonnegative)
    q = path.q - fall * decline
    values = path.values + fall * path.rates
    at = jnp.arange(values.shape[0], dtype=jnp.int32) == slot
    unit = at.astype(q.dtype)
    g = gram[atom, path.atoms] * jnp.abs(path.signs)
    w = jnp.sum(path.inverse * jnp.where(leaves, unit, g)[None], axis=-1)
    pivot = jnp.where(leaves, -jnp.sum(w * unit), squares[atom] - jnp.sum(g * w))
    w = jnp.where(leaves, w, w - unit)
    changes = leaves | (joins & ~full & (pivot > MIN_PIVOT * squares[atom]))
    strength = jnp.where(changes, 1.0 / pivot, 0.0)
    keep = 1.0 - jnp.where(leaves, unit, 0.0)

    old_sign = jnp.sum(path.signs * jnp.where(leaves, unit, 0.0))
    new_sign = jnp.where(leaves, 0.0, jnp.sign(q[atom]))
    signs = jnp.where(at & changes, new_sign, path.signs)
    rates = path.rates - old_sign * w + strength * jnp.sum(w * signs) * w
    atoms = jnp.arange(q.shape[0], dtype=jnp.int32)
    gone = jnp.where(leaves, jnp.sum(jnp.where(at, path.atoms, 0), dtype=jnp.int32), -1)
    inverse = path.inverse + strength * w[:, None] * w[None]
    return Path(
        atoms=jnp.where(at & joins & changes, atom, path.atoms),
        signs=signs,
        values=values * keep,
        rates=rates * keep,
        inverse=inverse * keep[:, None] * keep[None],
        q=q,
        excluded=(path.excluded | (joins & (atoms == atom))) & (atoms != gone),
        left=gone,
        penalty=path.penalty - fall,
        steps=path.steps + 1,
        done=path.done | ends | (joins & full) | ~jnp.isfinite(fall),
    )


def refine(lasso: Lasso, path: Path) -> Float[Array, " k"]:
    """Returns the code at the end of the path, by two Newton steps on its support and signs.

    They take off the rounding that the events have piled up. The correlations q = D (x - z D) are
    computed from the residual, which is more exact than the Gram matrix.
    """
    values = path.values
    for _ in range(2):
        residual = lasso.signal - product(to_atoms(path, values), lasso.dictionary)
        q = product(lasso.dictionary, residual)
        excess = jnp.where(path.signs != 0.0, q[path.atoms] - lasso.penalty * path.signs, 0.0)
        values = values + jnp.sum(path.inverse * excess[None], axis=-1)
    return to_atoms(path, jnp.where(values * path.signs > 0.0, values, 0.0))


def homotopy(
    problem: Lasso,
    start: Float[Array, " k"] | None = None,
    *,
    max_steps: Count,
    tolerance: Number,
    nonnegative: bool = False,
    max_support: int = 16,
) -> Solution:
    """Solves one lasso by following its solution path. A step is an event.

    A path that needs more than `max_support` atoms at once ends where it is, not converged; the
    lasso coder then has other solvers go on. Work and memory grow as max_support^2.

    The path always begins at zero: another `start` cannot shorten it. A start whose gap meets the
    tolerance is returned in no steps; otherwise the better of start and end of the path is.

    Source: Osborne, Presnell & Turlach (2000); Efron et al. (2004), LARS with the lasso
    modification, section 3.1, which MLF-SC uses (section 4, "Lasso-LARS").
    Differs: an explicit inverse in place of a Cholesky factor, so that joining and leaving are
    one formula, and Newton steps at the end.
    """
    gram = product(problem.dictionary, problem.dictionary.T)
    correlation = product(problem.dictionary, problem.signal)
    slots = min(max_support, *problem.dictionary.shape)  # no support needs more than k or d
    squares = squared_lengths(gram)
    path = begin(correlation, squares, problem.penalty, slots, nonnegative)
    known = None if start is None else certify(problem, start, nonnegative)
    if known is not None:
        path = path._replace(done=path.done | (known.gap <= tolerance))
    path = lax.while_loop(
        lambda path: ~path.done & (path.steps < max_steps),
        partial(event, gram=gram, squares=squares, target=problem.penalty, nonnegative=nonnegative),
        path,
    )
    code = refine(problem, path)
    end = certify(problem, code, nonnegative)
    if known is not None:
        start_is_better = (known.gap <= tolerance) | (known.gap < end.gap)
        code, end = choose(start_is_better, (start, known), (code, end))
    return solution_of(code, end, path.steps, tolerance)
