"""Mean and covariance of vectors that stream by, and the distance that they define."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import product


class Moments(NamedTuple):
    """What is remembered of the vectors seen."""

    count: Float[Array, ""]
    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]  # divided by count


class Whitening(NamedTuple):
    """The linear map x -> (x - mean) axes."""

    mean: Float[Array, " d"]
    axes: Float[Array, "d d"]


def begin_moments(length: int, dtype: DTypeLike = jnp.float32) -> Moments:
    """Returns the moments of no vectors."""
    zeros = partial(jnp.zeros, dtype=dtype)
    return Moments(zeros(()), zeros((length,)), zeros((length, length)))


def add_vectors(state: Moments, vectors: Float[Array, "m d"]) -> Moments:
    """Returns the moments of all vectors seen, including the new ones.

    Source: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: sums of squares are never subtracted from each other.
    """
    fraction = vectors.shape[0] / (state.count + vectors.shape[0])  # of the new ones in all
    mean = jnp.mean(vectors, axis=0)
    centred, shift = vectors - mean[None], mean - state.mean
    covariance = product(centred.T, centred) / vectors.shape[0]
    between = (1.0 - fraction) * fraction * jnp.outer(shift, shift)
    return Moments(
        state.count + vectors.shape[0],
        state.mean + fraction * shift,
        (1.0 - fraction) * state.covariance + fraction * covariance + between,
    )


def whiten(state: Moments, shrinkage: float) -> Whitening:
    """Returns W for which (x - mean) W has covariance C (C + shrinkage tr(C)/d I)^-1."""
    return Whitening(state.mean, whitening_axes(state.covariance, shrinkage))


def whitening_axes(covariance: Float[Array, "d d"], shrinkage: float) -> Float[Array, "d d"]:
    """Returns W of `whiten`; where nothing varies, W keeps all lengths."""
    values, axes = jnp.linalg.eigh(covariance)
    scale = lax.rsqrt(jnp.maximum(values, 0.0) + shrinkage * jnp.mean(values))
    return axes * jnp.where(jnp.mean(values) > 0.0, scale, 1.0)[None]


def apply_whitening(whitening: Whitening, vectors: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Returns (x - mean) axes of each vector x."""
    mean = whitening.mean.reshape(*(1,) * (vectors.ndim - 1), -1)
    return product(vectors - mean, whitening.axes)


def distance(whitening: Whitening, vectors: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Returns the mean square of whitened vectors: near 1 for vectors like those seen.

    Without shrinkage this is the squared Mahalanobis distance / d.
    """
    return jnp.mean(apply_whitening(whitening, vectors) ** 2, axis=-1)
