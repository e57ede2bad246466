"""The lift from a network that reconstructs images to a detector of those that it cannot."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparse_ad.batching import in_groups
from sparse_ad.data.decode import CHANNELS
from sparse_ad.errors import require, require_choice
from sparse_ad.methods.lifts.patchwise import only
from sparse_ad.nets import losses
from sparse_ad.nets.autoencoder import auto_encoder
from sparse_ad.nets.learner import learner
from sparse_ad.nets.ranges import signed, unsigned
from sparse_ad.patches import pooling
from sparse_ad.types import PIXELS, Features, Key, Maps, Method, Params, Scores

OUTPUTS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "linear": lambda raw: raw}
CODES = ("sigmoid", "linear", "gaussian")
REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum}
CHOICES = {
    "code": CODES,
    "output": OUTPUTS,
    "loss": ("squared", "bce", "ssim"),
    "residual": ("squared", "ssim"),
    "score": ("error", "objective"),
    "error_reduction": REDUCTIONS,
    "penalty_reduction": REDUCTIONS,
}


class Training(NamedTuple):
    """What is known while fitting."""

    params: Params
    statistics: Params  # running averages of batch norms
    optimizer: Any  # state of Adam


class Seen(NamedTuple):
    """What the network makes of images."""

    target: Float[Array, "n h w c"]  # the images, in the range of the output
    raw: Float[Array, "n h w c"]  # the output before its activation
    shown: Float[Array, "n h w c"]
    code: Float[Array, "n ..."]
    cost: Float[Array, "n ..."]  # of each unit: what the penalty weighs


def reconstruction(config, features: Features, shape: tuple[int, int]) -> Method:
    """Returns the detector for images x of `shape`, by an auto-encoder g(f(x)).

        training:  mean over images of  loss(x, g(z)) + penalty * |z|_1,   z = f(x)
        score:     residual(x, g(z)) of each pixel, pooled as `method` says

    Reads the fields of `net`: those of `auto_encoder`, and
    code: "sigmoid" or "linear" units; "gaussian": mean and deviation of each (a VAE), drawn in
    training, the mean at scoring; the penalty then weighs the divergence from the prior.
    output: its activation, and the range that images are brought to.
    loss: "squared" error, "bce" (binary cross-entropy) or "ssim"; reduced by `error_reduction` over
    pixels and channels, the penalty by `penalty_reduction` over units.
    residual: what scores look at. score: "objective" takes the image's training objective instead
    of the pooled residual: of squared errors by sums, with a linear decoder, that of the lasso.
    Reads method.pooling and its fields, fit.learning_rate, fit.weight_decay.

    Source: Zhao & Karray, Eqs. (1) and (2); Kingma & Welling, ICLR 2014; Bergmann et al. 2019.
    Errors: UserError that names the field, its value and the remedy.
    """
    net, pool = config.net, pooling(config.method)
    check(config, features, shape)
    size = (*shape, CHANNELS[config.data.color])
    gaussian = net.code == "gaussian"
    network = auto_encoder(net, size, double=gaussian)
    optimizer = learner(config.fit)

    def between(key: Key | None, raw: Array) -> tuple[Array, Array]:
        """The code, and what each unit of it costs, of the encoder's output."""
        if not gaussian:
            code = jax.nn.sigmoid(raw) if net.code == "sigmoid" else raw
            return code, jnp.abs(code)
        mean, log_variance = jnp.split(raw, 2, axis=-1)
        noise = 0.0 if key is None else jax.random.normal(key, mean.shape)
        code = mean + jnp.exp(0.5 * log_variance) * noise
        return code, losses.divergence(mean, log_variance)

    def look(variables: Params, images: Array, key: Key | None = None) -> tuple[Seen, Params]:
        """What the network makes of images, and its statistics; with a key as in training."""
        target = signed(images) if net.output == "tanh" else images
        train, middle = key is not None, partial(between, key)
        (code, cost, raw), changed = network.apply(
            variables, target, train, middle, mutable=["batch_stats"]
        )
        return Seen(target, raw, OUTPUTS[net.output](raw), code, cost), changed

    def terms(seen: Seen) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Error and penalty of each image."""
        if net.loss == "bce":
            apart = losses.cross_entropy(seen.target, seen.raw)
        else:
            apart = distance(net.loss, seen)
        values = seen.target[0].size if net.error_reduction == "sum" else 1
        reduce = REDUCTIONS[net.penalty_reduction]
        return values * jnp.mean(apart, (1, 2)), net.penalty * jax.vmap(reduce)(seen.cost)

    def distance(kind: str, seen: Seen) -> Array:
        if kind == "ssim":
            return losses.dissimilarity(seen.target, seen.shown, net.window)
        return losses.squared_error(seen.target, seen.shown)

    def init(key: Key, maps: Maps) -> Training:
        variables = network.init(key, only(maps)[:1], False, partial(between, None))
        params = variables["params"]
        return Training(params, variables.get("batch_stats", {}), optimizer.init(params))

    def update(key: Key, state: Training, maps: Maps):
        def objective(params: Params):
            variables = {"params": params, "batch_stats": state.statistics}
            seen, changed = look(variables, only(maps), key)
            error, penalty = (jnp.mean(each) for each in terms(seen))
            info = {"loss": error + penalty, "error": error, "penalty": penalty}
            info["active"] = jnp.mean(losses.share_active(seen.code))
            return info["loss"], (info, changed.get("batch_stats", {}))

        gradient, (info, statistics) = jax.grad(objective, has_aux=True)(state.params)
        step, memory = optimizer.update(gradient, state.optimizer, state.params)
        return Training(optax.apply_updates(state.params, step), statistics, memory), info

    def finish(key: Key, state: Training) -> Params:
        return {"params": state.params, "batch_stats": state.statistics}

    def score_some(params: Params, images: Array) -> Scores:
        seen, _ = look(params, images)
        anomaly_map = distance(net.residual, seen)
        if net.residual == "ssim":
            anomaly_map = losses.widen(anomaly_map, net.window)
        error, penalty = terms(seen)
        pooled = jax.vmap(pool)(anomaly_map.reshape(len(images), -1))
        info = {"error": error, "penalty": penalty, "active": losses.share_active(seen.code)}
        score = error + penalty if net.score == "objective" else pooled
        return Scores(score, anomaly_map, info)

    def reconstruct_some(params: Params, images: Array) -> Array:
        shown = look(params, images)[0].shown
        return unsigned(shown) if net.output == "tanh" else shown

    def latent_some(params: Params, images: Array) -> Float[Array, "n l"]:
        return look(params, images)[0].code.reshape(len(images), -1)

    def grouped(function):
        return lambda params, maps: in_groups(partial(function, params), only(maps), net.at_a_time)

    return Method(
        init,
        update,
        finish,
        grouped(score_some),
        reconstruct=grouped(reconstruct_some),
        latent=grouped(latent_some),
    )


def check(config, features: Features, shape: tuple[int, int]) -> None:
    """Raises UserError for a field that is out of range, or does not go with another."""
    net = config.net
    for field, choices in CHOICES.items():
        require_choice(f"net.{field}", net[field], choices)
    backbone = config.features.backbone
    remedy = "method.name = 'reconstruction' shows images: set it to 'pixels'"
    require(features is PIXELS, "features.backbone", backbone, remedy)
    linear = net.encoder != "lista" or net.code == "linear"
    require(linear, "net.code", net.code, "a sparse coder's code is its own: set it to 'linear'")
    bce = net.loss != "bce" or net.output == "sigmoid"
    require(bce, "net.output", net.output, "the loss 'bce' needs 'sigmoid'")
    ssim = "ssim" not in (net.loss, net.residual) or net.output == "sigmoid"
    remedy = "'ssim' needs 'sigmoid', 0..1: it takes an image's negative for the image itself"
    require(ssim, "net.output", net.output, remedy)
    fits = 1 <= net.window <= min(shape)
    require(fits, "net.window", net.window, f"give 1 to {min(shape)}, the side of the images")
    remedy = "give a finite number, 0 or more"
    for name in ("penalty", "slope"):
        require(0 <= net[name] < math.inf, f"net.{name}", net[name], remedy)
    require(net.at_a_time >= 1, "net.at_a_time", net.at_a_time, "give 1 or more")
