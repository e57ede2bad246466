"""Sparse coding as a model of vectors: one dictionary a group; error = squared residual."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.sparse.coder import sparse_coder
from sparse_ad.sparse.dictionary import Statistics, begin_dictionary, learn
from sparse_ad.sparse.problems import product
from sparse_ad.types import Key, VectorModel


class Dictionaries(NamedTuple):
    """What scoring needs."""

    dictionary: Float[Array, "g k d"]


def by_group(function: Callable, in_axes: tuple[int, ...], out_axes: int) -> Callable:
    """Returns the function mapped over groups, which lie along the given axes.

    One group is computed without a group axis: XLA's CPU code for products and gathers with a
    batch axis of one is several times slower than without.
    """

    def mapped(*trees):
        if jax.tree.leaves(trees[0])[0].shape[in_axes[0]] > 1:
            return jax.vmap(function, in_axes, out_axes)(*trees)
        only = [
            jax.tree.map(lambda leaf, axis=axis: leaf[(slice(None),) * axis + (0,)], tree)
            for axis, tree in zip(in_axes, trees, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, out_axes), function(*only))

    return mapped


def sparse_coding(config) -> VectorModel:
    """Returns the model whose error of a vector is ||x - z D||^2, z its lasso code.

    Reads atoms, minibatch and the coder's fields (see `sparse_coder`).
    Source: Imamura et al., section 3.1. Their penalty is alpha, in the same scaling.
    """
    require(config.atoms >= 1, "method.atoms", config.atoms, "must be at least 1")
    require(config.minibatch >= 1, "method.minibatch", config.minibatch, "must be at least 1")
    code = sparse_coder(config)

    def init(key: Key, vectors: Float[Array, "m g d"]) -> Statistics:
        keys = jax.random.split(key, vectors.shape[1])
        begin = partial(begin_dictionary, atoms=config.atoms)
        return by_group(begin, (0, 1), 0)(keys, vectors)

    def update(key: Key, state: Statistics, vectors: Float[Array, "m g d"]):
        count = max(1, vectors.shape[0] // config.minibatch)
        batches = vectors[: vectors.shape[0] // count * count]
        batches = batches.reshape(count, -1, *vectors.shape[1:])

        def take(state, keyed):
            key, batch = keyed
            keys = jax.random.split(key, batch.shape[1])
            return by_group(partial(learn, code=code), (0, 0, 1), 0)(keys, state, batch)

        state, info = jax.lax.scan(take, state, (jax.random.split(key, count), batches))
        return state, jax.tree.map(jnp.mean, info)

    def finish(key: Key, state: Statistics) -> Dictionaries:
        return Dictionaries(state.dictionary)

    def solve(params: Dictionaries, vectors: Float[Array, "p g d"]):
        return by_group(code, (0, 1), 1)(params.dictionary, vectors)

    def approximate(params, solution) -> Float[Array, "p g d"]:
        return by_group(product, (1, 0), 1)(solution.code, params.dictionary)

    def errors(params: Dictionaries, vectors: Float[Array, "p g d"]):
        solution = solve(params, vectors)
        residual = vectors - approximate(params, solution)
        info = {
            "converged": jnp.mean(solution.converged.astype(vectors.dtype)),
            "nonzeros": jnp.mean(jnp.sum(solution.code != 0.0, axis=-1).astype(vectors.dtype)),
            "steps": jnp.mean(solution.steps.astype(vectors.dtype)),
            "largest_gap": jnp.max(solution.gap),
        }
        return jnp.sum(residual**2, axis=-1), info

    def reconstruct(params: Dictionaries, vectors: Float[Array, "p g d"]) -> Array:
        return approximate(params, solve(params, vectors))

    def atoms(params: Dictionaries) -> Float[Array, "k d"]:
        return params.dictionary[0]

    return VectorModel(init, update, finish, errors, reconstruct, atoms)
