"""Online dictionary learning with sufficient statistics: a state that does not grow with data.

    minimise over D, codes:  sum_i 1/2 ||x_i - z_i D||^2 + penalty ||z_i||_1,   ||d_j|| = 1

One learner serves a single dictionary [k d] and one for each channel, [k s s c]: atoms are the
first axis, batch axes come last, as in `Quadratic`. What lies between is the atom. How codes are
made, and their sums, is the caller's: `learn` here, `learn_channels` in `channels.py`.

Source: Mairal, Bach, Ponce & Sapiro (2010), Algorithms 1 and 2; Imamura et al., Eq. (2).
Differs: atoms have length exactly 1, as in Imamura et al., where Mairal et al. allow less.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.sparse.problems import Coder, product, unit
from sparse_ad.types import Key

UNUSED = 1e-4  # an atom used less than this fraction of the mean use is replaced
NOISE = 0.1  # of an atom's length: what keeps copies of a signal from staying copies


class Statistics(NamedTuple):
    """All that learning remembers of the signals seen; `...` are batch axes."""

    dictionary: Float[Array, "k ..."]
    energy: Float[Array, "k k ..."]  # A = sum of z^T z, older batches weighing less
    cross: Float[Array, "k ..."]  # B = sum of z^T x, likewise
    error: Float[Array, "..."]  # sum of the mean ||x - z D||^2 of each batch, likewise
    weight: Float[Array, ""]  # of all batches: error / weight is the mean error of a signal
    step: Int[Array, ""]


class Sums(NamedTuple):
    """Sums over the signals of one batch."""

    energy: Float[Array, "k k ..."]  # of z^T z
    cross: Float[Array, "k ..."]  # of z^T x
    error: Float[Array, "..."]  # of ||x - z D||^2


def begin_dictionary(key: Key, signals: Float[Array, "m d"], atoms: int) -> Statistics:
    """Returns a dictionary of signals drawn by their energy, and empty statistics.

    Flat signals have almost no direction after mean removal: drawn evenly, they would make
    atoms of noise. Fewer signals than atoms are drawn more than once, with noise of a tenth of
    their length to tell the copies apart.
    """
    draw, jitter = jax.random.split(key)
    energy = jnp.sum(signals**2, axis=-1)
    weight = jnp.where(jnp.sum(energy) > 0.0, energy, 1.0)
    few = signals.shape[0] < atoms
    indices = jax.random.choice(
        draw, signals.shape[0], (atoms,), replace=few, p=weight / jnp.sum(weight)
    )
    zero = energy[indices] == 0.0
    return begin(jitter, signals[indices], jnp.where(few | zero, NOISE, 0.0)[:, None])


def begin(
    key: Key, drawn: Float[Array, "k ..."], noise: Float[Array, "k ..."] | float, batch: int = 0
) -> Statistics:
    """Returns empty statistics, and drawn atoms scaled to length 1, with noise; `batch` axes."""
    axes = tuple(range(1, drawn.ndim - batch))
    atoms, shape = drawn.shape[0], drawn.shape[drawn.ndim - batch :]
    jitter = unit(jax.random.normal(key, drawn.shape, drawn.dtype), axes)
    return Statistics(
        dictionary=unit(unit(drawn, axes) + noise * jitter, axes),
        energy=jnp.zeros((atoms, atoms, *shape), drawn.dtype),
        cross=jnp.zeros_like(drawn),
        error=jnp.zeros(shape, drawn.dtype),
        weight=jnp.zeros((), drawn.dtype),
        step=jnp.zeros((), jnp.int32),
    )


def learn(
    key: Key, state: Statistics, signals: Float[Array, "m d"], coder: Coder
) -> tuple[Statistics, dict[str, Array]]:
    """Takes one minibatch in: codes it, adds its statistics, and improves every atom once.

    Returns the state, and what to log: mean objective, fraction of codes converged, non-zeros a
    code, fraction of atoms replaced.
    """
    solution = coder(state.dictionary, signals)
    z = solution.code
    sums = Sums(product(z.T, z), product(z.T, signals), jnp.sum(solution.error))
    state = add_batch(state, sums, signals.shape[0])
    draw = partial(draw_signals, key, signals, solution.error, z.shape[1])
    state, replaced = replace_unused(state, draw)
    info = {
        "objective": jnp.mean(solution.objective),
        "converged": jnp.mean(solution.converged.astype(z.dtype)),
        "nonzeros": jnp.mean(jnp.sum(z != 0.0, axis=-1).astype(z.dtype)),
        "replaced": replaced,
    }
    return state, info


def draw_signals(
    key: Key, signals: Float[Array, "m d"], weight: Float[Array, " m"], count: int
) -> Float[Array, "count d"]:
    """Returns `count` signals drawn with replacement, each as often as its weight says."""
    weight = weight + jnp.finfo(weight.dtype).tiny
    indices = jax.random.choice(key, signals.shape[0], (count,), p=weight / jnp.sum(weight))
    return signals[indices]


def add_batch(state: Statistics, sums: Sums, count: int) -> Statistics:
    """Returns the state after a batch of `count` signals: statistics added, atoms improved."""
    fade = fading(state.step, count)
    energy = fade * state.energy + sums.energy / count
    cross = fade * state.cross + sums.cross / count
    return Statistics(
        dictionary=improve_atoms(state.dictionary, energy, cross),
        energy=energy,
        cross=cross,
        error=fade * state.error + sums.error / count,
        weight=fade * state.weight + 1.0,
        step=state.step + 1,
    )


def fading(step: Int[Array, ""], count: int) -> Float[Array, ""]:
    """Returns what old statistics weigh beside a minibatch of `count` signals.

    They come from older dictionaries, and fade, quickly at first.
    Source: Mairal et al., section 3.4.3, with theta = t m for t < m, m^2 + t - m after it.
    """
    t, m = step.astype(jnp.float32) + 1.0, float(count)  # m^2 may be more than an int32 holds
    theta = jnp.where(t < m, t * m, m * m + t - m)
    return (theta + 1.0 - m) / (theta + 1.0)


def improve_atoms(
    dictionary: Float[Array, "k ..."], energy: Float[Array, "k k ..."], cross: Float[Array, "k ..."]
) -> Float[Array, "k ..."]:
    """Returns the dictionary after one pass of block coordinate descent over its atoms.

        d_j <- unit(d_j + (b_j - a_j D) / a_jj)

    starting from the present atoms. Unused atoms (a_jj = 0) stay.
    Source: Mairal et al., Algorithm 2, Eq. (10).
    """
    axes = tuple(range(dictionary.ndim - energy.ndim + 1))  # of one atom

    def improve(j, atoms):
        use = jnp.expand_dims(energy[j, j], axes)
        step = (cross[j] - combine(energy[j], atoms)) / jnp.where(use > 0.0, use, 1.0)
        moved = atoms[j] + step
        length = jnp.sqrt(jnp.sum(moved**2, axis=axes, keepdims=True))
        good = (use > 0.0) & (length > 0.0)
        return atoms.at[j].set(jnp.where(good, moved / jnp.where(good, length, 1.0), atoms[j]))

    return lax.fori_loop(0, dictionary.shape[0], improve, dictionary)


def combine(weights: Float[Array, "k ..."], atoms: Float[Array, "k ..."]) -> Float[Array, "..."]:
    """Returns the sum over atoms of weight times atom.

    One dictionary has many atoms: a matrix product. Those of channels have a few: the product with
    batch axes would be several times slower on CPUs than vector operations over the channels.
    """
    if weights.ndim == 1:
        return product(weights, atoms)
    weights = jnp.expand_dims(weights, tuple(range(1, atoms.ndim - weights.ndim + 1)))
    return reduce(jnp.add, [weights[i] * atoms[i] for i in range(atoms.shape[0])])


def replace_unused(
    state: Statistics, draw: Callable[[], Float[Array, "k ..."]]
) -> tuple[Statistics, Float[Array, ""]]:
    """Replaces atoms that are hardly used by signals, which are drawn only where there is need.

    The statistics of these atoms start again from nothing. A signal of zeros replaces no atom.
    Returns the state and the fraction of atoms that were replaced.
    """
    use = jnp.moveaxis(jnp.diagonal(state.energy), -1, 0)  # [k ...]
    unused = use <= UNUSED * jnp.mean(use, axis=0, keepdims=True)

    def replace(state: Statistics):
        axes = tuple(range(1, state.dictionary.ndim - state.energy.ndim + 2))
        drawn = unit(draw(), axes)
        replaced = unused & jnp.any(drawn != 0.0, axis=axes)
        kept, atoms = ~replaced, jnp.expand_dims(replaced, axes)
        changed = state._replace(
            dictionary=jnp.where(atoms, drawn, state.dictionary),
            energy=state.energy * kept[:, None] * kept[None],
            cross=state.cross * ~atoms,
        )
        return changed, jnp.mean(replaced.astype(use.dtype))

    def leave(state: Statistics):
        return state, jnp.zeros((), use.dtype)

    return lax.cond(jnp.any(unused), replace, leave, state)
