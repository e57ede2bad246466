"""The range of images, 0..1 or -1..1, and the activations of outputs that imply one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Output(NamedTuple):
    """The last activation of a decoder, and the range that it implies."""

    activation: Callable
    target: Callable  # images 0..1 -> what the output should be
    image: Callable  # output -> images 0..1


def signed(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns images 0..1 as -1..1."""
    return 2.0 * images - 1.0


def unsigned(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns images -1..1 as 0..1."""
    return 0.5 * (images + 1.0)


def unchanged(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns what it is given."""
    return values


OUTPUTS = {
    "tanh": Output(jnp.tanh, signed, unsigned),
    "sigmoid": Output(jax.nn.sigmoid, unchanged, unchanged),
    "linear": Output(unchanged, unchanged, unchanged),
}
