"""Auto-encoders: an encoder f, a code z made of f(x), and a decoder g, of one of several makes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.nets.blocks import Blocks
from sparse_ad.nets.lista import Lista

NETS = {"blocks": Blocks, "lista": Lista}  # name -> options


class AutoEncoder(nn.Module):
    """An encoder and a decoder, and between them what the caller makes of the one for the other."""

    encoder: nn.Module
    decoder: nn.Module

    def __call__(
        self,
        x: Float[Array, "n h w c"],
        train: bool,
        between: Callable[[Float[Array, "n ..."]], tuple[Float[Array, "n ..."], Any]],
    ) -> tuple[Float[Array, "n ..."], Any, Float[Array, "n h w c"]]:
        """Returns code and cost, which `between` makes of the encoder's output, and g(code)."""
        code, cost = between(self.encoder(x, train).astype(jnp.float32))
        return code, cost, self.decoder(code, train).astype(jnp.float32)


def auto_encoder(
    options: Blocks | Lista, shape: tuple[int, int, int], numbers: int = 1
) -> AutoEncoder:
    """Returns the network that the options describe, for images of shape (h, w, c).

    `numbers`: the encoder gives so many for each unit that the decoder takes.

    Raises: FieldError where the options do not fit the images.
    """
    return AutoEncoder(options.encoder(numbers), options.decoder(shape))
