"""Loops over images whose results have the same bits whatever batch an image came in."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree, Shaped

Rows = PyTree[Shaped[Array | np.ndarray, "n ..."]]  # of images, or of a tree of their maps


def for_each(function: Callable, images: Rows, together: int = 1):
    """Returns function(one image) of all images, `together` of them at a time.

    This is the one place that makes a result independent of the batch: every image, or group of
    `together` images under `vmap`, runs through the same program. The last group is padded.
    """
    if together == 1:
        return one_by_one(function, images)
    return in_groups(jax.vmap(function), images, together)


def batched(function: Callable, together: int = 1) -> Callable:
    """Returns (params, images [n ...]) -> function(params, one image) of all images."""
    return partial(_batched, function, together)


def _batched(function: Callable, together: int, params, images: Rows):
    return for_each(partial(function, params), images, together)


def one_by_one(function: Callable, images: Rows):
    """Returns function(image) of all images, as `lax.map` does, with the same bits for any n.

    A loop of one turn would be unrolled, its operations fused with what is around them, and
    rounded differently. So a single image is given a second row, which is not visited, and the
    number of turns is hidden from the compiler.
    """
    first = jax.tree.leaves(images)[0]
    count = first.shape[0]
    double = lambda leaf: jnp.concatenate([leaf, leaf])  # noqa: E731
    rows = jax.tree.map(double, images) if count == 1 else images
    results = jax.eval_shape(jax.vmap(function), rows)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), results)
    turns = lax.optimization_barrier(jnp.asarray(count))  # the compiler cannot see through it

    def fill(index, filled):
        row = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), rows)
        result = function(row)
        return jax.tree.map(lambda leaf, value: leaf.at[index].set(value), filled, result)

    filled = lax.fori_loop(0, turns, fill, empty)
    return jax.tree.map(lambda leaf: leaf[:count], filled)


def in_groups(function: Callable, images: Rows, size: int):
    """Returns function(some images [size ...]) of all images, the last group padded.

    Every group has the same shape, so that one program serves any number of images.
    """

    def cut(leaf):
        padding = ((0, -leaf.shape[0] % size), *((0, 0),) * (leaf.ndim - 1))
        return jnp.pad(leaf, padding).reshape(-1, size, *leaf.shape[1:])

    count = jax.tree.leaves(images)[0].shape[0]
    results = one_by_one(function, jax.tree.map(cut, images))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)
