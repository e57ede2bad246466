"""Layers as they begin."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoencoders import KEY, drawn

from sparse_ad.nets.layers import Convolution


@pytest.mark.parametrize("up", [False, True])
def test_new_layers_keep_the_variance(up):
    """He's: a layer halves the mean square for what ReLU lets through; so the sum doubles."""
    module = Convolution(64, 4, 2, up)
    x = drawn(4, 16, 16, 64)
    variables = module.init(KEY, x)
    middle = module.apply(variables, x)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(jnp.mean(middle**2), 2.0, rtol=0.1)  # a draw of some thousand
