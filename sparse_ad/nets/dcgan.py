"""DCGAN: a generator that turns noise into images, and a discriminator that tells them apart.

Source: Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016, section 3: strided convolutions instead of pooling, batch norm
except at the generator's output and the discriminator's input, ReLU and tanh in the generator,
leaky ReLU of slope 0.2 in the discriminator, weights drawn with std 0.02.
Differs: kernels of 4 pixels, as in the common implementations, not 5: every output of a transposed
convolution then gets as many terms. Images of any power of two, not of 64 alone: one layer for
each halving, down to a grid whose shorter side is 4.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import UserError
from sparse_ad.nets.layers import Convolution, batch_norm

GRID = 4  # shorter side of the coarsest grid, in positions
SMALLEST = 32  # pixels: three layers
SIZE, STRIDE = 4, 2  # of kernels
SLOPE = 0.2
DRAW = nn.initializers.normal(0.02)


def layer_widths(sides: tuple[int, int], widths: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the channels of each layer from the image inwards; the last of `widths` is repeated.

    Raises: UserError where a side of the images is no power of two, or below 32.
    """
    if not all(side >= SMALLEST and side & (side - 1) == 0 for side in sides):
        remedy = f"each side must be a power of two, {SMALLEST} or more; change their size"
        raise UserError(f"images of {sides[0]} x {sides[1]}: {remedy}, or that of tiles")
    depth = (min(sides) // GRID).bit_length() - 1
    return tuple(widths[min(layer, len(widths) - 1)] for layer in range(depth))


class Generator(nn.Module):
    """Noise to images in -1..1."""

    shape: tuple[int, int, int]  # height, width, channels of the images
    widths: tuple[int, ...]  # see `layer_widths`
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, noise: Float[Array, "n l"], train: bool) -> Float[Array, "n h w c"]:
        height, width, channels = self.shape
        halvings = len(self.widths)
        grid = (height >> halvings, width >> halvings, self.widths[-1])
        grow = partial(Convolution, size=SIZE, stride=STRIDE, up=True, dtype=self.dtype, draw=DRAW)
        units = grid[0] * grid[1] * grid[2]
        x = nn.Dense(units, use_bias=False, kernel_init=DRAW, dtype=self.dtype)(noise)
        x = nn.relu(batch_norm(train, self.dtype)(x.reshape(-1, *grid)))
        for count in self.widths[-2::-1]:
            x = nn.relu(batch_norm(train, self.dtype)(grow(count, bias=False)(x)))
        return jnp.tanh(grow(channels)(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Images in -1..1 to the logits that each is real, and the outputs of the last layer but one.

    The latter are the features f(x) that AnoGAN compares.
    """

    widths: tuple[int, ...]
    dtype: type = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> tuple[Float[Array, " n"], Float[Array, "n i j k"]]:
        shrink = partial(Convolution, size=SIZE, stride=STRIDE, dtype=self.dtype, draw=DRAW)
        x = nn.leaky_relu(shrink(self.widths[0])(images), SLOPE)
        for count in self.widths[1:]:
            x = batch_norm(train, self.dtype)(shrink(count, bias=False)(x))
            x = nn.leaky_relu(x, SLOPE)
        logits = nn.Dense(1, kernel_init=DRAW, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        return logits[:, 0].astype(jnp.float32), x.astype(jnp.float32)
