"""Sparse coding by exemplars, as a model of vectors: error = what a few exemplars leave."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.sparse.dictionary import unit
from sparse_ad.sparse.exemplars import (
    Exemplars,
    add_exemplars,
    begin_exemplars,
    errors_of_one,
    pursue,
    whitening,
)
from sparse_ad.sparse.problems import product
from sparse_ad.types import Key, VectorModel


class Whitened(NamedTuple):
    """Exemplars, and the linear map from vectors to the space they live in."""

    mean: Float[Array, " d"]
    axes: Float[Array, "d d"]
    model: Exemplars


def exemplar_coding(config) -> VectorModel:
    """Returns the model whose error of x is ||y - z D||^2, y = (x - mean) W, ||z||_0 <= nonzeros.

    Reads atoms, nonzeros, whitening (the shrinkage of the covariance of the first batch; 0: y = x).
    One group only. Errors: UserError that names the field, its value and the remedy.
    """
    require(config.atoms >= 1, "method.atoms", config.atoms, "must be at least 1")
    fits = 1 <= config.nonzeros <= config.atoms
    remedy = f"must be from 1 to method.atoms = {config.atoms}"
    require(fits, "method.nonzeros", config.nonzeros, remedy)
    require(config.whitening >= 0, "method.whitening", config.whitening, "must be 0 or more")

    def placed(state: Whitened, vectors: Float[Array, "m 1 d"]) -> Float[Array, "m d"]:
        centred = vectors[:, 0] - state.mean
        return product(centred, state.axes) if config.whitening else centred

    def init(key: Key, vectors: Float[Array, "m 1 d"]) -> Whitened:
        mean, axes = whitening(vectors[:, 0], config.whitening)
        return Whitened(mean, axes, begin_exemplars(config.atoms, vectors.shape[-1]))

    def update(key: Key, state: Whitened, vectors: Float[Array, "m 1 d"]):
        signals = placed(state, vectors)
        model = add_exemplars(state.model, signals)
        info = {
            "error": jnp.mean(errors_of_one(model.atoms, signals)),
            "atoms": model.count.astype(jnp.float32),
            "radius": model.radius,
        }
        return state._replace(model=model), info

    def finish(key: Key, state: Whitened) -> Whitened:
        atoms = unit(state.model.atoms)
        return state._replace(model=state.model._replace(atoms=atoms))

    def errors(params: Whitened, vectors: Float[Array, "p 1 d"]):
        left = pursue(params.model.atoms, placed(params, vectors), config.nonzeros)
        return jnp.sum(left**2, axis=1, keepdims=True), {}

    return VectorModel(init, update, finish, errors)
