"""Strided convolutions by matrix products against XLA's convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparse_ad.errors import FieldError
from sparse_ad.nets import products, strided

SHAPES = [(4, 2), (3, 1), (1, 1), pytest.param(8, 4, marks=pytest.mark.slow)]  # kernel, stride


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_xla(monkeypatch):
    """Returns the functions of nets/strided.py as they are on accelerators."""
    monkeypatch.setattr(strided, "on_cpu", lambda: False)
    return strided.convolve, strided.transposed


def loss(function, stride, array, kernel):
    """A number that depends on all values, and the values."""
    values = function(array, kernel, stride)
    return jnp.sum(values**2), values


@pytest.mark.parametrize("cache", [1e9, 1.0])
@pytest.mark.parametrize(("size", "stride"), SHAPES)
def test_products_are_convolutions(size, stride, cache, monkeypatch):
    """Values and gradients, of all images at a time or of one; `transposed` is the adjoint."""
    monkeypatch.setattr(products, "CACHE", cache)
    x, y = drawn(2, 12, 24, 5), drawn(2, 12 // stride, 24 // stride, 7, seed=1)
    kernel = drawn(size, size, 5, 7, seed=2) / size
    ours = (products.convolve, products.transposed)
    results = []
    for product, convolution, array in zip(ours, by_xla(monkeypatch), (x, y), strict=True):
        both = [
            jax.jit(jax.value_and_grad(partial(loss, each, stride), (0, 1), has_aux=True))
            for each in (product, convolution)
        ]
        found = [function(array, kernel) for function in both]
        values, gradients = [each[0][1] for each in found], [each[1] for each in found]
        np.testing.assert_allclose(*values, atol=1e-5)  # sums of some hundred float32
        for left, right in zip(*gradients, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5 * jnp.abs(right).max())
        results.append(values[0])
    forward, backward = results
    assert forward.shape == y.shape and backward.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(forward, y), jnp.vdot(x, backward), rtol=1e-4)


@pytest.mark.parametrize("cache", [1e9, 40_000.0])  # all images at a time, or two
@pytest.mark.parametrize("name", ["convolve", "transposed"])
def test_vmap_over_images_is_a_batch(name, cache, monkeypatch):
    """The same bits, since the same blocks of images are multiplied: mapped once or twice."""
    monkeypatch.setattr(products, "CACHE", cache)
    x, kernel = drawn(8, 8, 8, 16), drawn(4, 4, *((16, 3) if name == "convolve" else (3, 16)))
    function = jax.jit(partial(getattr(products, name), stride=2))
    batch = function(x, kernel=kernel)
    alone = jax.jit(jax.vmap(lambda image: function(image[None], kernel=kernel)[0]))(x)
    np.testing.assert_array_equal(alone, batch)
    pairs = jax.jit(jax.vmap(jax.vmap(lambda image: function(image[None], kernel=kernel)[0])))
    np.testing.assert_array_equal(pairs(x.reshape(4, 2, 8, 8, 16)).reshape(batch.shape), batch)


def test_vmap_multiplies_as_few_times_as_a_batch(monkeypatch):
    """Blocks are chosen for all images under `vmap`, not for the one that the function sees."""
    monkeypatch.setattr(products, "CACHE", 40_000.0)
    x, kernel = drawn(8, 8, 8, 16), drawn(4, 4, 16, 3)
    mapped = jax.vmap(lambda image: products.convolve(image[None], kernel, 2)[0])
    batch = lambda x: products.convolve(x, kernel, 2)  # noqa: E731
    loops = [str(jax.make_jaxpr(function)(x)).count("scan[") for function in (mapped, batch)]
    assert loops == [1, 1]  # one loop over blocks


@pytest.mark.parametrize("name", ["convolve", "transposed"])
def test_vmap_over_kernels(name):
    """With and without an image for each: as a loop gives."""
    x, kernels = drawn(3, 2, 4, 4, 5), drawn(3, 2, 2, 5, 5, seed=1)
    function = partial(getattr(products, name), stride=2)
    found = jax.vmap(lambda image, kernel: function(image, kernel=kernel))(x, kernels)
    shared = jax.vmap(lambda kernel: function(x[0], kernel=kernel))(kernels)
    for index, kernel in enumerate(kernels):
        np.testing.assert_allclose(found[index], function(x[index], kernel=kernel), atol=1e-5)
        np.testing.assert_allclose(shared[index], function(x[0], kernel=kernel), atol=1e-5)


def test_blocks_lose_no_bits_of_a_sum(monkeypatch):
    """Sums over many images are made in float32 whatever the images are of."""
    x, y = (drawn(64, 8, 8, 3, seed=seed).astype(jnp.bfloat16) for seed in (0, 1))
    whole = products.kernel_gradient(x, y, 3, 1)
    monkeypatch.setattr(products, "CACHE", 1.0)
    blocks = products.kernel_gradient(x, y, 3, 1)
    assert blocks.dtype == jnp.bfloat16
    np.testing.assert_allclose(blocks.astype(float), whole.astype(float), rtol=0.01, atol=1e-2)


def test_transposed_is_conv_transpose():
    """XLA's, which takes the kernel flipped and with its channels the other way round."""
    y, kernel = drawn(2, 6, 12, 7), drawn(4, 4, 5, 7, seed=1)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    expected = lax.conv_transpose(
        y, flipped, (2, 2), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(strided.transposed(y, kernel, 2), expected, atol=1e-4)


def test_strides_that_do_not_divide_are_named():
    with pytest.raises(FieldError, match=r"kernel = 3: .*stride, 2"):
        strided.convolve(drawn(1, 8, 8, 1), drawn(3, 3, 1, 1), 2)
    with pytest.raises(FieldError, match=r"stride = 2: .*8 x 9"):
        strided.convolve(drawn(1, 8, 9, 1), drawn(4, 4, 1, 1), 2)
