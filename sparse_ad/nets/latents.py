"""What the encoder's output is taken for: how the code, and its cost, are made of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.nets.losses import divergence
from sparse_ad.types import Key

CodeAndCost = tuple[Float[Array, "n ..."], Float[Array, "n ..."]]


class Latent(NamedTuple):
    """A kind of code."""

    make: Callable[[Key | None, Float[Array, "n ..."]], CodeAndCost]  # key: None at scoring
    numbers: int = 1  # that the encoder gives for each unit of the code


def sigmoid(key: Key | None, raw: Float[Array, "n ..."]) -> CodeAndCost:
    """Returns units in 0..1; each costs its size: z = sigmoid(raw), |z|."""
    return linear(key, jax.nn.sigmoid(raw))


def linear(key: Key | None, raw: Float[Array, "n ..."]) -> CodeAndCost:
    """Returns the units as they are; each costs its size, |z|."""
    return raw, jnp.abs(raw)


def gaussian(key: Key | None, raw: Float[Array, "n ..."]) -> CodeAndCost:
    """Returns a draw from the code's distribution in training, its mean without a key.

        z = mean + std * noise

    A unit costs the divergence of its Gaussian from the prior.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, section 2.4.
    """
    mean, log_variance = jnp.split(raw, 2, axis=-1)
    noise = 0.0 if key is None else jax.random.normal(key, mean.shape, mean.dtype)
    return mean + jnp.exp(0.5 * log_variance) * noise, divergence(mean, log_variance)


CODES = {"sigmoid": Latent(sigmoid), "linear": Latent(linear), "gaussian": Latent(gaussian, 2)}
