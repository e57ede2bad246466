"""Small auto-encoders, and what they make of images."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_ad.nets.autoencoder import auto_encoder

KEY = jax.random.key(0)
SHAPE = (16, 24, 3)


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def run(options, images, train=False):
    """Parameters, and code and output of a network whose code is linear."""
    between = lambda raw: (raw, raw)  # noqa: E731
    network = auto_encoder(options, SHAPE)

    @jax.jit
    def both(images):
        variables = network.init(KEY, images, train, between)
        outputs, _ = network.apply(variables, images, train, between, mutable=["batch_stats"])
        return variables, outputs[0], outputs[2]

    return both(images)
