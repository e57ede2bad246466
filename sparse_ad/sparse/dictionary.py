"""Online dictionary learning with sufficient statistics: a state that does not grow with data.

    minimise over D, codes:  sum_i 1/2 ||x_i - z_i D||^2 + penalty ||z_i||_1,   ||d_j|| = 1

Source: Mairal, Bach, Ponce & Sapiro (2010), Algorithms 1 and 2; Imamura et al., Eq. (2).
Differs: atoms have length exactly 1, as in Imamura et al., where Mairal et al. allow less.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.sparse.coder import Coder
from sparse_ad.sparse.lasso import product
from sparse_ad.types import Key

DEAD = 1e-4  # an atom used less than this share of the mean use is replaced


class Statistics(NamedTuple):
    """All that learning remembers of the signals seen."""

    dictionary: Float[Array, "k d"]
    code_energy: Float[Array, "k k"]  # A = sum of z^T z, older batches weighing less
    code_signal: Float[Array, "k d"]  # B = sum of z^T x, likewise
    step: Int[Array, ""]


def unit(rows: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Returns rows scaled to length 1; a zero row stays zero."""
    length = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / jnp.where(length > 0.0, length, 1.0)


def begin_dictionary(key: Key, signals: Float[Array, "m d"], atoms: int) -> Statistics:
    """Returns a dictionary of signals drawn by their energy, and empty statistics.

    Flat signals have almost no direction after mean removal: drawn evenly, they would make
    atoms of noise. Fewer signals than atoms are drawn more than once, with noise of a tenth of
    their length to tell the copies apart.
    """
    draw, jitter = jax.random.split(key)
    energy = jnp.sum(signals**2, axis=-1)
    share = jnp.where(jnp.sum(energy) > 0.0, energy, 1.0)
    few = signals.shape[0] < atoms
    places = jax.random.choice(
        draw, signals.shape[0], (atoms,), replace=few, p=share / jnp.sum(share)
    )
    rows = unit(signals[places])
    noise = unit(jax.random.normal(jitter, rows.shape, rows.dtype))
    amount = jnp.where(few | (jnp.linalg.norm(rows, axis=-1, keepdims=True) == 0.0), 0.1, 0.0)
    return Statistics(
        dictionary=unit(rows + amount * noise),
        code_energy=jnp.zeros((atoms, atoms), rows.dtype),
        code_signal=jnp.zeros_like(rows),
        step=jnp.zeros((), jnp.int32),
    )


def learn(
    key: Key, state: Statistics, signals: Float[Array, "m d"], code: Coder
) -> tuple[Statistics, dict[str, Array]]:
    """Takes one minibatch in: codes it, adds its statistics, and improves every atom once.

    Returns the state, and what to log: mean objective, share of codes converged, non-zeros a
    code, atoms replaced.
    """
    count = signals.shape[0]
    solution = code(state.dictionary, signals)
    z = solution.code
    fade = fading(state.step, count)
    energy = fade * state.code_energy + product(z.T, z) / count
    cross = fade * state.code_signal + product(z.T, signals) / count
    learned = Statistics(
        improve_atoms(state.dictionary, energy, cross), energy, cross, state.step + 1
    )
    residual = signals - product(z, state.dictionary)
    errors = jnp.sum(residual**2, axis=-1)
    learned, replaced = replace_dead(key, learned, signals, errors)
    info = {
        "objective": jnp.mean(solution.objective),
        "converged": jnp.mean(solution.converged.astype(z.dtype)),
        "nonzeros": jnp.mean(jnp.sum(z != 0.0, axis=-1).astype(z.dtype)),
        "replaced": replaced,
    }
    return learned, info


def fading(step: Int[Array, ""], count: int) -> Float[Array, ""]:
    """Returns what old statistics weigh beside a minibatch of `count` signals.

    They come from older dictionaries, and fade, quickly at first.
    Source: Mairal et al., section 3.4.3, with theta = t m for t < m, m^2 + t - m after it.
    """
    t, m = step.astype(jnp.float32) + 1.0, float(count)  # m^2 may be more than an int32 holds
    theta = jnp.where(t < m, t * m, m * m + t - m)
    return (theta + 1.0 - m) / (theta + 1.0)


def improve_atoms(
    dictionary: Float[Array, "k d"], energy: Float[Array, "k k"], cross: Float[Array, "k d"]
) -> Float[Array, "k d"]:
    """Returns the dictionary after one pass of block coordinate descent over its atoms.

        d_j <- unit(d_j + (b_j - a_j D) / a_jj)

    starting from the present atoms. Unused atoms (a_jj = 0) stay.
    Source: Mairal et al., Algorithm 2, Eq. (10).
    """

    def improve(j, rows):
        used = energy[j, j] > 0.0
        step = (cross[j] - product(energy[j], rows)) / jnp.where(used, energy[j, j], 1.0)
        moved = rows[j] + step
        length = jnp.linalg.norm(moved)
        good = used & (length > 0.0)
        return rows.at[j].set(jnp.where(good, moved / jnp.where(good, length, 1.0), rows[j]))

    return lax.fori_loop(0, dictionary.shape[0], improve, dictionary)


def replace_dead(
    key: Key, state: Statistics, signals: Float[Array, "m d"], errors: Float[Array, " m"]
) -> tuple[Statistics, Float[Array, ""]]:
    """Replaces atoms that are hardly used by signals drawn by their reconstruction error.

    Their statistics start again from nothing. Returns the state and how many were replaced.
    """
    use = jnp.diag(state.code_energy)
    dead = use <= DEAD * jnp.mean(use)
    share = errors + jnp.finfo(errors.dtype).tiny
    places = jax.random.choice(key, signals.shape[0], use.shape, p=share / jnp.sum(share))
    fresh = unit(signals[places])
    dead &= jnp.any(fresh != 0.0, axis=-1)
    alive = ~dead
    return (
        state._replace(
            dictionary=jnp.where(dead[:, None], fresh, state.dictionary),
            code_energy=state.code_energy * alive[:, None] * alive,
            code_signal=state.code_signal * alive[:, None],
        ),
        jnp.sum(dead).astype(errors.dtype),
    )
