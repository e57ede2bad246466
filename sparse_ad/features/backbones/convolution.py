"""The one convolution that all backbones go through."""

import jax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), in pixels


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    bias: Float[Array, " o"],
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Float[Array, "n h2 w2 o"]:
    """Returns the cross-correlation of `x` with `kernel` (i = c / groups), plus `bias`.

    In the dtype of `x`, at full precision: GPUs else compute float32 with 10 bits (TF32).
    """
    out = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )
    return out + bias
