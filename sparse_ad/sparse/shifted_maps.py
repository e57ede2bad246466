"""Inner products of a map's patches with atoms, as sums over shifted maps.

Patches are never written out: correlations, energies and statistics are sums over the s^2 offsets
in a patch of shifted maps, so that a map is read from the cache and the memory traffic is that of
the map, not of its many-fold patches. Channels come last: every operation is a vector operation
over them.

Axes: a map [h w c], a dictionary [k s s c], codes [k i j c] with patches at (i, j).
"""

from functools import reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.patches import grid


def windows(shape: tuple[int, ...], size: int, stride: int) -> tuple[int, int]:
    """Returns how many patches a map has down and across."""
    down, across = (len(grid(side, size, stride)) for side in shape[:2])
    return down, across


def shifted(maps: Float[Array, "h w c"], offset: Int[Array, ""], size: int, stride: int):
    """Returns the value at one of the size^2 offsets in every patch: [i j c]."""
    rows, columns = windows(maps.shape, size, stride)
    span = ((rows - 1) * stride + 1, (columns - 1) * stride + 1, maps.shape[2])
    part = lax.dynamic_slice(maps, (offset // size, offset % size, 0), span)
    return part[::stride, ::stride]


def correlate(
    maps: Float[Array, "h w c"], dictionary: Float[Array, "k s s c"], stride: int
) -> Float[Array, "k i j c"]:
    """Returns the inner products of every patch with its channel's atoms."""
    count, size = dictionary.shape[:2]
    atoms = dictionary.reshape(count, size * size, 1, 1, -1)

    def add(offset, total):
        values = lax.dynamic_index_in_dim(atoms, offset, axis=1, keepdims=False)
        return total + shifted(maps, offset, size, stride)[None] * values

    shape = (count, *windows(maps.shape, size, stride), maps.shape[2])
    return lax.fori_loop(0, size * size, add, jnp.zeros(shape, maps.dtype))


def energies(maps: Float[Array, "h w c"], size: int, stride: int) -> Float[Array, "i j c"]:
    """Returns the squared length of every patch: sums down, then across."""
    rows, columns = windows(maps.shape, size, stride)

    def ends(start: int, count: int) -> slice:
        return slice(start, start + (count - 1) * stride + 1, stride)

    squares = maps**2
    down = reduce(jnp.add, [squares[ends(start, rows)] for start in range(size)])
    return reduce(jnp.add, [down[:, ends(start, columns)] for start in range(size)])


def collect(
    maps: Float[Array, "h w c"], code: Float[Array, "k i j c"], size: int, stride: int
) -> Float[Array, "k s s c"]:
    """Returns sum over patches of code times patch, the adjoint of `correlate` in the atoms."""
    count, _, columns, channels = code.shape

    def add(index, total):
        row, column = index // columns, index % columns
        start = (row * stride, column * stride, 0)
        patch = lax.dynamic_slice(maps, start, (size, size, channels))
        weight = lax.dynamic_slice(code, (0, row, column, 0), (count, 1, 1, channels))
        return total + weight * patch[None]

    shape = (count, size, size, channels)
    return lax.fori_loop(0, code.shape[1] * columns, add, jnp.zeros(shape, maps.dtype))
