"""Reconstruction: training, scores and views. The contract of all detectors: test_contract."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import stripes
from jax import lax

from sparse_ad.batching import batched
from sparse_ad.errors import FieldError, UserError
from sparse_ad.fitting.checkpoint import Checkpoints, Position
from sparse_ad.methods.lifts.grid import ONE
from sparse_ad.methods.reconstruction import Reconstruction, finish
from sparse_ad.nets import losses
from sparse_ad.nets.blocks import Blocks
from sparse_ad.nets.lista import Lista
from sparse_ad.nets.optimizer import Adam
from sparse_ad.options import read, section
from sparse_ad.patches import Pool
from sparse_ad.types import PIXELS

KEY = jax.random.key(0)
SIDE = 16
SMALL = Reconstruction(
    net=Blocks(widths=(4, 6), kernels=(4, 4), strides=(2, 2), latent=5),
    penalty=0.01,
    pool=Pool(rule="top_mean", fraction=1.0),
    optimizer=Adam(learning_rate=1e-2, weight_decay=0.1),
    together=4,
)
LISTA = {"net": Lista(kernel=8, stride=4, latent=5), "code": "linear", "output": "linear"}
SSIM = {"loss": "ssim", "residual": "ssim", "output": "sigmoid", "window": 5}


def maps_of(count=4, seed=0):
    return {"pixels": jnp.asarray(stripes(count, seed, 3, SIDE))}


def build(**fields):
    return replace(SMALL, **fields).build(PIXELS, (SIDE, SIDE, 3))


@cache
def started(**fields):
    """A detector, its compiled update, and its first state."""
    method = build(**fields)
    return method, jax.jit(method.update), jax.jit(method.init)(KEY, maps_of())


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


@cache
def viewer(**fields):
    """The compiled score, reconstruction and code of many images."""
    method = started(**fields)[0]

    def views(params, maps):
        return (
            method.score(params, maps),
            method.views.reconstruct(params, maps),
            method.views.latent(params, maps),
        )

    return jax.jit(batched(views, method.together))


def look(state, maps, **fields):
    """Scores, reconstructions, codes."""
    return viewer(**fields)(finish(KEY, state), maps)


def forward(params, x):
    """The network once more, by XLA's convolutions, in training; its code, its output."""

    def up(y, kernel):
        flipped, pad = kernel[::-1, ::-1].swapaxes(2, 3), ((2, 2), (2, 2))
        order = ("NHWC", "HWIO", "NHWC")
        return lax.conv_transpose(y, flipped, (2, 2), pad, dimension_numbers=order)

    def down(y, kernel):
        order = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(y, kernel, (2, 2), "SAME", dimension_numbers=order)

    def normed(y, part):
        mean, var = (moment((0, 1, 2), keepdims=True) for moment in (y.mean, y.var))
        scale, bias = (part[name][None, None, None] for name in ("scale", "bias"))
        return leaky((y - mean) / jnp.sqrt(var + 1e-5) * scale + bias)

    def leaky(y):
        return jnp.maximum(y, 0.2 * y)

    first, second = params["encoder"], params["decoder"]
    y = leaky(
        down(x, first["Convolution_0"]["kernel"]) + first["Convolution_0"]["bias"][None, None, None]
    )
    y = normed(down(y, first["Convolution_1"]["kernel"]), first["BatchNorm_0"])
    y = y.reshape(len(x), -1) @ first["Dense_0"]["kernel"] + first["Dense_0"]["bias"][None]
    z = 1.0 / (1.0 + jnp.exp(-y))
    y = (z @ second["Dense_0"]["kernel"]).reshape(-1, SIDE // 4, SIDE // 4, 6)
    y = normed(y, second["BatchNorm_0"])
    y = normed(up(y, second["Convolution_0"]["kernel"]), second["BatchNorm_1"])
    bias = second["Convolution_1"]["bias"][None, None, None]
    return z, jnp.tanh(up(y, second["Convolution_1"]["kernel"]) + bias)


def test_two_steps_by_hand():
    """Equation (2), its gradient, and Adam with the decay in the gradient, by hand."""
    _, states, infos = begun()
    x = 2.0 * maps_of()["pixels"] - 1.0

    def loss(params):
        z, output = forward(params, x)
        error, norm = jnp.mean((x - output) ** 2), jnp.mean(jnp.sum(z, axis=1))
        return error + 0.01 * norm, (error, 0.01 * norm)

    params, gradient_of = started()[2].params, jax.jit(jax.grad(loss, has_aux=True))
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for step, info in enumerate(infos, start=1):
        gradient, (error, penalty) = gradient_of(params)
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
    """Mean over pixels of the squared error of the reconstruction, in -1..1."""
    maps = maps_of(3, 1)
    scores, output, code = look(begun()[1][-1], maps)
    assert output.min() >= 0.0 and output.max() <= 1.0
    expected = 4.0 * ((maps["pixels"] - output) ** 2).mean(-1)
    np.testing.assert_allclose(scores.map, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.image, expected.mean((1, 2)), rtol=1e-4)
    assert code.shape == (3, 5) and code.min() > 0.0 and code.max() < 1.0
    np.testing.assert_allclose(scores.info.mean["penalty"], 0.01 * code.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(scores.info.mean["active"], losses.fraction_active(code))


@pytest.mark.slow
def test_objective_is_the_loss():
    """Squares and norm of reconstruction and code; here they count alike."""
    fields = {"error_reduction": "sum", "penalty_reduction": "mean", "penalty": 500.0, **LISTA}
    fields["score"] = "objective"
    method, update, state = started(**fields)
    assert method.grid is None
    maps = maps_of()
    scores, output, codes = look(state, maps, **fields)
    squares = ((maps["pixels"] - output) ** 2).sum((1, 2, 3))
    expected = squares + 500.0 * jnp.abs(codes).mean(1)
    np.testing.assert_allclose(scores.image, expected, rtol=1e-4)
    loss = update(KEY, state, maps)[1]["loss"]
    np.testing.assert_allclose(loss, scores.image.mean(), rtol=1e-4)  # no batch norm in it


@pytest.mark.slow
def test_variational_draws_in_training_alone():
    fields = {"code": "gaussian", "error_reduction": "sum", "penalty": 1.0}
    _, update, state = started(**fields)
    maps, keys = maps_of(), [jax.random.key(seed) for seed in (1, 1, 2)]
    errors = [float(update(key, state, maps)[1]["error"]) for key in keys]
    assert errors[0] == errors[1] != errors[2]
    scores, _, code = look(state, maps, **fields)
    assert code.shape == (4, 5)  # means, without their stds
    least = 0.5 * (code**2).sum(1)  # of the divergence: the part of the means
    assert (scores.info.mean["penalty"] > least).all()


@pytest.mark.slow
def test_ssim_scores_by_windows():
    _, states, infos = begun(**SSIM)
    maps = maps_of(3, 1)
    scores, output, _ = look(states[-1], maps, **SSIM)
    apart = losses.dissimilarity(maps["pixels"], output, 5)
    np.testing.assert_allclose(scores.map[:, 2:-2, 2:-2], apart, atol=1e-5)
    np.testing.assert_allclose(scores.info.mean["error"], apart.mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(scores.image, scores.map.mean((1, 2)), rtol=1e-5)
    assert 0 < infos[1]["error"] < infos[0]["error"] < 2


@pytest.mark.slow
def test_cross_entropy_is_of_probabilities():
    fields, maps = {"loss": "bce", "output": "sigmoid"}, maps_of()
    scores, y, _ = look(started(**fields)[2], maps, **fields)
    x = maps["pixels"]
    expected = -(x * jnp.log(y) + (1 - x) * jnp.log1p(-y)).mean((1, 2, 3))
    np.testing.assert_allclose(scores.info.mean["error"], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, LISTA, SSIM], ids=["blocks", "lista", "ssim"])
def test_any_batch_and_any_neighbours_give_the_same_bits(fields):
    """Of images scored four at a time, in groups of other images, and in one that is padded."""
    state, maps = started(**fields)[2], maps_of(6, 3)
    expected = look(state, maps, **fields)
    for rows in (slice(4, 5), slice(None, None, -1)):
        results = look(state, {"pixels": maps["pixels"][rows]}, **fields)
        there = jax.tree.map(lambda leaf, rows=rows: leaf[rows], expected)
        jax.tree.map(np.testing.assert_array_equal, results, there)


def test_groups_score_as_single_images():
    """Only the sizes of blocks differ, so the order of sums."""
    method, states, _ = begun()
    maps, params = maps_of(6, 3), finish(KEY, states[-1])
    scores, output, _ = look(states[-1], maps)
    one = {"pixels": maps["pixels"][5]}
    alone = jax.jit(lambda: (method.score(params, one), method.views.reconstruct(params, one)))()
    np.testing.assert_allclose(alone[0].image, scores.image[5], rtol=1e-5)
    np.testing.assert_allclose(alone[1], output[5], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["max", "top_sum"])
def test_scores_are_made_of_the_grid(rule):
    """What calibration does to errors, it does to the pixels that a score is pooled of."""
    method, _, state = started(pool=Pool(rule=rule), **SSIM)
    params, maps = finish(KEY, state), {"pixels": maps_of(1)["pixels"][0]}
    errors, _ = method.grid.errors(params, maps)
    scores = method.score(params, maps)
    assert errors[ONE].shape == (SIDE, SIDE)
    largest = np.sort(np.asarray(errors[ONE]).ravel())[::-1]
    expected = {"max": largest[0], "top_sum": largest[:5].sum()}[rule]
    np.testing.assert_allclose(scores.image, expected, rtol=1e-5)
    np.testing.assert_allclose(method.grid.pool(errors), expected, rtol=1e-5)
    np.testing.assert_array_equal(scores.map, method.grid.to_map(errors))


def test_checkpoint_gives_the_state_back(tmp_path):
    method, states, _ = begun()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, states[-1], Position("", 0.0))
    restored, _ = checkpoints.restore(2, jax.eval_shape(method.init, KEY, maps_of()))
    jax.tree.map(np.testing.assert_array_equal, restored, states[-1])
    wider = build(net=replace(SMALL.net, widths=(4, 8)))
    with pytest.raises(UserError, match="not a checkpoint of this config"):
        checkpoints.restore(2, jax.eval_shape(wider.init, KEY, maps_of()))
    checkpoints.close()


@pytest.mark.slow
def test_a_rate_too_high_shows_in_the_loss():
    """The loop stops where a value is no longer finite: it must see one."""
    method, maps = build(**LISTA, optimizer=Adam(learning_rate=1e15)), maps_of()
    state, update = jax.jit(method.init)(KEY, maps), jax.jit(method.update)
    for _ in range(4):
        state, info = update(KEY, state, maps)
    assert not np.isfinite(info["loss"])


@pytest.mark.parametrize("options", [SMALL, replace(SMALL, **LISTA)], ids=["blocks", "lista"])
def test_options_are_a_section_and_back(options):
    assert read(Reconstruction, section(options)) == options


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"code": "relu"}, "code"),
        ({"output": "relu"}, "output"),
        ({"loss": "l2"}, "loss"),
        ({"loss": "bce"}, "output"),
        ({"loss": "ssim"}, "output"),
        ({"residual": "ssim"}, "output"),
        ({"residual": "bce"}, "residual"),
        ({"score": "loss"}, "score"),
        ({"error_reduction": "none"}, "error_reduction"),
        ({"penalty_reduction": "max"}, "penalty_reduction"),
        ({"penalty": -1.0}, "penalty"),
        ({"penalty": float("nan")}, "penalty"),
        ({"window": 0}, "window"),
        ({"together": 0}, "together"),
        ({"net": Lista()}, "code"),
    ],
)
def test_bad_fields_are_named(fields, named):
    with pytest.raises(FieldError) as error:
        replace(SMALL, **fields)
    assert error.value.field == named


def test_images_and_features_that_do_not_fit_are_named():
    with pytest.raises(FieldError, match=r"^window = 17: give 1 to 16"):
        build(window=17)
    with pytest.raises(FieldError, match=r"^net\.strides = \(2, 2\)"):
        SMALL.build(PIXELS, (SIDE, 18, 3))
    with pytest.raises(FieldError, match=r"^net\.stride = 4"):
        replace(SMALL, **LISTA).build(PIXELS, (SIDE, 18, 3))
    with pytest.raises(UserError, match=r"features = 'vgg16': .*pixels"):
        SMALL.build(PIXELS._replace(identity="vgg16", raw=False), (SIDE, SIDE, 3))
