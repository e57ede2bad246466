"""LISTA: an encoder whose layers are steps of a sparse coder, and its linear decoder.

Source: Gregor & LeCun, "Learning Fast Approximations of Sparse Coding", ICML 2010; convolutional:
Sreter & Giryes, "Learned Convolutional Sparse Coding", ICASSP 2018.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.devices import DTYPES
from sparse_ad.errors import require, require_choice
from sparse_ad.nets.layers import Convolution
from sparse_ad.nets.strided import convolve, require_fit, transposed
from sparse_ad.sparse.problems import soft_threshold

GENTLE = 0.25  # variance of a new kernel's atoms, so that the first steps do not grow
THRESHOLD = -4.0  # softplus of it, 0.018, is the first threshold


@dataclass(frozen=True)
class Lista:
    """A convolutional sparse code, by a few learned steps of shrinkage.

    z <- soft_threshold(z + E (x - D z), threshold),   from z = 0;   reconstruction: D' z + bias

    E is a convolution, D and D' are transposed ones, thresholds one for each channel of the code,
    all of them learned; in the beginning E = D^T, so that steps are ISTA's.
    """

    kernel: int = 8  # side, in pixels
    stride: int = 4  # pixels between two positions of the code; divides the kernel's side
    latent: int = 64  # channels of the code: so many units at each position
    steps: int = 3  # of shrinkage
    dtype: str = "float32"  # float32 | bfloat16: of the computation; weights are float32

    def __post_init__(self):
        require_choice("dtype", self.dtype, DTYPES)
        for field in ("kernel", "stride", "latent", "steps"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "give 1 or more")
        remedy = f"give a multiple of the stride, {self.stride}"
        require(self.kernel % self.stride == 0, "kernel", self.kernel, remedy)

    def encoder(self, numbers: int = 1) -> nn.Module:
        """Returns the encoder, which gives so many numbers for each unit of the code."""
        return Analysis(self, numbers * self.latent)

    def decoder(self, shape: tuple[int, int, int]) -> nn.Module:
        """Returns the decoder to images of a shape.

        Raises: FieldError where the stride does not divide their sides.
        """
        require_fit(self.kernel, self.stride, shape[:2])
        return Synthesis(self, shape[2])


class Analysis(nn.Module):
    """Images to a convolutional sparse code: see `Lista`."""

    lista: Lista
    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n i j l"]:
        size, stride, dtype = self.lista.kernel, self.lista.stride, DTYPES[self.lista.dtype]
        draw = nn.initializers.variance_scaling(GENTLE, "fan_in", "uniform")
        analysis = self.param("analysis", draw, (size, size, x.shape[-1], self.units), jnp.float32)
        synthesis = self.param("synthesis", lambda _: analysis)
        threshold = self.param(
            "threshold", nn.initializers.constant(THRESHOLD), (self.units,), jnp.float32
        )
        encode, decode = (kernel.astype(dtype) for kernel in (analysis, synthesis))
        least = nn.softplus(threshold).astype(dtype).reshape(1, 1, 1, -1)
        x = x.astype(dtype)
        z = soft_threshold(convolve(x, encode, stride), least)
        for _ in range(self.lista.steps - 1):
            residual = x - transposed(z, decode, stride)
            z = soft_threshold(z + convolve(residual, encode, stride), least)
        return z


class Synthesis(nn.Module):
    """A convolutional code to images: one transposed convolution and a bias, D' of `Lista`.

    What serves the steps best as D need not be best for the reconstruction.
    """

    lista: Lista
    channels: int  # of the images

    @nn.compact
    def __call__(self, z: Float[Array, "n i j l"], train: bool) -> Float[Array, "n h w c"]:
        size, stride, dtype = self.lista.kernel, self.lista.stride, DTYPES[self.lista.dtype]
        return Convolution(self.channels, size, stride, up=True, dtype=dtype)(z)
