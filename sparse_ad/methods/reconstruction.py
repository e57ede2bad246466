"""Reconstruction: a network that is trained to reproduce normal images fails at anomalous ones.

Source: Zhao & Karray, "Anomaly Detection for Images using Auto-Encoder based Sparse
Representation", ICIAR 2020.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice, within
from sparse_ad.methods.lifts.grid import one_map, score_grid
from sparse_ad.methods.lifts.maps import only, require_pixels
from sparse_ad.nets import losses
from sparse_ad.nets.autoencoder import NETS, AutoEncoder, Blocks, Lista, auto_encoder
from sparse_ad.nets.latents import CODES, Latent
from sparse_ad.nets.optimizer import Adam
from sparse_ad.nets.ranges import OUTPUTS, Output, unchanged
from sparse_ad.options import choice
from sparse_ad.patches import Pool, pool
from sparse_ad.types import (
    Diagnostics,
    ErrorGrid,
    Features,
    Key,
    Maps,
    Method,
    Params,
    Scores,
    Views,
)


@dataclass(frozen=True)
class Reconstruction:
    """The error that an auto-encoder g(f(x)), trained on normal images, makes on an image x.

        training:  min  1/N sum_i  loss(x_i, g(z_i)) + penalty ||z_i||_1,   z = f(x)
        score:     residual(x, g(z)) of each pixel, pooled

    Of squared errors without a penalty this is the CAE, with one the sparse CAE; "gaussian" codes
    make it the VAE, where the penalty weighs the divergence from the prior, and the code is drawn
    in training, and is its mean at scoring. The score "objective" is the image's own training
    objective: of summed squared errors, with a linear decoder, that of the lasso, times two.

    Source: Zhao & Karray, section 2, Eqs. (1) and (2); section 3.2 for bce and the VAE; Kingma &
    Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Bergmann et al., "Improving Unsupervised
    Defect Segmentation by Applying Structural Similarity to Autoencoders", VISAPP 2019.
    Differs: Eq. (1) sums errors over pixels and channels, the default is their mean, so that the
    penalty weighs more by their number; error_reduction "sum" is Eq. (2) to the letter.
    """

    # encoder and decoder: blocks | lista
    net: Blocks | Lista = choice(NETS, Blocks())
    code: str = "sigmoid"  # what the encoder's output is taken for: sigmoid | linear | gaussian
    output: str = "tanh"  # activation of the output; tanh: images are -1..1; sigmoid, linear: 0..1
    loss: str = "squared"  # squared | bce (binary cross-entropy) | ssim
    error_reduction: str = "mean"  # of the loss over pixels and channels: mean | sum
    penalty: float = 0.0  # of the code's L1 norm; of the divergence of gaussian codes
    penalty_reduction: str = "sum"  # over units: mean | sum
    residual: str = "squared"  # of a pixel, in maps and scores: squared | ssim
    score: str = "error"  # error: the pooled residual | objective: loss and penalty
    window: int = 11  # side of ssim's windows, in pixels
    pool: Pool = Pool(rule="top_mean", fraction=1.0)  # residuals to score; the default: their mean
    optimizer: Adam = Adam()  # in training
    together: int = 8  # images scored at a time: memory against speed

    def __post_init__(self):
        for field, choices in CHOICES.items():
            require_choice(field, getattr(self, field), choices)
        remedy = "a sparse coder's code is its own: set it to 'linear'"
        lista = isinstance(self.net, Lista)
        require(not lista or self.code == "linear", "code", self.code, remedy)
        for kind, remedy in NEED_SIGMOID.items():
            fits = self.output == "sigmoid" or kind not in (self.loss, self.residual)
            require(fits, "output", self.output, remedy)
        finite = 0 <= self.penalty < math.inf
        require(finite, "penalty", self.penalty, "give a finite number, 0 or more")
        for field in ("window", "together"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "give 1 or more")

    def build(self, features: Features, shape: tuple[int, int, int]) -> Method:
        """Returns the detector for images of shape (height, width, channels).

        Raises: UserError where the options do not fit the images, or for maps of a network.
        """
        require_pixels(features)
        side = min(shape[:2])
        remedy = f"give 1 to {side}, the side of the images"
        require(self.window <= side, "window", self.window, remedy)
        network = self.network(shape)
        score, grid = SCORES[self.score](network)
        return Method(
            partial(init, network),
            partial(update, network),
            finish,
            score,
            features,
            self.together,
            Views(reconstruct=partial(reconstruct, network), latent=partial(latent, network)),
            grid,
        )

    def network(self, shape: tuple[int, int, int]) -> "Network":
        """Returns what the detector's functions are bound to."""
        code = CODES[self.code]
        with within("net"):
            module = auto_encoder(self.net, shape, code.numbers)
        return Network(
            module,
            code,
            OUTPUTS[self.output],
            partial(LOSSES[self.loss], self.window),
            ERROR_SCALES[self.error_reduction](shape),
            partial(RESIDUALS[self.residual], self.window),
            self.penalty,
            REDUCTIONS[self.penalty_reduction],
            partial(pool, self.pool),
            self.optimizer.build(),
        )


class Reconstructed(NamedTuple):
    """What the network makes of images."""

    target: Float[Array, "n h w c"]  # the images, in the range of the output
    logits: Float[Array, "n h w c"]  # the output before its activation
    output: Float[Array, "n h w c"]
    code: Float[Array, "n ..."]
    cost: Float[Array, "n ..."]  # of each unit: what the penalty weighs


class Network(NamedTuple):
    """An auto-encoder and its parts; holds no arrays."""

    module: AutoEncoder
    code: Latent
    output: Output
    loss: Callable[[Reconstructed], Float[Array, "n i j"]]
    error_scale: int  # the error of an image is the mean of its losses, times this
    residual: Callable[[Reconstructed], Float[Array, "n h w"]]
    penalty: float
    reduce_cost: Callable[[Float[Array, "*u"]], Float[Array, ""]]
    pool: Callable[[Float[Array, " p"]], Float[Array, ""]]
    optimizer: optax.GradientTransformation


class Training(NamedTuple):
    """What is known while fitting."""

    params: Params
    statistics: Params  # running averages of batch norms
    optimizer: Any  # state of Adam


def init(network: Network, key: Key, maps: Maps) -> Training:
    """Returns a network not yet trained."""
    variables = network.module.init(key, only(maps)[:1], False, partial(network.code.make, None))
    params, statistics = variables["params"], variables.get("batch_stats", {})
    return Training(params, statistics, network.optimizer.init(params))


def update(
    network: Network, key: Key, state: Training, maps: Maps
) -> tuple[Training, dict[str, Array]]:
    """Returns the network after a step of the optimizer, and the losses before it."""
    objective = partial(training_loss, network, key, state.statistics, only(maps))
    gradient, (info, statistics) = jax.grad(objective, has_aux=True)(state.params)
    step, moments = network.optimizer.update(gradient, state.optimizer, state.params)
    return Training(optax.apply_updates(state.params, step), statistics, moments), info


def training_loss(
    network: Network, key: Key, statistics: Params, images: Float[Array, "n h w c"], params: Params
) -> tuple[Float[Array, ""], tuple[dict[str, Array], Params]]:
    """Returns the objective of a batch, its parts, and new running averages."""
    variables = {"params": params, "batch_stats": statistics}
    result, changed = forward(network, variables, images, key)
    error, penalty = (jnp.mean(term) for term in terms(network, result))
    info = {"loss": error + penalty, "error": error, "penalty": penalty}
    info["active"] = jnp.mean(losses.fraction_active(result.code))
    return info["loss"], (info, changed.get("batch_stats", {}))


def finish(key: Key, state: Training) -> Params:
    """Returns what scoring needs."""
    return {"params": state.params, "batch_stats": state.statistics}


def forward(
    network: Network, variables: Params, images: Float[Array, "n h w c"], key: Key | None = None
) -> tuple[Reconstructed, Params]:
    """Returns what the network makes of images, and its statistics; with a key as in training."""
    target = network.output.target(images)
    (code, cost, logits), changed = network.module.apply(
        variables, target, key is not None, partial(network.code.make, key), mutable=["batch_stats"]
    )
    output = network.output.activation(logits)
    return Reconstructed(target, logits, output, code, cost), changed


def terms(network: Network, result: Reconstructed) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Returns error and penalty of each image."""
    error = network.error_scale * jnp.mean(network.loss(result), (1, 2))
    return error, network.penalty * jax.vmap(network.reduce_cost)(result.cost)


def one(network: Network, params: Params, maps: Maps) -> Reconstructed:
    """Returns what the network makes of one image, as of a batch of one."""
    return forward(network, params, only(maps)[None])[0]


def residuals(
    network: Network, params: Params, maps: Maps
) -> tuple[Float[Array, "h w"], Diagnostics]:
    """Returns the residual of each pixel of one image."""
    result = one(network, params, maps)
    return network.residual(result)[0], diagnostics(network, result)


def diagnostics(network: Network, result: Reconstructed) -> Diagnostics:
    """Returns the terms of one image's objective, and how many of its units are active."""
    error, penalty = terms(network, result)
    active = losses.fraction_active(result.code)
    return Diagnostics({"error": error[0], "penalty": penalty[0], "active": active[0]}, {})


def score_objective(network: Network, params: Params, maps: Maps) -> Scores:
    """Returns the objective of one image as its score, with the map of residuals."""
    anomaly_map, info = residuals(network, params, maps)
    return Scores(info.mean["error"] + info.mean["penalty"], anomaly_map, info)


def reconstruct(network: Network, params: Params, maps: Maps) -> Float[Array, "h w c"]:
    """Returns the reconstruction of one image, 0..1 where the output's range is bounded."""
    return network.output.image(one(network, params, maps).output[0])


def latent(network: Network, params: Params, maps: Maps) -> Float[Array, " l"]:
    """Returns the code of one image."""
    return one(network, params, maps).code.ravel()


def squared(window: int, result: Reconstructed) -> Float[Array, "n h w"]:
    return losses.squared_error(result.target, result.output)


def cross_entropy(window: int, result: Reconstructed) -> Float[Array, "n h w"]:
    return losses.cross_entropy(result.target, result.logits)


def dissimilarity(window: int, result: Reconstructed) -> Float[Array, "n i j"]:
    return losses.dissimilarity(result.target, result.output, window)


def dissimilarity_of_pixels(window: int, result: Reconstructed) -> Float[Array, "n h w"]:
    """Returns for each pixel the dissimilarity of the nearest whole window."""
    return losses.widen(dissimilarity(window, result), window)


def by_error(network: Network) -> tuple[Callable, ErrorGrid]:
    """Returns the score function of pooled residuals, and the grid that these lie on."""
    grid = one_map(partial(residuals, network), network.pool, unchanged)
    return partial(score_grid, grid), grid


def by_objective(network: Network) -> tuple[Callable, None]:
    """Returns the score function of objectives, which lie on no grid."""
    return partial(score_objective, network), None


LOSSES = {"squared": squared, "bce": cross_entropy, "ssim": dissimilarity}
RESIDUALS = {"squared": squared, "ssim": dissimilarity_of_pixels}
ERROR_SCALES = {"mean": lambda shape: 1, "sum": math.prod}
REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum}
SCORES = {"error": by_error, "objective": by_objective}
CHOICES = {
    "code": CODES,
    "output": OUTPUTS,
    "loss": LOSSES,
    "residual": RESIDUALS,
    "score": SCORES,
    "error_reduction": ERROR_SCALES,
    "penalty_reduction": REDUCTIONS,
}
NEED_SIGMOID = {
    "bce": "the loss 'bce' needs 'sigmoid'",
    "ssim": "'ssim' needs 'sigmoid', 0..1: it takes an image's negative for the image itself",
}
