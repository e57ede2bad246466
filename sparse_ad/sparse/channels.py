"""One small dictionary for each channel of a feature map, all channels as one program.

A patch of channel c is s x s values of that channel; patches are never written out, see
`shifted_maps.py`. Axes: a map [h w c], a dictionary [k s s c], codes [k i j c] with patches at
(i, j).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.sparse.dictionary import NOISE, Statistics, Sums, add_batch, begin, replace_unused
from sparse_ad.sparse.problems import (
    Coder,
    Quadratic,
    QuadraticSolver,
    Solution,
    require_fewer,
)
from sparse_ad.sparse.shifted_maps import collect, correlate, energies, windows
from sparse_ad.sparse.solvers import few_atoms
from sparse_ad.sparse.solvers.few_atoms.coordinate_descent import SWEEPS
from sparse_ad.types import Key

MOST_ATOMS = 24  # of a channel: the program has each of them, and takes a minute to compile
MOST_SUPPORTS = 200  # likewise


@dataclass(frozen=True)
class ChannelLasso:
    """Codes by the lasso, with coordinate descent."""

    penalty: float = 1.0  # of the code's L1 norm, beside 1/2 ||x - z D||^2
    max_steps: int = 1000  # sweeps over the atoms, at most
    tolerance: float = 1e-4  # relative duality gap that is small enough

    certified = True  # solutions carry a duality gap

    def __post_init__(self):
        require(self.penalty > 0, "penalty", self.penalty, "must be positive")
        require(self.max_steps >= 1, "max_steps", self.max_steps, "must be at least 1")
        require(self.tolerance > 0, "tolerance", self.tolerance, "must be positive")

    def solver(self) -> QuadraticSolver:
        """Returns the solver, bound to these options."""
        return partial(few_atoms.coordinate_descent, **vars(self))

    def for_learning(self) -> "ChannelLasso":
        """Returns the options, as exact as learning needs them.

        The lasso stops after SWEEPS sweeps, which suffice for all but a few percent of the signals;
        the others go into the statistics as they stand, and later images, coded again, outweigh
        them.
        """
        return replace(self, max_steps=SWEEPS)

    def check_atoms(self, atoms: int) -> None:
        """Accepts any number of atoms."""


@dataclass(frozen=True)
class ChannelOmp:
    """Codes by at most so many atoms, with orthogonal matching pursuit."""

    nonzeros: int = 3  # of a code, at most

    certified = False

    def __post_init__(self):
        require(self.nonzeros >= 1, "nonzeros", self.nonzeros, "must be at least 1")

    def solver(self) -> QuadraticSolver:
        """Returns the solver, bound to these options."""
        return partial(few_atoms.omp, nonzeros=self.nonzeros)

    def for_learning(self) -> "ChannelOmp":
        """Returns these options: learning codes as scoring does."""
        return self

    def check_atoms(self, atoms: int) -> None:
        """Raises FieldError where a code would have more non-zeros than there are atoms."""
        require_fewer(self.nonzeros, atoms)


@dataclass(frozen=True)
class ChannelExactL0(ChannelOmp):
    """Codes by at most so many atoms: the best of all supports."""

    def check_atoms(self, atoms: int) -> None:
        """Raises FieldError for more non-zeros than atoms, or supports than can be compiled."""
        super().check_atoms(atoms)
        supports = math.comb(atoms, self.nonzeros)
        remedy = (
            f"of {atoms} atoms these are {supports} supports, at most {MOST_SUPPORTS}: give fewer"
        )
        require(supports <= MOST_SUPPORTS, "nonzeros", self.nonzeros, remedy)

    def solver(self) -> QuadraticSolver:
        """Returns the solver, bound to these options."""
        return partial(few_atoms.exact_l0, nonzeros=self.nonzeros)


ChannelCoder = ChannelLasso | ChannelOmp | ChannelExactL0
CHANNEL_CODERS = {"lasso": ChannelLasso, "omp": ChannelOmp, "exact_l0": ChannelExactL0}


def channel_coder(options: ChannelCoder, stride: int) -> Coder:
    """Returns `coder(dictionary[k s s c], map[h w c]) -> Solution`; see `code_map`."""
    return partial(code_map, options.solver(), stride)


def code_map(
    solver: QuadraticSolver,
    stride: int,
    dictionary: Float[Array, "k s s c"],
    maps: Float[Array, "h w c"],
) -> Solution:
    """Codes all patches of a map, each by its own channel's dictionary: code [k i j c]."""
    gram = gram_of(dictionary)[:, :, None, None]
    correlation = correlate(maps, dictionary, stride)
    return solver(Quadratic(gram, correlation, energies(maps, dictionary.shape[1], stride)))


def gram_of(dictionary: Float[Array, "k s s c"]) -> Float[Array, "k k c"]:
    """Returns the inner products of each channel's atoms."""
    count = dictionary.shape[0]
    rows = [
        jnp.stack([jnp.sum(dictionary[i] * dictionary[j], axis=(0, 1)) for j in range(count)])
        for i in range(count)
    ]
    return jnp.stack(rows)


def draw_patches(
    key: Key, maps: Float[Array, "n h w c"], count: int, size: int, stride: int
) -> Float[Array, "count s s c"]:
    """Returns for each channel `count` patches of it, drawn by their energy.

    Gumbel noise on log weights: the largest `count` are a draw without replacement.
    """
    weight = lax.map(partial(energies, size=size, stride=stride), maps)
    shape, channels = weight.shape[:3], weight.shape[3]
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    score = noise + jnp.log(weight + jnp.finfo(weight.dtype).tiny)
    ranked = jnp.moveaxis(score, -1, 0).reshape(channels, -1)
    few = min(count, ranked.shape[1])  # fewer patches than atoms: some are drawn again
    best = lax.top_k(ranked, few)[1][:, jnp.arange(count) % few]

    def cut(channel, index):
        image, row, column = jnp.unravel_index(index, shape)
        start = (image, row * stride, column * stride, channel)
        return lax.dynamic_slice(maps, start, (1, size, size, 1))[0, ..., 0]

    patches = jax.vmap(jax.vmap(cut, (None, 0)))(jnp.arange(channels, dtype=best.dtype), best)
    return jnp.moveaxis(patches, 0, -1)


def begin_channels(
    key: Key, maps: Float[Array, "n h w c"], size: int, stride: int, atoms: int
) -> Statistics:
    """Returns dictionaries of patches drawn by their energy, and empty statistics.

    A tenth of noise tells copies apart, where maps are flat or hold fewer patches than atoms.
    Raises: FieldError where a patch does not fit.
    """
    windows(maps.shape[1:], size, stride)  # a patch must fit
    draw, jitter = jax.random.split(key)
    return begin(jitter, draw_patches(draw, maps, atoms, size, stride), NOISE, batch=1)


def learn_channels(
    key: Key,
    state: Statistics,
    maps: Float[Array, "n h w c"],
    stride: int,
    coder: Coder,
    total: Callable[[Callable, Array, Array], Sums],
) -> tuple[Statistics, dict[str, Array]]:
    """Takes a batch of maps in: codes every patch, adds the statistics, improves every atom once.

    `total(function, dictionary, maps)` returns the sum of function(dictionary, map) over the maps;
    it may spread them over devices. Returns the state, and what to log: mean squared error of a
    patch, fraction of atoms that were hardly used (and are replaced).
    Source: as `dictionary.learn`, for all channels at once.
    """
    atoms, size = state.dictionary.shape[:2]
    rows, columns = windows(maps.shape[1:], size, stride)
    count = maps.shape[0] * rows * columns
    sums = total(partial(sums_of_map, coder, stride), state.dictionary, maps)
    state = add_batch(state, sums, count)
    draw = partial(draw_patches, key, maps, atoms, size, stride)
    state, replaced = replace_unused(state, draw)
    return state, {"error": jnp.mean(sums.error) / count, "replaced": replaced}


def sums_of_map(
    coder: Coder, stride: int, dictionary: Float[Array, "k s s c"], maps: Float[Array, "h w c"]
) -> Sums:
    """Returns what learning needs of the patches of one map."""
    solution = coder(dictionary, maps)
    z = solution.code
    energy = jnp.stack([jnp.sum(z * z[j][None], axis=(1, 2)) for j in range(len(z))])
    cross = collect(maps, z, dictionary.shape[1], stride)
    return Sums(energy, cross, jnp.sum(solution.error, axis=(0, 1)))
