"""AnoGAN: how near a generator of normal images can come to an image, by a search over its noise.

Source: Schlegl et al., "Unsupervised Anomaly Detection with Generative Adversarial Networks to
Guide Marker Discovery", IPMI 2017, sections 2.1 and 2.2.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.batching import in_groups
from sparse_ad.data.decode import CHANNELS
from sparse_ad.errors import require, require_choice
from sparse_ad.methods.lifts.patchwise import only
from sparse_ad.nets.adversarial import Game, Player, Rules, begin, play
from sparse_ad.nets.autoencoder import DTYPES
from sparse_ad.nets.dcgan import Discriminator, Generator, layer_widths
from sparse_ad.nets.learner import learner
from sparse_ad.nets.ranges import signed, unsigned
from sparse_ad.types import PIXELS, Features, Key, Maps, Method, Params, Scores

MOMENTUM = 0.5  # of Adam in training: Radford et al., section 4


class Fitted(NamedTuple):
    """What scoring needs."""

    generator: Params  # with its running averages
    discriminator: Params
    starts: Float[Array, "r l"]  # noise that searches begin with


class Comparison(NamedTuple):
    """How images and their generated likenesses differ."""

    loss: Float[Array, " n"]
    residual: Float[Array, " n"]
    discrimination: Float[Array, " n"]
    likeness: Float[Array, "n h w c"]  # -1..1


def anogan(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector for images of `shape`, each side a power of two, 32 or more.

        z* = argmin_z loss(x, z),  score = loss(x, z*),  map = |x - G(z*)|, mean over channels
        loss(x, z) = (1 - w) sum |x - G(z)| + w sum |f(x) - f(G(z))|

    where G is the generator, f the last hidden layer of the discriminator, x in -1..1, z uniform
    in -1..1 in training, and w `net.discrimination_weight`; maps are in units of 0..1 pixels.
    A search takes `net.search_steps` steps of Adam at `net.search_rate` from each of
    `net.search_starts` points, and keeps the best point that it saw: more steps are never worse.
    `net.at_a_time` images are searched at once; an image's result does not depend on the others.
    Reads also net.latent, net.widths, net.dtype, fit.learning_rate and fit.weight_decay.

    Source: Schlegl et al. 2017, Eqs. (3), (5), (6). Differs: all images share the starts, which are
    drawn once, so that a score does not hang on the batch; and the best point stands for the last.
    Errors: UserError that names the field, its value and the remedy.
    """
    net = config.net
    check(config, features)
    field = "method.tile" if config.method.tile else "data.size"
    widths, dtype = layer_widths(shape, tuple(net.widths), field), DTYPES[net.dtype]
    generator = Generator((*shape, CHANNELS[config.data.color]), widths, dtype)
    discriminator = Discriminator(widths, dtype)
    rules = Rules(generator, discriminator, learner(config.fit, MOMENTUM))
    searcher = optax.adam(net.search_rate)

    def init(key: Key, maps: Maps) -> Game:
        return begin(rules, key, jnp.zeros((1, net.latent)), signed(only(maps)[:1]))

    def update(key: Key, state: Game, maps: Maps):
        images = signed(only(maps))
        return play(rules, state, draw(key, images.shape[0], net.latent), images)

    def finish(key: Key, state: Game) -> Fitted:
        return Fitted(*map(fixed, state), draw(key, net.search_starts, net.latent))

    def search(params: Fitted, images: Float[Array, "n h w c"]) -> Comparison:
        """Of images in -1..1."""
        _, wanted = discriminator.apply(params.discriminator, images, train=False)

        def compare(noise: Float[Array, "n l"]) -> Comparison:
            made = generator.apply(params.generator, noise, train=False)
            _, found = discriminator.apply(params.discriminator, made, train=False)
            residual, discrimination = distance(images, made), distance(wanted, found)
            weight = net.discrimination_weight
            loss = (1 - weight) * residual + weight * discrimination
            return Comparison(loss, residual, discrimination, made)

        def search_from(start: Float[Array, " l"]):
            noise = jnp.broadcast_to(start, (images.shape[0], net.latent))
            return minimise(lambda noise: compare(noise).loss, noise, searcher, net.search_steps)

        losses, noises = lax.map(search_from, params.starts)  # [r n], [r n l]
        best = jnp.argmin(losses, axis=0)
        return compare(noises[best, jnp.arange(images.shape[0])])

    def score_some(params: Fitted, images: Float[Array, "n h w c"]) -> Scores:
        found = search(params, signed(images))
        parts = {"residual": found.residual, "discrimination": found.discrimination}
        return Scores(found.loss, jnp.abs(images - unsigned(found.likeness)).mean(-1), parts)

    def reconstruct_some(params: Fitted, images: Float[Array, "n h w c"]) -> Array:
        return unsigned(search(params, signed(images)).likeness)

    def some_by_some(function: Callable) -> Callable:
        return lambda params, maps: in_groups(partial(function, params), only(maps), net.at_a_time)

    score, reconstruct = some_by_some(score_some), some_by_some(reconstruct_some)
    return Method(init, update, finish, score, reconstruct=reconstruct)


def check(config, features: Features) -> None:
    """Raises UserError for a field that is out of range."""
    net = config.net
    remedy = "choose pixels: images are generated, not the maps of a network"
    require(features is PIXELS, "features.backbone", config.features.backbone, remedy)
    require_choice("net.dtype", net.dtype, DTYPES)
    for field, least in (
        ("latent", 1),
        ("search_steps", 0),
        ("search_starts", 1),
        ("at_a_time", 1),
    ):
        require(net[field] >= least, f"net.{field}", net[field], f"must be at least {least}")
    weight = net.discrimination_weight
    require(0 <= weight <= 1, "net.discrimination_weight", weight, "give a share from 0 to 1")
    require(net.search_rate > 0, "net.search_rate", net.search_rate, "must be positive")


def minimise(
    loss: Callable, points: Float[Array, "n l"], optimizer: optax.GradientTransformation, steps: int
) -> tuple[Float[Array, " n"], Float[Array, "n l"]]:
    """Returns the least of loss(points) [n] that descent meets for each point, and where it was.

    Every point goes its own way: the loss of one must not depend on the others. A loss that is not
    a number is never the least.
    """

    def total(points):
        losses = loss(points)
        return jnp.sum(losses), losses

    def step(_, place):
        points, moments, least, best = place
        slopes, losses = jax.grad(total, has_aux=True)(points)
        better = losses < least
        least = jnp.where(better, losses, least)
        best = jnp.where(better[:, None], points, best)
        changes, moments = optimizer.update(slopes, moments)
        return optax.apply_updates(points, changes), moments, least, best

    unknown = jnp.full(points.shape[:1], jnp.inf)
    place = (points, optimizer.init(points), unknown, points)
    return lax.fori_loop(0, steps + 1, step, place)[2:]  # the last turn looks at where it ended


def fixed(player: Player) -> Params:
    """Returns what a network needs when it no longer learns."""
    return {"params": player.params, "batch_stats": player.statistics}


def draw(key: Key, count: int, size: int) -> Float[Array, "count size"]:
    """Returns noise, uniform in -1..1. Source: Radford et al., section 4."""
    return jax.random.uniform(key, (count, size), minval=-1.0, maxval=1.0)


def distance(one: Float[Array, "n ..."], other: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Returns the sum of absolute differences, for each of n."""
    return jnp.abs(one - other).reshape(one.shape[0], -1).sum(-1)
