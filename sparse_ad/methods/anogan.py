"""AnoGAN: how near a generator of normal images can come to an image, by a search over its noise.

Source: Schlegl et al., "Unsupervised Anomaly Detection with Generative Adversarial Networks to
Guide Marker Discovery", IPMI 2017, sections 2.1 and 2.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.devices import DTYPES
from sparse_ad.errors import require, require_choice
from sparse_ad.methods.lifts.maps import only, require_pixels
from sparse_ad.nets.adversarial import Gan, GanState, NetState, begin, train_step
from sparse_ad.nets.dcgan import Discriminator, Generator, layer_widths
from sparse_ad.nets.optimizer import Adam
from sparse_ad.nets.ranges import signed, unsigned
from sparse_ad.types import Diagnostics, Features, Key, Maps, Method, Params, Scores, Views

MOMENTUM = 0.5  # of Adam in training: Radford et al., section 4


@dataclass(frozen=True)
class AnoGan:
    """The distance of an image from the nearest one that a DCGAN of normal images generates.

        z* = argmin_z loss(x, z),  score = loss(x, z*),  map = |x - G(z*)|, mean over channels
        loss(x, z) = (1 - w) sum |x - G(z)| + w sum |f(x) - f(G(z))|

    where G is the generator, f the last hidden layer of the discriminator, x in -1..1, z uniform
    in -1..1 in training, and w `discrimination_weight`; maps are in units of 0..1 pixels.
    A search takes `search_steps` steps of Adam from each of `search_starts` points, and keeps the
    best point that it met: more steps are never worse.

    Source: Schlegl et al., Eqs. (3), (5), (6). Where they are silent, Radford et al. for training,
    and for the search Bergmann et al., "MVTec AD", CVPR 2019, section 4.1.
    Differs: all images share the starts, which are drawn once, so that a score does not depend on
    the batch; and the best point stands for the last. DCGAN as nets/dcgan.py says.
    """

    latent: int = 64  # values of the noise that an image is generated from
    # channels of the discriminator's layers, the generator's in reverse; the last is repeated for
    # images that need more layers
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dtype: str = "float32"  # float32 | bfloat16: of the computation; weights are float32
    search_steps: int = 500  # of the search for an image's noise
    search_rate: float = 0.02  # size of these steps, about
    search_starts: int = 1  # points that the search begins at
    discrimination_weight: float = 0.1  # w, 0 to 1: weight of the features' distance
    optimizer: Adam = Adam(learning_rate=2e-4, weight_decay=0.0)  # of both networks
    together: int = 8  # images searched at a time: memory against speed

    def __post_init__(self):
        require_choice("dtype", self.dtype, DTYPES)
        remedy = "give the channels of one layer or more, each at least 1"
        require(min(self.widths, default=0) >= 1, "widths", self.widths, remedy)
        least = {"latent": 1, "search_steps": 0, "search_starts": 1, "together": 1}
        for field, bound in least.items():
            value = getattr(self, field)
            require(value >= bound, field, value, f"must be at least {bound}")
        weight = self.discrimination_weight
        require(0 <= weight <= 1, "discrimination_weight", weight, "give a fraction from 0 to 1")
        require(self.search_rate > 0, "search_rate", self.search_rate, "must be positive")

    def build(self, features: Features, shape: tuple[int, int, int]) -> Method:
        """Returns the detector for images of shape (height, width, channels).

        Raises: UserError where a side is no power of two or below 32, or for maps of a network.
        """
        require_pixels(features)
        widths, dtype = layer_widths(shape[:2], self.widths), DTYPES[self.dtype]
        generator, discriminator = Generator(shape, widths, dtype), Discriminator(widths, dtype)
        gan = Gan(generator, discriminator, self.optimizer.build(MOMENTUM))
        return Method(
            partial(init, gan, self),
            partial(update, gan, self),
            partial(finish, self),
            partial(score, gan, self),
            features,
            self.together,
            Views(reconstruct=partial(reconstruct, gan, self)),
        )


class Fitted(NamedTuple):
    """What scoring needs."""

    generator: Params  # with its running averages
    discriminator: Params
    starts: Float[Array, "r l"]  # noise that searches begin with


class Comparison(NamedTuple):
    """How an image and a generated one differ."""

    loss: Float[Array, ""]
    residual: Float[Array, ""]
    discrimination: Float[Array, ""]
    generated: Float[Array, "h w c"]  # -1..1


def init(gan: Gan, options: AnoGan, key: Key, maps: Maps) -> GanState:
    """Returns two networks not yet trained."""
    return begin(gan, key, jnp.zeros((1, options.latent), jnp.float32), signed(only(maps)[:1]))


def update(
    gan: Gan, options: AnoGan, key: Key, state: GanState, maps: Maps
) -> tuple[GanState, dict[str, Array]]:
    """Returns the networks after one step each, and their losses."""
    images = signed(only(maps))
    return train_step(gan, state, draw(key, images.shape[0], options.latent), images)


def finish(options: AnoGan, key: Key, state: GanState) -> Fitted:
    """Returns the networks, no longer trained, and the starts of all searches."""
    networks = (frozen(state.generator), frozen(state.discriminator))
    return Fitted(*networks, draw(key, options.search_starts, options.latent))


def score(gan: Gan, options: AnoGan, params: Fitted, maps: Maps) -> Scores:
    """Returns the score of one image: the loss where the search for it ends."""
    image = only(maps)
    nearest = search(gan, options, params, signed(image))
    parts = {"residual": nearest.residual, "discrimination": nearest.discrimination}
    anomaly_map = jnp.abs(image - unsigned(nearest.generated)).mean(-1)
    return Scores(nearest.loss, anomaly_map, Diagnostics(parts, {}))


def reconstruct(gan: Gan, options: AnoGan, params: Fitted, maps: Maps) -> Float[Array, "h w c"]:
    """Returns the generated image, 0..1, that is nearest to one image."""
    return unsigned(search(gan, options, params, signed(only(maps))).generated)


def search(gan: Gan, options: AnoGan, params: Fitted, image: Float[Array, "h w c"]) -> Comparison:
    """Returns the best of all searches for the noise z* of one image in -1..1: see `AnoGan`.

    Reads the options `search_steps`, `search_rate` and `discrimination_weight`.
    """
    features = features_of(gan, params, image)
    compare_with = partial(compare, gan, options.discrimination_weight, params, image, features)
    descend = partial(
        minimise,
        lambda noise: compare_with(noise).loss,
        optimizer=optax.adam(options.search_rate),
        steps=options.search_steps,
    )
    losses, noises = lax.map(descend, params.starts)  # [r], [r l]
    return compare_with(noises[jnp.argmin(losses)])


def compare(
    gan: Gan,
    weight: float,
    params: Fitted,
    image: Float[Array, "h w c"],
    features: Float[Array, "i j k"],
    noise: Float[Array, " l"],
) -> Comparison:
    """Returns the loss of an image, whose features f(x) are given, and of G(noise)."""
    images: Any = gan.generator.apply(params.generator, noise[None], train=False)
    generated = images[0]
    residual = distance(image, generated)
    discrimination = distance(features, features_of(gan, params, generated))
    loss = (1 - weight) * residual + weight * discrimination
    return Comparison(loss, residual, discrimination, generated)


def features_of(gan: Gan, params: Fitted, image: Float[Array, "h w c"]) -> Float[Array, "i j k"]:
    """Returns f(x), the last hidden layer of the discriminator."""
    outputs: Any = gan.discriminator.apply(params.discriminator, image[None], train=False)
    return outputs[1][0]


def minimise(
    loss: Callable[[Float[Array, " l"]], Float[Array, ""]],
    start: Float[Array, " l"],
    optimizer: optax.GradientTransformation,
    steps: int,
) -> tuple[Float[Array, ""], Float[Array, " l"]]:
    """Returns the least loss that descent from a point meets, and where.

    A loss that is not a number is never the least.
    """

    def step(_, state):
        point, moments, least, best = state
        value, gradient = jax.value_and_grad(loss)(point)
        better = value < least
        least, best = jnp.where(better, value, least), jnp.where(better, point, best)
        changes, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(point, changes), moments, least, best

    state = (start, optimizer.init(start), jnp.asarray(jnp.inf, start.dtype), start)
    return lax.fori_loop(0, steps + 1, step, state)[2:]  # the last turn looks at where it ended


def frozen(net: NetState) -> Params:
    """Returns what a network needs when it is no longer trained."""
    return {"params": net.params, "batch_stats": net.statistics}


def draw(key: Key, count: int, size: int) -> Float[Array, "count size"]:
    """Returns noise, uniform in -1..1. Source: Radford et al., section 4."""
    return jax.random.uniform(key, (count, size), jnp.float32, minval=-1.0, maxval=1.0)


def distance(one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns the sum of absolute differences."""
    return jnp.abs(one - other).sum()
