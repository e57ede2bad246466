"""A dictionary of exemplars: training signals, chosen so that none is coded badly by all of them.

With one non-zero a signal x is coded by the exemplar a that leaves the least of it:

    e(x; a) = ||x||^2 - (x a)^2 / ||a||^2

The dictionary is grown as signals stream by: whatever it codes worse than `radius` becomes an atom,
the worst first. When it is full, the radius grows, and atoms that now code one another go. So
signals that are rare, but normal, have their atom, where an average would pass over them; and the
state is the dictionary alone.

Source: farthest-first traversal (Gonzalez 1985) with the doubling of Charikar et al. (1997), here
under the error of a sparse code in place of a distance.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.methods.moments import whitening_axes
from sparse_ad.sparse.coder import in_chunks
from sparse_ad.sparse.dictionary import unit
from sparse_ad.sparse.lasso import product

CANDIDATES = 1024  # badly coded signals that are looked at together
FIRST = 1e-3  # of the signals' mean energy: the radius when the dictionary is first full
GROWTH = 1.1  # of the radius whenever it is full again
SPANNED = 1e-3  # of an atom's length: what is left of it beside others is rounding
CHUNK = 1024  # signals whose correlations are in memory


class Exemplars(NamedTuple):
    """All that is remembered of the signals seen."""

    atoms: Float[Array, "k d"]  # signals as they were; rows from `count` on are zero
    count: Int[Array, ""]
    radius: Float[Array, ""]  # no signal seen is coded much worse than this


def begin_exemplars(atoms: int, length: int) -> Exemplars:
    """Returns a dictionary without atoms."""
    return Exemplars(jnp.zeros((atoms, length)), jnp.zeros((), jnp.int32), jnp.zeros(()))


def errors_of_one(atoms: Float[Array, "k d"], signals: Float[Array, "m d"]) -> Float[Array, " m"]:
    """Returns what one atom, the best for each signal, leaves of it; zero atoms count for nothing.

    Source: the equation at the top of this module.
    """
    rows = unit(atoms)

    def some(signals):
        return jnp.max(product(signals, rows.T) ** 2, axis=1)

    return jnp.sum(signals**2, axis=1) - in_chunks(some, (signals,), CHUNK)


def add_exemplars(state: Exemplars, signals: Float[Array, "m d"]) -> Exemplars:
    """Takes signals in: makes atoms of those that are coded worse than the radius."""
    few = min(CANDIDATES, signals.shape[0], state.atoms.shape[0])

    def proceed(turn):
        state, errors = turn
        return jnp.max(errors) > bound(state, signals)

    def take(turn):
        state, errors = turn
        places = lax.top_k(errors, few)[1]
        grown = insert(state, signals[places])
        full = grown.count == grown.atoms.shape[0]
        return lax.cond(full, widen, extend, state, grown, errors, places)

    def extend(before, grown, errors, places):
        """The errors, with only the new atoms looked at; those that were looked at are done."""
        start = jnp.minimum(before.count, grown.atoms.shape[0] - few)
        new = lax.dynamic_slice_in_dim(grown.atoms, start, few)
        errors = jnp.minimum(errors, errors_of_one(new, signals))
        return grown, errors.at[places].set(0.0)

    def widen(_, grown, errors, places):
        thinned = thin(grown, jnp.maximum(GROWTH * bound(grown, signals), first))
        return thinned, errors_of_one(thinned.atoms, signals)

    first = FIRST * jnp.mean(jnp.sum(signals**2, axis=1))
    begin = (state, errors_of_one(state.atoms, signals))
    return lax.while_loop(proceed, take, begin)[0]


def bound(state: Exemplars, signals: Float[Array, "m d"]) -> Float[Array, ""]:
    """Returns the radius, and at least the rounding error of an error."""
    rounding = 8 * jnp.finfo(signals.dtype).eps * jnp.max(jnp.sum(signals**2, axis=1))
    return jnp.maximum(state.radius, rounding)


def insert(state: Exemplars, signals: Float[Array, "m d"]) -> Exemplars:
    """Makes atoms of signals, the worst coded first, until none is or there is no more room."""
    limit = bound(state, signals)
    energy = jnp.sum(signals**2, axis=1)

    def proceed(turn):
        state, errors = turn
        return (jnp.max(errors) > limit) & (state.count < state.atoms.shape[0])

    def step(turn):
        state, errors = turn
        new = signals[jnp.argmax(errors)]
        left = energy - product(signals, unit(new[None])[0]) ** 2
        left = left.at[jnp.argmax(errors)].set(0.0)  # whatever rounding says
        atoms = state.atoms.at[state.count].set(new)
        return state._replace(atoms=atoms, count=state.count + 1), jnp.minimum(errors, left)

    begin = (state, errors_of_one(state.atoms, signals))
    return lax.while_loop(proceed, step, begin)[0]


def thin(state: Exemplars, radius: Float[Array, ""]) -> Exemplars:
    """Keeps, in their order, the atoms that those before them code worse than the radius.

    The radius grows on until at least one atom goes.
    """
    rows, size = unit(state.atoms), state.atoms.shape[0]
    energy = jnp.sum(state.atoms**2, axis=1)
    explained = product(state.atoms, rows.T) ** 2

    def keep(radius):
        def look(place, kept):
            best = jnp.max(jnp.where(kept, explained[place], 0.0))
            worth = (energy[place] - best > radius) & (place < state.count)
            return kept.at[place].set(worth)

        return lax.fori_loop(0, size, look, jnp.zeros((size,), bool))

    def widen(turn):
        radius, _ = turn
        return GROWTH * radius, keep(GROWTH * radius)

    begin = (radius, keep(radius))
    radius, kept = lax.while_loop(lambda turn: jnp.all(turn[1]), widen, begin)
    order = jnp.argsort(~kept)  # stable: the kept ones first, in their order
    atoms = jnp.where(kept[order][:, None], state.atoms[order], 0.0)
    return Exemplars(atoms, jnp.sum(kept, dtype=jnp.int32), radius)


def pursue(
    atoms: Float[Array, "k d"], signals: Float[Array, "m d"], nonzeros: int
) -> Float[Array, "m d"]:
    """Returns what orthogonal matching pursuit with `nonzeros` atoms leaves of each signal.

    With one non-zero this is exact: the best of all codes. Atoms are of length 1 or zero.
    """

    def some(signals):
        residual, basis = signals, []
        for _ in range(nonzeros):
            best = jnp.argmax(jnp.abs(product(residual, atoms.T)), axis=1)
            direction = atoms[best]
            for known in basis:  # Gram-Schmidt
                direction -= jnp.sum(direction * known, axis=1, keepdims=True) * known
            left = jnp.linalg.norm(direction, axis=1, keepdims=True)
            direction = jnp.where(left > SPANNED, unit(direction), 0.0)
            basis.append(direction)
            residual -= jnp.sum(residual * direction, axis=1, keepdims=True) * direction
        return residual

    return in_chunks(some, (signals,), CHUNK)


def whitening(
    vectors: Float[Array, "m d"], shrinkage: float
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Returns (mean, W): (x - mean) W has covariance C (C + shrinkage tr(C)/d I)^-1.

    With shrinkage 0 nothing is whitened: mean 0 and W = I.
    """
    length = vectors.shape[1]
    if shrinkage == 0.0:
        return jnp.zeros((length,)), jnp.eye(length)
    mean = jnp.mean(vectors, axis=0)
    centred = vectors - mean
    return mean, whitening_axes(product(centred.T, centred) / vectors.shape[0], shrinkage)
