"""How far reconstructions are from images, pixel by pixel, and what a latent looks like."""

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

STABLE = (0.01**2, 0.03**2)  # c1 and c2 of SSIM, for values in 0..1
ACTIVE = 0.01  # of an image's largest unit: what a unit must exceed to count as active

Images = Float[Array | np.ndarray, "n h w c"]


def squared_error(images: Images, reconstructed: Images) -> Float[Array, "n h w"]:
    """Returns (x - y)^2, mean over channels."""
    return jnp.mean((images - reconstructed) ** 2, axis=-1)


def cross_entropy(images: Images, logits: Images) -> Float[Array, "n h w"]:
    """Returns -x log y - (1 - x) log(1 - y), mean over channels, for y = sigmoid(logits)."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, images), axis=-1)


def dissimilarity(images: Images, reconstructed: Images, window: int) -> Float[Array, "n i j"]:
    """Returns 1 - SSIM of every whole window, mean over channels; i = h - window + 1.

        SSIM = (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))

    Means, variances and covariance of plain windows, for values in 0..1.
    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 2004, Eq. (13); Bergmann et al., "Improving Unsupervised Defect
    Segmentation by Applying Structural Similarity to Autoencoders", VISAPP 2019, section 3.3:
    window 11.
    """
    c1, c2 = STABLE
    x, y = images, reconstructed
    moments = window_means(jnp.concatenate([x, y, x * x, y * y, x * y], axis=-1), window)
    mean_x, mean_y, square_x, square_y, product = jnp.split(moments, 5, axis=-1)
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return 1.0 - jnp.mean(above / below, axis=-1)


def window_means(x: Images, window: int) -> Float[Array, "n i j c"]:
    """Returns the means of all whole windows, as products with two banded matrices.

    For them CPUs and accelerators are quick, also in the gradient.
    """
    down, across = (jnp.asarray(band(side, window), x.dtype) for side in x.shape[1:3])
    exact = lax.Precision.HIGHEST  # else variances, which are differences, drown in rounding
    rows = jnp.einsum("ih,nhwc->niwc", down, x, precision=exact)
    return jnp.einsum("jw,niwc->nijc", across, rows, precision=exact)


def band(side: int, window: int) -> Float[np.ndarray, "i side"]:
    """Returns the matrix whose row i averages `window` values from the i-th on."""
    first = np.arange(side - window + 1)[:, None]
    ahead = np.arange(side)[None] - first
    return ((ahead >= 0) & (ahead < window)) / window


def widen(windows: Float[Array, "n i j"], window: int) -> Float[Array, "n h w"]:
    """Returns a map of whole windows as one of pixels: each that of the nearest whole window."""
    before, after = (window - 1) // 2, window // 2
    return jnp.pad(windows, ((0, 0), (before, after), (before, after)), mode="edge")


def divergence(mean: Float[Array, "*n"], log_variance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns the divergence of each Gaussian from the one of mean 0 and std 1.

        KL = 1/2 (variance + mean^2 - 1 - log variance)

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B.
    """
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)


def fraction_active(code: Float[Array | np.ndarray, "n ..."]) -> Float[Array, " n"]:
    """Returns the fraction of units of more than 1 % of an image's largest.

    Relative, because a decoder undoes any scale of its input: an absolute bound would mean little.
    """
    size = jnp.abs(code.reshape(code.shape[0], -1))
    return jnp.mean(size > ACTIVE * jnp.max(size, axis=1, keepdims=True), axis=1)
