"""The layers that networks are made of: strided convolutions, up or down, and batch norm."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.nets.strided import convolve, transposed

MOMENTUM, EPSILON = 0.9, 1e-5  # of running averages; added to variances: PyTorch's defaults


class Convolution(nn.Module):
    """`convolve`, or with `up` its transpose, plus a bias; weights in float32."""

    channels: int
    size: int
    stride: int = 1
    up: bool = False
    bias: bool = True
    dtype: type = jnp.float32
    draw: Callable | None = None  # initialiser of the kernel; None: He's

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j o"]:
        ends = (x.shape[-1], self.channels)
        shape = (self.size, self.size, *(reversed(ends) if self.up else ends))
        draw = self.draw or he_uniform(self.stride, self.up)
        kernel = self.param("kernel", draw, shape, jnp.float32).astype(self.dtype)
        apply = transposed if self.up else convolve
        out = apply(x.astype(self.dtype), kernel, self.stride)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
            out = out + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return out


def he_uniform(stride: int, up: bool) -> Callable:
    """Returns He's initialiser for what a position sees, behind a leaky ReLU.

    Of a transposed kernel a position sees one value in stride x stride.
    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2.
    """
    gain, (fan_in, fan_out) = (2.0 * stride**2, (-1, -2)) if up else (2.0, (-2, -1))
    return nn.initializers.variance_scaling(gain, "fan_in", "uniform", fan_in, fan_out)


def batch_norm(train: bool, dtype: type) -> nn.Module:
    """Returns a batch norm: by the batch's own moments in training, else by running averages."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, dtype=dtype
    )
