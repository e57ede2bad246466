"""DCGAN: its layers, and how they begin."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.nets.dcgan import Discriminator, Generator, layer_widths

KEY = jax.random.key(0)
LATENT = 3


def nets(shape, widths):
    """Generator and discriminator, each with its input."""
    images = jnp.zeros((2, *shape, 3))
    return (
        (Generator((*shape, 3), widths), jnp.zeros((2, LATENT))),
        (Discriminator(widths), images),
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 32), (7, 8, 9)),
        ((64, 64), (7, 8, 9, 9)),
        ((128, 128), (7, 8, 9, 9, 9)),
        ((128, 32), (7, 8, 9)),
    ],
)
def test_layers_follow_the_size(shape, expected):
    assert layer_widths(shape, (7, 8, 9)) == expected
    coarse = tuple(side >> len(expected) for side in shape)
    assert min(coarse) == 4
    outputs = [
        jax.eval_shape(lambda x, module=module: module.init_with_output(KEY, x, train=False)[0], x)
        for module, x in nets(shape, expected)
    ]
    generated, (logits, features) = outputs
    assert generated.shape == (2, *shape, 3)
    assert logits.shape == (2,) and features.shape == (2, *coarse, expected[-1])


@pytest.mark.slow
def test_all_is_normalised_but_output_and_input():
    """A layer with a batch norm behind it has no bias: three and two norms, one and two biases."""
    for (module, x), plain, biased in zip(nets((32, 32), (3, 4, 5)), (3, 2), (1, 2), strict=True):
        layers = jax.jit(partial(module.init, train=False))(KEY, x)["params"]
        kernels = [leaf for leaf in layers.values() if "kernel" in leaf]
        assert sum("bias" in leaf for leaf in kernels) == biased
        assert sum("bias" not in leaf for leaf in kernels) == plain
        assert sum("scale" in leaf for leaf in layers.values()) == plain
        drawn = jnp.concatenate([leaf["kernel"].ravel() for leaf in kernels])
        np.testing.assert_allclose(drawn.std(), 0.02, rtol=0.1)  # of some 800


@pytest.mark.parametrize("shape", [(48, 48), (16, 16), (32, 33)])
def test_bad_sizes_are_named(shape):
    with pytest.raises(UserError, match=f"{shape[0]} x {shape[1]}: .*power of two, 32 or more"):
        layer_widths(shape, (4,))
