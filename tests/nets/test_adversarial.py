"""What generator and discriminator learn from each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import stripes

from sparse_ad.nets.adversarial import (
    Gan,
    apply,
    begin,
    discriminator_loss,
    generator_loss,
    train_step,
)
from sparse_ad.nets.dcgan import Discriminator, Generator
from sparse_ad.nets.optimizer import Adam

KEY, RATE, SIZE, WIDTHS = jax.random.key(0), 2e-4, 16, (3, 4)
IMAGES = 2 * jnp.asarray(stripes(8, 0, 3, SIZE)) - 1
NOISE = jax.random.uniform(KEY, (8, 3), minval=-1.0, maxval=1.0)
GAN = Gan(Generator((SIZE, SIZE, 3), WIDTHS), Discriminator(WIDTHS), Adam(RATE, 0.0).build(0.5))


@pytest.fixture(scope="module")
def first():
    return jax.jit(lambda: begin(GAN, KEY, NOISE[:1], IMAGES[:1]))()


def test_losses_are_logarithms_of_probabilities():
    real, fake = np.array([0.3, -2.0, 4.0]), np.array([-1.0, 0.5, 2.5])
    values = discriminator_loss(jnp.array(real), jnp.array(fake)), generator_loss(jnp.array(fake))
    real, fake = (1 / (1 + np.exp(-logits)) for logits in (real, fake))
    expected = -np.log(real).mean() - np.log(1 - fake).mean(), -np.log(fake).mean()
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.slow
def test_first_step_is_the_discriminators_then_the_generators(first):
    """Adam's first step is the rate times the sign of the gradient, except near its 1e-8."""
    generator, discriminator = first

    def logits_of(params, images):
        return apply(GAN.discriminator, discriminator.statistics, params, images)[0][0]

    def images_of(params):
        return apply(GAN.generator, generator.statistics, params, NOISE)[0]

    def minimax(params):
        real, fake = logits_of(params, IMAGES), logits_of(params, images_of(generator.params))
        return -jnp.mean(nn.log_sigmoid(real) + jnp.log(1 - nn.sigmoid(fake)))

    def fool(params, better):
        return -jnp.mean(nn.log_sigmoid(logits_of(better, images_of(params))))

    @jax.jit
    def by_hand():
        descend = lambda p, g: p - RATE * g / (jnp.abs(g) + 1e-8)  # noqa: E731
        judged, gradient = jax.value_and_grad(minimax)(discriminator.params)
        better = jax.tree.map(descend, discriminator.params, gradient)
        fooled, gradient = jax.value_and_grad(fool)(generator.params, better)
        return judged, better, fooled, jax.tree.map(descend, generator.params, gradient)

    second, info = jax.jit(lambda state: train_step(GAN, state, NOISE, IMAGES))(first)
    judged, better, fooled, best = by_hand()
    np.testing.assert_allclose(info["discriminator_loss"], judged, rtol=1e-4)
    np.testing.assert_allclose(info["generator_loss"], fooled, rtol=1e-4)
    for values, expected in zip(
        (second.discriminator, second.generator), (better, best), strict=True
    ):
        off = jax.tree.map(
            lambda a, b: np.abs(a - b).ravel() > 0.05 * RATE, values.params, expected
        )
        assert np.mean(np.concatenate(jax.tree.leaves(off))) < 0.02  # whose gradients are near zero


def test_both_running_averages_move(first):
    second, _ = jax.jit(lambda state: train_step(GAN, state, NOISE, IMAGES))(first)
    for before, after in zip(first, second, strict=True):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.statistics, after.statistics)
        assert all(jax.tree.leaves(moved))
