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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int

from sparse_ad.errors import require
from sparse_ad.sparse.coder import code_any, in_chunks
from sparse_ad.sparse.problems import Coder, Solution, Sparse, product, unit
from sparse_ad.sparse.solvers import omp

CANDIDATES = 1024  # badly coded signals that may become atoms together
FIRST = 1e-3  # of the signals' mean energy: the radius when the dictionary is first full
GROWTH = 1.1  # of the radius whenever it is full again
CHUNK = 1024  # signals whose correlations are in memory


@dataclass(frozen=True)
class ExemplarCoder:
    """Codes by a few exemplars, with orthogonal matching pursuit."""

    nonzeros: int = 1  # exemplars that code a signal, at most
    # exemplars that OMP chooses from, for each signal: the dictionary is split into so many groups,
    # and the most correlated atom of each is a candidate; 0: all atoms are
    candidates: int = 0

    def __post_init__(self):
        require(self.nonzeros >= 1, "nonzeros", self.nonzeros, "must be at least 1")
        enough = self.candidates == 0 or self.candidates >= self.nonzeros
        remedy = f"give 0 (all exemplars), or at least nonzeros = {self.nonzeros}"
        require(enough, "candidates", self.candidates, remedy)


def exemplar_coder(options: ExemplarCoder) -> Coder:
    """Returns `coder(dictionary[k d], signals[m d]) -> Solution`; see `code_by_exemplars`."""
    return partial(code_by_exemplars, options)


def code_by_exemplars(
    options: ExemplarCoder, dictionary: ArrayLike, signals: ArrayLike
) -> Solution:
    """Codes signals [m d] by at most `nonzeros` atoms [k d], each of length 1 (or zero)."""
    some = 0 < options.candidates < jnp.shape(dictionary)[0]
    by = partial(code_by_candidates, options.candidates) if some else code_by_all
    code = partial(code_in_chunks, partial(by, options.nonzeros))
    return code_any(code, dictionary, signals)


def code_in_chunks(
    code: Callable, dictionary: Float[Array, "k d"], signals: Float[Array, "m d"]
) -> Solution:
    """Codes signals a chunk at a time."""
    return in_chunks(partial(code, dictionary), (signals,), CHUNK)


def code_by_all(
    nonzeros: int, dictionary: Float[Array, "k d"], signals: Float[Array, "m d"]
) -> Solution:
    """Codes signals by OMP on all atoms: a product with the dictionary for each non-zero."""
    return jax.vmap(lambda signal: omp(Sparse(dictionary, signal, nonzeros)))(signals)


def code_by_candidates(
    candidates: int,
    nonzeros: int,
    dictionary: Float[Array, "k d"],
    signals: Float[Array, "m d"],
) -> Solution:
    """Codes each signal by OMP on its candidates: one product with the dictionary in all.

    Atom j is in group j mod `candidates`, and the candidate of a group is its atom that is the most
    correlated with the signal. The first atom of the code is that of OMP on all atoms; a later one
    is, too, unless it is not the candidate of its group.
    """
    atoms = dictionary.shape[0]
    groups = jnp.pad(dictionary, ((0, -atoms % candidates), (0, 0)))
    correlations = jnp.abs(product(signals, groups.T)).reshape(signals.shape[0], -1, candidates)
    chosen = jnp.argmax(correlations, axis=1) * candidates + jnp.arange(candidates)[None]

    def code_one(signal: Float[Array, " d"], index: Int[Array, " b"]) -> Solution:
        solution = omp(Sparse(groups[index], signal, nonzeros))
        code = jnp.zeros(groups.shape[0], signal.dtype).at[index].set(solution.code)
        return solution._replace(code=code[:atoms])

    return jax.vmap(code_one)(signals, chosen)


class Exemplars(NamedTuple):
    """All that is remembered of the signals seen."""

    atoms: Float[Array, "k d"]  # signals as they were; rows from `count` on are zero
    count: Int[Array, ""]
    radius: Float[Array, ""]  # no signal seen is coded much worse than this


def begin_exemplars(atoms: int, length: int, dtype: DTypeLike = jnp.float32) -> Exemplars:
    """Returns a dictionary without atoms.

    Call it outside of the compiled program that adds the first signals: XLA's CPU code of jaxlib
    0.10.2 returns arbitrary numbers for the maximum of a product with zeros that it knows of.
    """
    zeros = partial(jnp.zeros, dtype=dtype)
    return Exemplars(zeros((atoms, length)), jnp.zeros((), jnp.int32), zeros(()))


def errors_of_one(atoms: Float[Array, "k d"], signals: Float[Array, "m d"]) -> Float[Array, " m"]:
    """Returns the error of each signal coded by its best atom alone; zero atoms explain nothing.

    Source: the equation at the top of this module.
    """
    rows = unit(atoms)

    def explained(chunk):
        return jnp.max(product(chunk, rows.T) ** 2, axis=1)

    return jnp.sum(signals**2, axis=1) - in_chunks(explained, (signals,), CHUNK)


def add_exemplars(state: Exemplars, signals: Float[Array, "m d"]) -> Exemplars:
    """Takes signals in: makes atoms of those that are coded worse than the radius."""
    few = min(CANDIDATES, signals.shape[0], state.atoms.shape[0])

    def proceed(carry):
        state, errors = carry
        return jnp.max(errors) > bound(state, signals)

    def take(carry):
        state, errors = carry
        indices = lax.top_k(errors, few)[1]
        grown = insert(state, signals[indices])
        full = grown.count == grown.atoms.shape[0]
        return lax.cond(full, widen, extend, state, grown, errors, indices)

    def extend(before, grown, errors, indices):
        """The errors, compared with those of the new atoms; the candidates are done."""
        start = jnp.minimum(before.count, grown.atoms.shape[0] - few)
        new = lax.dynamic_slice_in_dim(grown.atoms, start, few)
        errors = jnp.minimum(errors, errors_of_one(new, signals))
        return grown, errors.at[indices].set(0.0)

    def widen(_, grown, errors, indices):
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
    """Makes atoms of signals, the worst coded first, until all are coded well or none fits."""
    limit = bound(state, signals)
    energy = jnp.sum(signals**2, axis=1)

    def proceed(carry):
        state, errors = carry
        return (jnp.max(errors) > limit) & (state.count < state.atoms.shape[0])

    def step(carry):
        state, errors = carry
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
        def visit(index, kept):
            best = jnp.max(jnp.where(kept, explained[index], 0.0))
            worth = (energy[index] - best > radius) & (index < state.count)
            return kept.at[index].set(worth)

        return lax.fori_loop(0, size, visit, jnp.zeros((size,), bool))

    def widen(carry):
        radius, _ = carry
        return GROWTH * radius, keep(GROWTH * radius)

    begin = (radius, keep(radius))
    radius, kept = lax.while_loop(lambda carry: jnp.all(carry[1]), widen, begin)
    order = jnp.argsort(~kept)  # stable: the kept ones first, in their order
    atoms = jnp.where(kept[order][:, None], state.atoms[order], 0.0)
    return Exemplars(atoms, jnp.sum(kept, dtype=jnp.int32), radius)
