"""Two networks that learn from each other: one makes images, one judges which are real."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparse_ad.types import Key, Params


class Player(NamedTuple):
    """One of the two while it learns."""

    params: Params
    statistics: Params  # running averages of its batch norms
    optimizer: Any  # its state


class Game(NamedTuple):
    """Both."""

    maker: Player
    judge: Player


class Rules(NamedTuple):
    """What stays as it is while they learn."""

    generator: nn.Module  # (noise, train) -> images
    discriminator: nn.Module  # (images, train) -> log odds, features
    optimizer: optax.GradientTransformation  # of both, each with a state of its own


def begin(rules: Rules, key: Key, noise: Float[Array, "n l"], images: Array) -> Game:
    """Returns networks that have learned nothing yet. Of noise and images only shapes matter."""

    def player(module: nn.Module, key: Key, inputs: Array) -> Player:
        drawn = module.init(key, inputs, train=False)
        return Player(drawn["params"], drawn["batch_stats"], rules.optimizer.init(drawn["params"]))

    keys = jax.random.split(key)
    return Game(
        player(rules.generator, keys[0], noise), player(rules.discriminator, keys[1], images)
    )


def play(
    rules: Rules, game: Game, noise: Float[Array, "n l"], images: Float[Array, "n h w c"]
) -> tuple[Game, dict[str, Float[Array, ""]]]:
    """Returns the networks after a step of the discriminator, then one of the generator.

    Both steps look at the same generated images. Real and generated ones are batches of their own
    to a batch norm; running averages follow both. Also returns both losses, as they were before
    the network's own step.
    """
    judge = game.judge
    make = partial(train, rules.generator, game.maker.statistics, inputs=noise)
    made, pull_back, statistics = jax.vjp(make, game.maker.params, has_aux=True)

    def mistakes(params: Params):
        (real, _), averages = train(rules.discriminator, judge.statistics, params, images)
        (fake, _), averages = train(rules.discriminator, averages, params, made)
        return discriminator_loss(real, fake), averages

    (mistaken, averages), slopes = jax.value_and_grad(mistakes, has_aux=True)(judge.params)
    judge = descend(rules.optimizer, judge, slopes, averages)

    def exposure(made: Array):
        (fake, _), _ = train(rules.discriminator, judge.statistics, judge.params, made)
        return generator_loss(fake)

    exposed, slopes = jax.value_and_grad(exposure)(made)
    maker = descend(rules.optimizer, game.maker, pull_back(slopes)[0], statistics)
    return Game(maker, judge), {"generator_loss": exposed, "discriminator_loss": mistaken}


def discriminator_loss(real: Float[Array, " n"], fake: Float[Array, " n"]) -> Float[Array, ""]:
    """Returns -mean log D(x) - mean log(1 - D(G(z))), of log odds that each is real."""
    return jnp.mean(nn.softplus(-real)) + jnp.mean(nn.softplus(fake))


def generator_loss(fake: Float[Array, " n"]) -> Float[Array, ""]:
    """Returns -mean log D(G(z)), of log odds: the loss that does not saturate.

    Source: Goodfellow et al., "Generative Adversarial Nets", NIPS 2014, section 3.
    """
    return jnp.mean(nn.softplus(-fake))


def train(module: nn.Module, statistics: Params, params: Params, inputs: Array):
    """Returns what a network makes of a batch by the batch's own moments, and new averages."""
    variables = {"params": params, "batch_stats": statistics}
    outputs, changed = module.apply(variables, inputs, train=True, mutable=["batch_stats"])
    return outputs, changed["batch_stats"]


def descend(
    optimizer: optax.GradientTransformation, player: Player, slopes: Params, statistics: Params
) -> Player:
    """Returns the network after a step down the slopes of its loss."""
    changes, state = optimizer.update(slopes, player.optimizer, player.params)
    return Player(optax.apply_updates(player.params, changes), statistics, state)
