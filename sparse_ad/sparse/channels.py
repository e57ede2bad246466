"""One small dictionary for each channel of a feature map, all channels as one program.

A patch of channel c is s x s values of that channel. Patches are never written out: correlations,
energies and statistics are sums over the s^2 places in a patch of shifted maps, so that a map is
read from the cache and the memory traffic is that of the map, not of its many-fold patches.
Channels come last: every operation is a vector operation over them.

Axes: a map [h w c], a dictionary [k s s c], codes [k i j c] with patches at (i, j).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.patches import grid
from sparse_ad.sparse.dictionary import DEAD, fading
from sparse_ad.sparse.solvers.gram import TinySolution, TinySolver
from sparse_ad.types import Key


class ChannelStatistics(NamedTuple):
    """All that learning remembers: a few MB for 896 dictionaries, however many images."""

    dictionary: Float[Array, "k s s c"]
    code_energy: Float[Array, "k k c"]
    code_signal: Float[Array, "k s s c"]
    error: Float[Array, " c"]  # sum of mean squared errors, likewise
    weight: Float[Array, ""]  # of all batches: error / weight is the mean error of a patch
    step: Int[Array, ""]


def windows(shape: tuple[int, ...], size: int, stride: int) -> tuple[int, int]:
    """Returns how many patches a map has down and across."""
    return tuple(len(grid(side, size, stride)) for side in shape[:2])


def shifted(maps: Float[Array, "h w c"], place: Array, size: int, stride: int):
    """Returns what lies at one place (of size^2) of every patch: [i j c]."""
    rows, columns = windows(maps.shape, size, stride)
    span = ((rows - 1) * stride + 1, (columns - 1) * stride + 1, maps.shape[2])
    part = lax.dynamic_slice(maps, (place // size, place % size, 0), span)
    return part[::stride, ::stride]


def correlate(
    maps: Float[Array, "h w c"], dictionary: Float[Array, "k s s c"], stride: int
) -> Float[Array, "k i j c"]:
    """Returns the inner products of every patch with its channel's atoms."""
    count, size = dictionary.shape[:2]
    atoms = dictionary.reshape(count, size * size, 1, 1, -1)

    def add(place, total):
        return total + shifted(maps, place, size, stride) * lax.dynamic_index_in_dim(
            atoms, place, axis=1, keepdims=False
        )

    shape = (count, *windows(maps.shape, size, stride), maps.shape[2])
    return lax.fori_loop(0, size * size, add, jnp.zeros(shape, maps.dtype))


def energies(maps: Float[Array, "h w c"], size: int, stride: int) -> Float[Array, "i j c"]:
    """Returns the squared length of every patch: sums down, then across."""
    rows, columns = windows(maps.shape, size, stride)

    def ends(start: int, count: int) -> slice:
        return slice(start, start + (count - 1) * stride + 1, stride)

    squares = maps**2
    down = sum(squares[ends(start, rows)] for start in range(size))
    return sum(down[:, ends(start, columns)] for start in range(size))


def collect(
    maps: Float[Array, "h w c"], code: Float[Array, "k i j c"], size: int, stride: int
) -> Float[Array, "k s s c"]:
    """Returns sum over patches of code times patch, the adjoint of `correlate` in the atoms."""
    count, _, columns, channels = code.shape

    def add(at, total):
        row, column = at // columns, at % columns
        start = (row * stride, column * stride, 0)
        patch = lax.dynamic_slice(maps, start, (size, size, channels))
        weight = lax.dynamic_slice(code, (0, row, column, 0), (count, 1, 1, channels))
        return total + weight * patch

    shape = (count, size, size, channels)
    return lax.fori_loop(0, code.shape[1] * columns, add, jnp.zeros(shape, maps.dtype))


def gram_of(dictionary: Float[Array, "k s s c"]) -> Float[Array, "k k c"]:
    """Returns the inner products of each channel's atoms."""
    count = dictionary.shape[0]
    rows = [
        jnp.stack([jnp.sum(dictionary[i] * dictionary[j], axis=(0, 1)) for j in range(count)])
        for i in range(count)
    ]
    return jnp.stack(rows)


def code_map(
    dictionary: Float[Array, "k s s c"],
    maps: Float[Array, "h w c"],
    stride: int,
    solve: TinySolver,
) -> TinySolution:
    """Codes all patches of a map, each by its own channel's dictionary: code [k i j c]."""
    gram = gram_of(dictionary)[:, :, None, None]
    correlation = correlate(maps, dictionary, stride)
    energy = energies(maps, dictionary.shape[1], stride)
    return solve(gram, correlation, energy)


def unit_atoms(atoms: Float[Array, "k s s c"]) -> Float[Array, "k s s c"]:
    """Returns atoms of length 1; a zero atom stays zero."""
    length = jnp.sqrt(jnp.sum(atoms**2, axis=(1, 2), keepdims=True))
    return atoms / jnp.where(length > 0.0, length, 1.0)


def draw_patches(
    key: Key, maps: Float[Array, "n h w c"], count: int, size: int, stride: int
) -> Float[Array, "count s s c"]:
    """Returns for each channel `count` patches of it, drawn by their energy.

    Gumbel noise on log weights: the largest `count` are a draw without replacement.
    """
    weight = lax.map(lambda each: energies(each, size, stride), maps)
    _, rows, columns, channels = weight.shape
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    score = noise + jnp.log(weight + jnp.finfo(weight.dtype).tiny)
    ranked = jnp.moveaxis(score, -1, 0).reshape(channels, -1)
    few = min(count, ranked.shape[1])  # fewer patches than atoms: some are drawn again
    best = lax.top_k(ranked, few)[1][:, jnp.arange(count) % few]

    def cut(channel, place):
        image, rest = place // (rows * columns), place % (rows * columns)
        start = (image, rest // columns * stride, rest % columns * stride, channel)
        return lax.dynamic_slice(maps, start, (1, size, size, 1))[0, ..., 0]

    every = jax.vmap(jax.vmap(cut, (None, 0)))(jnp.arange(channels), best)
    return jnp.moveaxis(every, 0, -1)


def begin_channels(
    key: Key, maps: Float[Array, "n h w c"], size: int, stride: int, atoms: int
) -> ChannelStatistics:
    """Returns dictionaries of patches drawn by their energy, and empty statistics.

    A tenth of noise tells copies apart, where maps are flat or hold fewer patches than atoms.
    """
    grid(maps.shape[1], size, stride), grid(maps.shape[2], size, stride)  # a patch must fit
    draw, jitter = jax.random.split(key)
    patches = draw_patches(draw, maps, atoms, size, stride)
    noise = unit_atoms(jax.random.normal(jitter, patches.shape, patches.dtype))
    dictionary = unit_atoms(unit_atoms(patches) + 0.1 * noise)
    channels = maps.shape[-1]
    return ChannelStatistics(
        dictionary,
        jnp.zeros((atoms, atoms, channels), maps.dtype),
        jnp.zeros_like(dictionary),
        jnp.zeros((channels,), maps.dtype),
        jnp.zeros((), maps.dtype),
        jnp.zeros((), jnp.int32),
    )


def learn_channels(
    key: Key,
    state: ChannelStatistics,
    maps: Float[Array, "n h w c"],
    stride: int,
    solve: TinySolver,
    total: Callable[[Callable, Array, Array], tuple[Array, ...]],
) -> tuple[ChannelStatistics, dict[str, Array]]:
    """Takes a batch of maps in: codes every patch, adds the statistics, improves every atom once.

    `total(function, dictionary, maps)` returns the sum of function(dictionary, map) over the maps;
    it may spread them over devices. Returns the state, and what to log: mean squared error of a
    patch, share of atoms that were hardly used (and are replaced).
    Source: as `dictionary.learn`, for all channels at once.
    """
    size = state.dictionary.shape[1]
    rows, columns = windows(maps.shape[1:], size, stride)
    count = maps.shape[0] * rows * columns

    def sums(dictionary, each):
        coded = code_map(dictionary, each, stride, solve)
        z = coded.code
        pairs = jnp.stack([jnp.sum(z * z[j], axis=(1, 2)) for j in range(len(z))])
        return pairs, collect(each, z, size, stride), jnp.sum(coded.error, axis=(0, 1))

    pairs, cross, error = total(sums, state.dictionary, maps)
    fade = fading(state.step, count)
    pairs = fade * state.code_energy + pairs / count
    cross = fade * state.code_signal + cross / count
    learned = ChannelStatistics(
        improve_channels(state.dictionary, pairs, cross),
        pairs,
        cross,
        fade * state.error + error / count,
        fade * state.weight + 1.0,
        state.step + 1,
    )
    learned, replaced = replace_dead_channels(key, learned, maps, stride)
    return learned, {"error": jnp.mean(error) / count, "replaced": replaced}


def improve_channels(
    dictionary: Float[Array, "k s s c"],
    code_energy: Float[Array, "k k c"],
    code_signal: Float[Array, "k s s c"],
) -> Float[Array, "k s s c"]:
    """Returns the dictionaries after one pass over their atoms; see `dictionary.improve_atoms`."""
    rows = list(dictionary)
    for j in range(len(rows)):
        use = code_energy[j, j]
        fitted = sum(code_energy[j, i] * rows[i] for i in range(len(rows)))
        moved = rows[j] + (code_signal[j] - fitted) / jnp.where(use > 0.0, use, 1.0)
        length = jnp.sqrt(jnp.sum(moved**2, axis=(0, 1)))
        good = (use > 0.0) & (length > 0.0)
        rows[j] = jnp.where(good, moved / jnp.where(good, length, 1.0), rows[j])
    return jnp.stack(rows)


def replace_dead_channels(
    key: Key, state: ChannelStatistics, maps: Float[Array, "n h w c"], stride: int
) -> tuple[ChannelStatistics, Float[Array, ""]]:
    """Replaces atoms that are hardly used by patches; see `dictionary.replace_dead`.

    Returns the state and the share of atoms that were replaced.
    """
    count, size = state.dictionary.shape[:2]
    use = jnp.stack([state.code_energy[j, j] for j in range(count)])
    dead = use <= DEAD * jnp.mean(use, axis=0)

    def replace(state: ChannelStatistics):
        fresh = unit_atoms(draw_patches(key, maps, count, size, stride))
        usable = dead & jnp.any(fresh != 0.0, axis=(1, 2))
        kept = ~usable
        changed = state._replace(
            dictionary=jnp.where(usable[:, None, None], fresh, state.dictionary),
            code_energy=state.code_energy * kept[:, None] * kept[None],
            code_signal=state.code_signal * kept[:, None, None],
        )
        return changed, jnp.mean(usable.astype(use.dtype))

    def leave(state: ChannelStatistics):
        return state, jnp.zeros((), use.dtype)

    return lax.cond(jnp.any(dead), replace, leave, state)
