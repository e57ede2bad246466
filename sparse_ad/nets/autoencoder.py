"""Auto-encoders of strided convolution blocks: an encoder, the decoder that mirrors it, LISTA."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.nets.strided import Convolution, convolve, require_fit, transposed
from sparse_ad.sparse.problems import soft_threshold

ENCODERS = ("blocks", "lista")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MOMENTUM, EPSILON = 0.9, 1e-5  # of running averages; added to variances: PyTorch's defaults
GENTLE = 0.25  # variance of a new LISTA kernel's atoms, so that its first steps do not grow
LECUN = nn.initializers.lecun_uniform()


class Blocks(NamedTuple):
    """What the blocks of an encoder are; the decoder takes them in reverse."""

    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    norm: bool
    slope: float
    dtype: Any


class Encoder(nn.Module):
    """Images to what the latent is made of: `units` for each image, or for each place of the grid.

    Strided convolutions, each but the first batch-normed, leaky ReLU; the last layer sees all of
    the grid (`latent_map` False) or one place of it, and has neither.
    """

    blocks: Blocks
    units: int
    latent_map: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n ... l"]:
        blocks = self.blocks
        layers = zip(blocks.widths, blocks.kernels, blocks.strides, strict=True)
        for at, (width, size, stride) in enumerate(layers):
            norm = blocks.norm and at > 0
            x = Convolution(width, size, stride, bias=not norm, dtype=blocks.dtype)(x)
            x = activate(x, blocks, norm, train)
        if not self.latent_map:
            x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.units, dtype=blocks.dtype, kernel_init=LECUN)(x)


class Decoder(nn.Module):
    """The latent to images of `shape`, before the output's own activation; mirrors `Encoder`.

    A layer that gives the grid of the deepest block, then transposed convolutions, all but the last
    batch-normed, leaky ReLU.
    """

    blocks: Blocks
    shape: tuple[int, int, int]
    latent_map: bool

    @nn.compact
    def __call__(self, z: Float[Array, "n ... l"], train: bool) -> Float[Array, "n h w c"]:
        blocks, deepest = self.blocks, self.blocks.widths[-1]
        grid = grid_of(blocks, self.shape[:2])
        units = deepest if self.latent_map else deepest * math.prod(grid)
        x = nn.Dense(units, not blocks.norm, blocks.dtype, kernel_init=LECUN)(z)
        x = activate(x.reshape(-1, *grid, deepest), blocks, blocks.norm, train)
        widths = (*blocks.widths[-2::-1], self.shape[2])
        layers = list(zip(widths, blocks.kernels[::-1], blocks.strides[::-1], strict=True))
        for width, size, stride in layers[:-1]:
            norm = blocks.norm
            x = Convolution(width, size, stride, True, not norm, blocks.dtype)(x)
            x = activate(x, blocks, norm, train)
        return Convolution(*layers[-1], up=True, dtype=blocks.dtype)(x)


class Lista(nn.Module):
    """Images to a convolutional sparse code, by a few learned steps of shrinkage.

        z <- soft_threshold(z + E (x - D z), threshold),   from z = 0

    with E a convolution, D a transposed one, thresholds one for each channel of the code, all of
    them learned; in the beginning E = D^T, so that steps are ISTA's.
    Source: Gregor & LeCun, ICML 2010; convolutional: Sreter & Giryes, ICASSP 2018.
    """

    blocks: Blocks  # of which the first says kernel and stride
    units: int
    steps: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n i j l"]:
        blocks = self.blocks
        size, stride = blocks.kernels[0], blocks.strides[0]
        draw = nn.initializers.variance_scaling(GENTLE, "fan_in", "uniform")
        analysis = self.param("analysis", draw, (size, size, x.shape[-1], self.units))
        synthesis = self.param("synthesis", lambda _: analysis)
        threshold = self.param("threshold", nn.initializers.constant(-4.0), (self.units,))
        encode, decode = (each.astype(blocks.dtype) for each in (analysis, synthesis))
        least = nn.softplus(threshold).astype(blocks.dtype)
        x = x.astype(blocks.dtype)
        z = soft_threshold(convolve(x, encode, stride), least)
        for _ in range(self.steps - 1):
            left = x - transposed(z, decode, stride)
            z = soft_threshold(z + convolve(left, encode, stride), least)
        return z


class Synthesis(nn.Module):
    """A convolutional code to images: one transposed convolution and a bias, the decoder of LISTA.

    What the code's own D (see `Lista`) is for the steps need not be best for the last word.
    """

    blocks: Blocks
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "n i j l"], train: bool) -> Float[Array, "n h w c"]:
        blocks = self.blocks
        size, stride = blocks.kernels[0], blocks.strides[0]
        return Convolution(self.shape[2], size, stride, up=True, dtype=blocks.dtype)(z)


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


def auto_encoder(net, shape: tuple[int, int, int], double: bool = False) -> AutoEncoder:
    """Returns the network that `net` (the section of a config) describes, for images of a shape.

    `double`: the encoder gives two numbers for each unit that the decoder takes.
    Errors: UserError that names the field, its value and the remedy.
    """
    require_choice("net.encoder", net.encoder, ENCODERS)
    require_choice("net.dtype", net.dtype, DTYPES)
    require(net.latent >= 1, "net.latent", net.latent, "give 1 or more")
    require(net.steps >= 1, "net.steps", net.steps, "give 1 or more")
    widths = tuple(net.widths)
    good = len(widths) >= 1 and min(widths) >= 1
    require(good, "net.widths", widths, "give the channels of one block or more, each at least 1")
    for field in ("kernels", "strides"):
        remedy = f"give one for each of the {len(widths)} net.widths, each at least 1"
        good = len(net[field]) == len(widths) and min(net[field]) >= 1
        require(good, f"net.{field}", tuple(net[field]), remedy)
    kernels, strides = tuple(net.kernels), tuple(net.strides)
    blocks = Blocks(widths, kernels, strides, net.norm, net.slope, DTYPES[net.dtype])
    if net.encoder == "lista":
        require_fit(kernels[0], strides[0], shape[:2])
        return AutoEncoder(Lista(blocks, net.latent, net.steps), Synthesis(blocks, shape))
    grid_of(blocks, shape[:2])
    encoder = Encoder(blocks, net.latent * (2 if double else 1), net.latent_map)
    return AutoEncoder(encoder, Decoder(blocks, shape, net.latent_map))


def grid_of(blocks: Blocks, sides: tuple[int, int]) -> tuple[int, int]:
    """Returns the places of the deepest block. Errors: UserError where a block does not fit."""
    for size, stride in zip(blocks.kernels, blocks.strides, strict=True):
        require_fit(size, stride, sides)
        sides = tuple(side // stride for side in sides)
    return sides


def activate(x: Array, blocks: Blocks, norm: bool, train: bool) -> Array:
    """Returns leaky ReLU of x, batch-normed first where `norm`.

    By the batch's own moments in training, else by their running averages.
    """
    if norm:
        x = nn.BatchNorm(
            use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, dtype=blocks.dtype
        )(x)
    return nn.leaky_relu(x, blocks.slope)
