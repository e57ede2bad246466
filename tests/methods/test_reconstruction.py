"""The lift from auto-encoders to detectors; the contract over all of them is in test_methods."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import stripes
from jax import lax

from configs.base import get_config
from sparse_ad import methods
from sparse_ad.errors import UserError
from sparse_ad.fitting.checkpoint import Checkpoints
from sparse_ad.nets import losses
from sparse_ad.report import figures, pictures
from sparse_ad.types import Example

KEY = jax.random.key(0)
SIDE = 16
LINEAR = {"code": "linear", "output": "linear"}


def config_of(color="rgb", **fields):
    config = get_config()
    config.data.update(size=(SIDE, SIDE), color=color)
    config.method.update(name="reconstruction", pooling="top_mean", quantile=1.0)
    small = {"widths": (4, 6), "kernels": (4, 4), "strides": (2, 2), "latent": 5, "penalty": 0.01}
    config.net.update(small | fields)
    config.fit.update(learning_rate=1e-2, weight_decay=0.1)
    return config


def maps_of(count=4, seed=0):
    return {"pixels": jnp.asarray(stripes(count, seed, 3, SIDE))}


@cache
def started(**fields):
    """A detector, its compiled update, and its first state."""
    method = methods.build(config_of(**fields))
    return method, jax.jit(method.update), method.init(KEY, maps_of())


@cache
def begun(**fields):
    """The same after a step, and after two: detector, states, infos."""
    method, update, state = started(**fields)
    states, infos = [], []
    for step in range(2):
        state, info = update(jax.random.key(step), state, maps_of())
        states.append(state)
        infos.append(info)
    return method, states, infos


def look(method, state, maps):
    """Scores, reconstructions, latents."""
    functions = lambda *some: (  # noqa: E731
        method.score(*some),
        method.reconstruct(*some),
        method.latent(*some),
    )
    return jax.jit(functions)(method.finish(KEY, state), maps)


def forward(params, x):
    """The network once more, by XLA's convolutions, in training; its latent, its output."""

    def up(y, kernel):
        flipped, pad = kernel[::-1, ::-1].swapaxes(2, 3), ((2, 2), (2, 2))
        order = ("NHWC", "HWIO", "NHWC")
        return lax.conv_transpose(y, flipped, (2, 2), pad, dimension_numbers=order)

    def down(y, kernel):
        order = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(y, kernel, (2, 2), "SAME", dimension_numbers=order)

    def normed(y, part):
        y = (y - y.mean((0, 1, 2))) / jnp.sqrt(y.var((0, 1, 2)) + 1e-5)
        return leaky(y * part["scale"] + part["bias"])

    def leaky(y):
        return jnp.maximum(y, 0.2 * y)

    first, second = params["encoder"], params["decoder"]
    y = leaky(down(x, first["Convolution_0"]["kernel"]) + first["Convolution_0"]["bias"])
    y = normed(down(y, first["Convolution_1"]["kernel"]), first["BatchNorm_0"])
    y = y.reshape(len(x), -1) @ first["Dense_0"]["kernel"] + first["Dense_0"]["bias"]
    z = 1.0 / (1.0 + jnp.exp(-y))
    y = (z @ second["Dense_0"]["kernel"]).reshape(-1, SIDE // 4, SIDE // 4, 6)
    y = normed(y, second["BatchNorm_0"])
    y = normed(up(y, second["Convolution_0"]["kernel"]), second["BatchNorm_1"])
    return z, jnp.tanh(up(y, second["Convolution_1"]["kernel"]) + second["Convolution_1"]["bias"])


def test_two_steps_by_hand():
    """Equation (2), its gradient, and Adam with the decay in the gradient, written out anew."""
    _, states, infos = begun()
    x = 2.0 * maps_of()["pixels"] - 1.0

    def loss(params):
        z, shown = forward(params, x)
        error, norm = jnp.mean((x - shown) ** 2), jnp.mean(jnp.sum(z, axis=1))
        return error + 0.01 * norm, (error, 0.01 * norm)

    params, slope = started()[2].params, jax.jit(jax.grad(loss, has_aux=True))
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for step, info in enumerate(infos, start=1):
        gradient, (error, penalty) = slope(params)
        np.testing.assert_allclose(info["error"], error, rtol=1e-5)
        np.testing.assert_allclose(info["penalty"], penalty, rtol=1e-5)
        np.testing.assert_allclose(info["loss"], error + penalty, rtol=1e-5)
        gradient = jax.tree.map(lambda g, p: np.asarray(g + 0.1 * p), gradient, params)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
        params = jax.tree.map(
            lambda p, m, v, t=step: (
                p - 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            params,
            first,
            second,
        )
    # A step is of 0.01; where a gradient is nearly zero, its rounding is all there is.
    for left, right in zip(
        jax.tree.leaves(states[-1].params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(left, right, atol=5e-4)


def test_statistics_are_running_averages():
    """After one step from (0, 1): a tenth of the batch's own moments, nine tenths of the old."""
    _, _, state = started()
    part = state.params["encoder"]
    order, y = ("NHWC", "HWIO", "NHWC"), 2.0 * maps_of()["pixels"] - 1.0
    for name in ("Convolution_0", "Convolution_1"):  # biases begin at zero
        y = jnp.maximum(y, 0.2 * y) if name[-1] == "1" else y
        y = lax.conv_general_dilated(
            y, part[name]["kernel"], (2, 2), "SAME", dimension_numbers=order
        )
    found = begun()[1][0].statistics["encoder"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


def test_score_is_equation_1():
    """Mean over pixels of the squared error of what `reconstruct` shows, in -1..1."""
    method, states, _ = begun()
    maps = maps_of(3, 1)
    scores, shown, latent = look(method, states[-1], maps)
    assert shown.min() >= 0.0 and shown.max() <= 1.0
    expected = 4.0 * ((maps["pixels"] - shown) ** 2).mean(-1)
    np.testing.assert_allclose(scores.map, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.image, expected.mean((1, 2)), rtol=1e-4)
    assert latent.shape == (3, 5) and latent.min() > 0.0 and latent.max() < 1.0
    np.testing.assert_allclose(scores.info["penalty"], 0.01 * latent.sum(1), rtol=1e-5)


def test_objective_is_the_loss():
    """Squares and norm of what the detector shows and codes; here they count alike."""
    fields = {"encoder": "lista", "kernels": (8, 1), "strides": (4, 1), "score": "objective"}
    reductions = {"error_reduction": "sum", "penalty_reduction": "mean", "penalty": 500.0}
    method, update, state = started(**fields, **reductions, **LINEAR)
    maps = maps_of()
    scores, shown, codes = look(method, state, maps)
    squares = ((maps["pixels"] - shown) ** 2).sum((1, 2, 3))
    expected = squares + 500.0 * jnp.abs(codes).mean(1)
    np.testing.assert_allclose(scores.image, expected, rtol=1e-4)
    loss = update(KEY, state, maps)[1]["loss"]
    np.testing.assert_allclose(loss, scores.image.mean(), rtol=1e-4)  # no batch norm in it


def test_variational_draws_in_training_alone():
    method, update, state = started(code="gaussian", error_reduction="sum", penalty=1.0)
    maps, keys = maps_of(), [jax.random.key(seed) for seed in (1, 1, 2)]
    errors = [float(update(key, state, maps)[1]["error"]) for key in keys]
    assert errors[0] == errors[1] != errors[2]
    scores, _, latent = look(method, state, maps)
    assert latent.shape == (4, 5)  # means, without their deviations
    least = 0.5 * (latent**2).sum(1)  # of the divergence: the part of the means
    assert (scores.info["penalty"] > least).all()


def test_ssim_scores_by_windows():
    fields = {"loss": "ssim", "residual": "ssim", "output": "sigmoid", "window": 5}
    method, states, infos = begun(**fields)
    maps = maps_of(3, 1)
    scores, shown, _ = look(method, states[-1], maps)
    apart = losses.dissimilarity(maps["pixels"], shown, 5)
    np.testing.assert_allclose(scores.map[:, 2:-2, 2:-2], apart, atol=1e-5)
    np.testing.assert_allclose(scores.info["error"], apart.mean((1, 2)), rtol=1e-4)
    assert 0 < infos[1]["error"] < infos[0]["error"] < 2


def test_cross_entropy_is_of_probabilities():
    method, _, state = started(loss="bce", output="sigmoid")
    maps = maps_of()
    scores, y, _ = look(method, state, maps)
    x = maps["pixels"]
    expected = -(x * jnp.log(y) + (1 - x) * jnp.log1p(-y)).mean((1, 2, 3))
    np.testing.assert_allclose(scores.info["error"], expected, rtol=1e-4)


def test_tiles_are_trained_on_and_scored():
    config = config_of(encoder="lista", **LINEAR)
    config.data.size = (SIDE, 2 * SIDE)
    config.method.update(tile=(SIDE, SIDE), tile_overlap=0.0, pooling="max")
    method = methods.build(config)
    images = np.concatenate([stripes(3, seed, 3, SIDE) for seed in (0, 1)], axis=2)
    maps = method.features.extract(images)
    state, info = jax.jit(method.update)(KEY, method.init(KEY, maps), maps)
    scores, shown, latent = look(method, state, maps)
    assert scores.map.shape == (3, SIDE, 2 * SIDE) and shown.shape == images.shape
    np.testing.assert_allclose(scores.image, scores.map.max((1, 2)), rtol=1e-4)
    assert np.isfinite(info["loss"]) and latent.shape == (3, 2 * 8 * 8 * 5)


def test_checkpoint_gives_the_state_back(tmp_path):
    method, states, _ = begun()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, states[-1], {})
    restored, _ = checkpoints.restore(2, jax.eval_shape(method.init, KEY, maps_of()))
    jax.tree.map(np.testing.assert_array_equal, restored, states[-1])
    wider = methods.build(config_of(widths=(4, 8)))
    with pytest.raises(UserError, match="not a checkpoint of this config"):
        checkpoints.restore(2, jax.eval_shape(wider.init, KEY, maps_of()))
    checkpoints.close()


def test_a_rate_too_high_shows_in_the_loss():
    """The loop stops where a value is no longer finite: it must see one."""
    config = config_of(encoder="lista", **LINEAR)
    config.fit.learning_rate = 1e15
    method, maps = methods.build(config), maps_of()
    state, update = method.init(KEY, maps), jax.jit(method.update)
    for _ in range(4):
        state, info = update(KEY, state, maps)
    assert not np.isfinite(info["loss"])


def test_latents_are_gathered_and_drawn():
    method, states, _ = begun()
    made = (255 * stripes(6, 2, 3, SIDE)).astype(np.uint8)
    examples = [
        Example(image, at % 2, "good", None, str(at), f"{at}.png") for at, image in enumerate(made)
    ]
    rows = [{"path": each.path, "label": each.label} for each in examples]
    params = method.finish(KEY, states[-1])
    found = pictures.gather_latents(method, params, examples, rows, config_of())
    expected = jax.jit(method.latent)(params, {"pixels": jnp.asarray(made / np.float32(255))})
    for label in (0, 1):
        np.testing.assert_allclose(found[label], expected[label::2], rtol=1e-5)
    figure = figures.draw_latents(found)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["normal: 100.0% active", "anomalous: 100.0% active"]
    assert figures.draw_latents(None) is None
    assert figures.draw_latents((found[0], np.zeros((0, 5)))) is not None


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("code", "relu", "net.code"),
        ("output", "relu", "net.output"),
        ("loss", "l2", "net.loss"),
        ("loss", "bce", "net.output"),
        ("loss", "ssim", "net.output"),
        ("residual", "ssim", "net.output"),
        ("residual", "bce", "net.residual"),
        ("score", "loss", "net.score"),
        ("error_reduction", "none", "net.error_reduction"),
        ("penalty_reduction", "max", "net.penalty_reduction"),
        ("penalty", -1.0, "net.penalty"),
        ("slope", -1.0, "net.slope"),
        ("window", 17, "net.window"),
        ("at_a_time", 0, "net.at_a_time"),
        ("encoder", "lista", "net.code"),
    ],
)
def test_bad_fields_are_named(field, value, named):
    with pytest.raises(UserError, match=rf"{named} = "):
        methods.build(config_of(**{field: value}))


@pytest.mark.parametrize(("field", "value"), [("learning_rate", 0.0), ("weight_decay", -1.0)])
def test_bad_fields_of_the_fit_are_named(field, value):
    config = config_of()
    config.fit[field] = value
    with pytest.raises(UserError, match=rf"fit\.{field} = {value}"):
        methods.build(config)
