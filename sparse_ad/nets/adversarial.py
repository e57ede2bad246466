"""Generative adversarial training: a generator makes images, a discriminator judges them.

Source: Goodfellow et al., "Generative Adversarial Nets", NIPS 2014, sections 3 and 4.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparse_ad.types import Key, Params


class NetState(NamedTuple):
    """One of the two networks in training."""

    params: Params
    statistics: Params  # running averages of its batch norms
    optimizer: Any  # its state


class GanState(NamedTuple):
    """Both networks in training."""

    generator: NetState
    discriminator: NetState


class Gan(NamedTuple):
    """What does not change in training."""

    generator: nn.Module  # (noise, train) -> images
    discriminator: nn.Module  # (images, train) -> logits, features
    optimizer: optax.GradientTransformation  # of both, each with a state of its own


def begin(
    gan: Gan, key: Key, noise: Float[Array, "n l"], images: Float[Array, "n h w c"]
) -> GanState:
    """Returns networks not yet trained. Of noise and images only the shapes matter."""
    generator_key, discriminator_key = jax.random.split(key)
    return GanState(
        begin_net(gan.generator, gan.optimizer, generator_key, noise),
        begin_net(gan.discriminator, gan.optimizer, discriminator_key, images),
    )


def begin_net(
    module: nn.Module, optimizer: optax.GradientTransformation, key: Key, inputs: Array
) -> NetState:
    """Returns one network with weights drawn at random."""
    variables = module.init(key, inputs, train=False)
    params = variables["params"]
    return NetState(params, variables["batch_stats"], optimizer.init(params))


def train_step(
    gan: Gan, state: GanState, noise: Float[Array, "n l"], images: Float[Array, "n h w c"]
) -> tuple[GanState, dict[str, Float[Array, ""]]]:
    """Returns the networks after a step of the discriminator, then one of the generator.

    Both steps use the same generated images. Real and generated ones are batches of their own to a
    batch norm; running averages follow both. Also returns both losses, as they were before the
    network's own step.
    """
    generate = partial(apply, gan.generator, state.generator.statistics, inputs=noise)
    generated, pull_back, statistics = jax.vjp(generate, state.generator.params, has_aux=True)
    judge = partial(discriminator_objective, gan, state.discriminator.statistics)
    (discriminator_value, averages), gradient = jax.value_and_grad(judge, has_aux=True)(
        state.discriminator.params, images, generated
    )
    discriminator = descend(gan.optimizer, state.discriminator, gradient, averages)
    generator_value, gradient = jax.value_and_grad(partial(generator_objective, gan))(
        generated, discriminator
    )
    generator = descend(gan.optimizer, state.generator, pull_back(gradient)[0], statistics)
    losses = {"generator_loss": generator_value, "discriminator_loss": discriminator_value}
    return GanState(generator, discriminator), losses


def discriminator_objective(
    gan: Gan, statistics: Params, params: Params, images: Array, generated: Array
) -> tuple[Float[Array, ""], Params]:
    """Returns the discriminator's loss as a function of its params, and its running averages."""
    (real, _), averages = apply(gan.discriminator, statistics, params, images)
    (fake, _), averages = apply(gan.discriminator, averages, params, generated)
    return discriminator_loss(real, fake), averages


def generator_objective(gan: Gan, generated: Array, discriminator: NetState) -> Float[Array, ""]:
    """Returns the generator's loss as a function of the images that it generates."""
    (fake, _), _ = apply(
        gan.discriminator, discriminator.statistics, discriminator.params, generated
    )
    return generator_loss(fake)


def discriminator_loss(real: Float[Array, " n"], fake: Float[Array, " m"]) -> Float[Array, ""]:
    """Returns -mean log D(x) - mean log(1 - D(G(z))), of logits that each image is real."""
    return jnp.mean(nn.softplus(-real)) + jnp.mean(nn.softplus(fake))


def generator_loss(fake: Float[Array, " n"]) -> Float[Array, ""]:
    """Returns -mean log D(G(z)), of logits: the loss that does not saturate.

    Source: Goodfellow et al., section 3.
    """
    return jnp.mean(nn.softplus(-fake))


def apply(module: nn.Module, statistics: Params, params: Params, inputs: Array):
    """Returns a network's outputs for a batch, by the batch's own moments, and new averages."""
    variables = {"params": params, "batch_stats": statistics}
    outputs, changed = module.apply(variables, inputs, train=True, mutable=["batch_stats"])
    return outputs, changed["batch_stats"]


def descend(
    optimizer: optax.GradientTransformation, net: NetState, gradient: Params, statistics: Params
) -> NetState:
    """Returns the network after a step of the optimizer."""
    changes, state = optimizer.update(gradient, net.optimizer, net.params)
    return NetState(optax.apply_updates(net.params, changes), statistics, state)
