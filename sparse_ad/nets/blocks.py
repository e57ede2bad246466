"""Auto-encoders of strided convolution blocks: an encoder, and the decoder that mirrors it."""

import math
from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Array, Float

from sparse_ad.devices import DTYPES
from sparse_ad.errors import require, require_choice
from sparse_ad.nets.layers import Convolution, batch_norm

LECUN = nn.initializers.lecun_uniform()


@dataclass(frozen=True)
class Blocks:
    """An encoder of convolutions, each halving the grid or so, and its mirror image.

    Source: Zhao & Karray, section 2, whose four blocks and 300 units are the defaults. Where the
    paper is silent: kernels of 4 at stride 2, so that every position of a transposed convolution
    gets as many terms; widths; the slope of leaky ReLU, which is DCGAN's.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)  # channels of the encoder's blocks
    kernels: tuple[int, ...] = (4, 4, 4, 4)  # side of each block's kernel, in pixels of its input
    strides: tuple[int, ...] = (2, 2, 2, 2)  # of each block; divides the kernel's side
    norm: bool = True  # batch norm, except in the encoder's first and the decoder's last layer
    slope: float = 0.2  # of leaky ReLU, for negative values
    latent: int = 300  # units of the code
    latent_map: bool = False  # True: so many units at each position of the grid, not of the image
    dtype: str = "float32"  # float32 | bfloat16: of the computation; weights are float32

    def __post_init__(self):
        require_choice("dtype", self.dtype, DTYPES)
        require(self.latent >= 1, "latent", self.latent, "give 1 or more")
        require(0 <= self.slope < math.inf, "slope", self.slope, "give a finite number, 0 or more")
        remedy = "give the channels of one block or more, each at least 1"
        require(min(self.widths, default=0) >= 1, "widths", self.widths, remedy)
        remedy = f"give one for each of the {len(self.widths)} widths, each at least 1"
        for field in ("kernels", "strides"):
            values = getattr(self, field)
            require(len(values) == len(self.widths) and min(values) >= 1, field, values, remedy)
        even = all(k % s == 0 for k, s in zip(self.kernels, self.strides, strict=True))
        remedy = f"give multiples of the strides, {self.strides}"
        require(even, "kernels", self.kernels, remedy)

    def encoder(self, numbers: int = 1) -> nn.Module:
        """Returns the encoder, which gives so many numbers for each unit of the code."""
        return Encoder(self, numbers * self.latent)

    def decoder(self, shape: tuple[int, int, int]) -> nn.Module:
        """Returns the decoder to images of a shape.

        Raises: FieldError where they cannot be divided as the strides say.
        """
        return Decoder(self, grid(self, shape[:2]), shape[2])


class Encoder(nn.Module):
    """Images to what the code is made of: `units` numbers for each image, or each position.

    Strided convolutions, all but the first batch-normed, leaky ReLU; the last layer sees the whole
    grid, or one position of it if `latent_map`, and has neither.
    """

    blocks: Blocks
    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n ..."]:
        blocks, dtype = self.blocks, DTYPES[self.blocks.dtype]
        layers = zip(blocks.widths, blocks.kernels, blocks.strides, strict=True)
        for index, (width, size, stride) in enumerate(layers):
            norm = blocks.norm and index > 0
            x = Convolution(width, size, stride, bias=not norm, dtype=dtype)(x)
            x = activate(x, blocks, norm, train)
        if not blocks.latent_map:
            x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.units, dtype=dtype, kernel_init=LECUN)(x)


class Decoder(nn.Module):
    """The code to images, before the output's activation; mirrors `Encoder`.

    A layer that gives the grid of the deepest block, then transposed convolutions, all but the last
    batch-normed, leaky ReLU.
    """

    blocks: Blocks
    grid: tuple[int, int]  # positions of the deepest block
    channels: int  # of the images

    @nn.compact
    def __call__(self, z: Float[Array, "n ..."], train: bool) -> Float[Array, "n h w c"]:
        blocks, dtype, norm = self.blocks, DTYPES[self.blocks.dtype], self.blocks.norm
        deepest = blocks.widths[-1]
        units = deepest * (1 if blocks.latent_map else math.prod(self.grid))
        x = nn.Dense(units, not norm, dtype, kernel_init=LECUN)(z)
        x = activate(x.reshape(-1, *self.grid, deepest), blocks, norm, train)
        widths = (*blocks.widths[-2::-1], self.channels)
        layers = list(zip(widths, blocks.kernels[::-1], blocks.strides[::-1], strict=True))
        for width, size, stride in layers[:-1]:
            x = Convolution(width, size, stride, True, not norm, dtype)(x)
            x = activate(x, blocks, norm, train)
        return Convolution(*layers[-1], up=True, dtype=dtype)(x)


def grid(blocks: Blocks, sides: tuple[int, int]) -> tuple[int, int]:
    """Returns the positions of the deepest block, down and across, for images of given sides.

    Raises: FieldError where a block's stride does not divide what it sees.
    """
    for stride in blocks.strides:
        remedy = f"must divide the images' sides, but one of {stride} meets {sides}"
        require(all(side % stride == 0 for side in sides), "strides", blocks.strides, remedy)
        sides = (sides[0] // stride, sides[1] // stride)
    return sides


def activate(x: Array, blocks: Blocks, norm: bool, train: bool) -> Array:
    """Returns leaky ReLU of x, batch-normed first if `norm`."""
    if norm:
        x = batch_norm(train, DTYPES[blocks.dtype])(x)
    return nn.leaky_relu(x, blocks.slope)
