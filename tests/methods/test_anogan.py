"""AnoGAN: its two networks, what they learn from each other, and the search."""

from functools import cache
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import anogan as configs
from sparse_ad.errors import UserError
from sparse_ad.methods.anogan import Fitted, anogan, draw, minimise
from sparse_ad.nets.adversarial import discriminator_loss, generator_loss, train
from sparse_ad.nets.dcgan import Discriminator, Generator, layer_widths
from sparse_ad.types import PIXELS

KEY = jax.random.key(0)
SIZE, LATENT, WEIGHT = 32, 3, 0.3
WIDTHS = (3, 4, 5)
STEPS = 150  # of a search that gets somewhere


def thin(**fields):
    config = configs.get_config("generated")
    config.net.update(latent=LATENT, widths=WIDTHS, at_a_time=4, discrimination_weight=WEIGHT)
    config.net.update(search_rate=0.05, **fields)
    return config


@cache
def build(**fields):
    """A detector, its functions compiled."""
    method = anogan(thin(**{"search_steps": 0, **fields}), PIXELS, (SIZE, SIZE))
    return method._replace(score=jax.jit(method.score), reconstruct=jax.jit(method.reconstruct))


def waves(count: int, seed: int) -> dict:
    """Colour images of stripes."""
    phase = np.random.default_rng(seed).uniform(0, 6, (count, 1, 1, 1))
    across = np.arange(SIZE)[:, None] * np.array([0.4, 0.5, 0.6])
    images = 0.5 + 0.4 * np.sin(across + phase) * np.ones((SIZE, 1, 1))
    return {"pixels": images.astype(np.float32)}


def generated(fit, noise) -> dict:
    """The images that the detector's generator makes of noise."""
    make = Generator((SIZE, SIZE, 3), WIDTHS)
    return {"pixels": (make.apply(fit.params.generator, noise, train=False) + 1) / 2}


@pytest.fixture(scope="module")
def fit():
    """A detector after a few steps."""
    method, maps = build(), waves(8, 0)
    first = state = jax.jit(method.init)(KEY, maps)
    update = jax.jit(method.update)
    for step in range(8):
        state, _ = update(jax.random.fold_in(KEY, step), state, maps)
    params = jax.jit(method.finish)(KEY, state)
    return SimpleNamespace(first=first, state=state, params=params, update=update)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 32), (7, 8, 9)),
        ((64, 64), (7, 8, 9, 9)),
        ((128, 128), (7, 8, 9, 9, 9)),
        ((128, 32), (7, 8, 9)),
    ],
)
def test_layers_follow_the_size(shape, expected):
    assert layer_widths(shape, (7, 8, 9)) == expected
    coarse = tuple(side >> len(expected) for side in shape)
    assert min(coarse) == 4
    noise, images = jnp.zeros((2, LATENT)), jnp.zeros((2, *shape, 3))
    make, judge = Generator((*shape, 3), expected), Discriminator(expected)
    made, _ = jax.eval_shape(lambda: make.init_with_output(KEY, noise, train=False))
    (odds, features), _ = jax.eval_shape(lambda: judge.init_with_output(KEY, images, train=False))
    assert made.shape == images.shape
    assert odds.shape == (2,) and features.shape == (2, *coarse, expected[-1])


def test_all_is_normalised_but_output_and_input(fit):
    """A layer with a batch norm behind it has no bias: three and two norms, one and two biases."""
    for player, plain, biased in ((fit.first.maker, 3, 1), (fit.first.judge, 2, 2)):
        layers = player.params
        kernels = [leaf for leaf in layers.values() if "kernel" in leaf]
        assert sum("bias" in leaf for leaf in kernels) == biased
        assert sum("bias" not in leaf for leaf in kernels) == plain
        assert sum("scale" in leaf for leaf in layers.values()) == plain
    drawn = jnp.concatenate([leaf["kernel"].ravel() for leaf in kernels])
    np.testing.assert_allclose(drawn.std(), 0.02, rtol=0.1)  # of some 800


def test_losses_are_logarithms_of_probabilities():
    real, fake = np.array([0.3, -2.0, 4.0]), np.array([-1.0, 0.5, 2.5])
    found = discriminator_loss(jnp.array(real), jnp.array(fake)), generator_loss(jnp.array(fake))
    real, fake = (1 / (1 + np.exp(-odds)) for odds in (real, fake))
    expected = -np.log(real).mean() - np.log(1 - fake).mean(), -np.log(fake).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_first_step_is_the_discriminators_then_the_generators(fit):
    """Adam's first step is the rate times the sign of the slope, but for slopes near its 1e-8."""
    images, noise = 2 * waves(8, 0)["pixels"] - 1, draw(KEY, 8, LATENT)
    make, judge = Generator((SIZE, SIZE, 3), WIDTHS), Discriminator(WIDTHS)
    maker, judged, rate = *fit.first, thin().fit.learning_rate

    def odds_of(params, images):
        return train(judge, judged.statistics, params, images)[0][0]

    def images_of(params):
        return train(make, maker.statistics, params, noise)[0]

    def minimax(params):
        real, fake = odds_of(params, images), odds_of(params, images_of(maker.params))
        return -jnp.mean(nn.log_sigmoid(real) + jnp.log(1 - nn.sigmoid(fake)))

    def fool(params, wiser):
        return -jnp.mean(nn.log_sigmoid(odds_of(wiser, images_of(params))))

    @jax.jit
    def by_hand():
        descend = lambda p, g: p - rate * g / (jnp.abs(g) + 1e-8)  # noqa: E731
        mistaken, slopes = jax.value_and_grad(minimax)(judged.params)
        wiser = jax.tree.map(descend, judged.params, slopes)
        exposed, slopes = jax.value_and_grad(fool)(maker.params, wiser)
        return mistaken, wiser, exposed, jax.tree.map(descend, maker.params, slopes)

    second, info = fit.update(KEY, fit.first, waves(8, 0))
    mistaken, wiser, exposed, better = by_hand()
    np.testing.assert_allclose(info["discriminator_loss"], mistaken, rtol=1e-4)
    np.testing.assert_allclose(info["generator_loss"], exposed, rtol=1e-4)
    for found, expected in ((second.judge.params, wiser), (second.maker.params, better)):
        off = jax.tree.map(lambda a, b: np.abs(a - b).ravel() > 0.05 * rate, found, expected)
        assert np.mean(np.concatenate(jax.tree.leaves(off))) < 0.02  # whose slopes are all but zero


def test_score_is_the_weighted_loss_of_what_is_reconstructed(fit):
    maps, method = waves(4, 1), build()
    scores = method.score(fit.params, maps)
    images, found = maps["pixels"], np.asarray(method.reconstruct(fit.params, maps))
    judge = jax.jit(
        lambda x: Discriminator(WIDTHS).apply(fit.params.discriminator, 2 * x - 1, False)
    )
    features = [np.asarray(judge(x)[1]) for x in (images, found)]
    residual = 2 * np.abs(images - found).sum((1, 2, 3))
    discrimination = np.abs(features[0] - features[1]).sum((1, 2, 3))
    # float32 sums in another order; features are differences of many
    np.testing.assert_allclose(scores.info["residual"], residual, rtol=1e-4)
    np.testing.assert_allclose(scores.info["discrimination"], discrimination, rtol=1e-3)
    loss = (1 - WEIGHT) * residual + WEIGHT * discrimination
    np.testing.assert_allclose(scores.image, loss, rtol=1e-4)
    np.testing.assert_allclose(scores.map, np.abs(images - found).mean(-1), atol=1e-5)


def test_best_of_several_starts(fit):
    starts = draw(jax.random.key(5), 4, LATENT)
    made = generated(fit, starts)  # each image has a start of its own that makes it
    score = lambda starts: build().score(fit.params._replace(starts=starts), made).image  # noqa: E731
    each = np.array([score(starts[place : place + 1]) for place in range(4)])
    assert (np.argmin(each, axis=0) == np.arange(4)).all()
    assert (score(starts) < 0.01 * each.max(0)).all()


def test_starts_are_drawn_with_the_fit(fit):
    method = build(search_starts=2)
    one, other = (method.finish(jax.random.key(seed), fit.state).starts for seed in (1, 2))
    assert one.shape == (2, LATENT) and (np.abs(one) <= 1).all()
    assert (one != other).all() and (one[0] != one[1]).all()


def test_generated_images_are_found_and_others_are_not(fit):
    made = generated(fit, draw(jax.random.key(7), 4, LATENT))
    begun, search = build().score(fit.params, made).image, build(search_steps=STEPS).score
    found = search(fit.params, made).image
    assert (found < 0.2 * begun).all()
    scores = search(fit.params, {"pixels": made["pixels"].at[:, 10:20, 10:20].add(0.3)})
    assert (scores.image > 2 * found).all()
    inside = scores.map[:, 10:20, 10:20].mean((1, 2))
    assert (inside > 2 * scores.map[:, 22:].mean((1, 2))).all()


def test_any_batch_gives_the_same_bits(fit):
    maps, score = waves(8, 2), build(search_steps=STEPS).score
    together = score(fit.params, maps)
    for rows in (slice(5, 6), slice(2, 5), slice(None, None, -1)):
        some = score(fit.params, {"pixels": maps["pixels"][rows]})
        expected = jax.tree.map(lambda leaf, rows=rows: leaf[rows], together)
        jax.tree.map(np.testing.assert_array_equal, some, expected)


def test_scoring_uses_running_averages(fit):
    statistics, begun = fit.params.generator["batch_stats"], fit.first.maker.statistics
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != np.asarray(b)).any(), statistics, begun)
    assert all(jax.tree.leaves(moved))
    wide = fit.params.generator | {"batch_stats": jax.tree.map(lambda leaf: 4 * leaf, statistics)}
    score = lambda params: build().score(params, waves(4, 1)).image  # noqa: E731
    assert (score(Fitted(wide, *fit.params[1:])) != score(fit.params)).all()


def test_search_solves_a_linear_generator():
    """|x - A z| is zero at the z that made x, which a constant rate reaches to about itself."""
    rng = np.random.default_rng(0)
    matrix, noise = rng.normal(size=(40, LATENT)), rng.uniform(-1, 1, (6, LATENT))
    images = jnp.array(noise @ matrix.T)

    def loss(points):
        return jnp.abs(images - points @ matrix.T).sum(-1)

    least, best = minimise(loss, jnp.zeros((6, LATENT)), optax.adam(0.01), 400)
    np.testing.assert_allclose(best, noise, atol=0.01)
    np.testing.assert_allclose(loss(best), least, rtol=1e-5)


def test_more_steps_are_never_worse():
    """Even at a rate that jumps about, where the last point is often not the best."""
    starts = draw(KEY, 6, 2)
    loss = lambda points: jnp.abs(points - jnp.array([0.3, -0.2])).sum(-1)  # noqa: E731
    losses = [minimise(loss, starts, optax.adam(0.7), steps)[0] for steps in range(6)]
    assert (np.diff(losses, axis=0) <= 0).all()
    np.testing.assert_array_equal(losses[0], loss(starts))
    assert (losses[-1] < losses[0]).any() and (np.diff(losses, axis=0) == 0).any()


def test_last_step_counts_and_no_number_is_never_best():
    def loss(points):  # not a number beyond 1, and least at 0.95
        return jnp.where(points > 1, jnp.nan, (points - 0.95) ** 2)[:, 0]

    starts = jnp.array([[0.0], [2.0]])
    least, best = minimise(loss, starts, optax.sgd(0.7), 3)  # 0, 1.33
    np.testing.assert_array_equal(best, starts)
    np.testing.assert_allclose(least, [0.95**2, np.inf])
    least, _ = minimise(loss, starts[:1], optax.sgd(0.4), 3)  # 0.95 less 0.95, 0.19, 0.038, 0.0076
    np.testing.assert_allclose(least, 0.0076**2, rtol=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("net.latent", 0),
        ("net.widths", ()),
        ("net.widths", (4, 0)),
        ("net.dtype", "float16"),
        ("net.at_a_time", 0),
        ("net.search_steps", -1),
        ("net.search_rate", 0.0),
        ("net.search_starts", 0),
        ("net.discrimination_weight", 1.5),
        ("fit.learning_rate", 0.0),
        ("fit.weight_decay", -1.0),
    ],
)
def test_bad_fields_are_named(field, value):
    config = thin()
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(UserError, match=rf"{section}\.{name} = "):
        anogan(config, PIXELS, (SIZE, SIZE))


@pytest.mark.parametrize("shape", [(48, 48), (16, 16), (32, 33)])
def test_bad_sizes_are_named(shape):
    config = thin()
    with pytest.raises(UserError, match=r"data\.size = .*power of two, 32 or more"):
        anogan(config, PIXELS, shape)
    config.method.tile = shape
    with pytest.raises(UserError, match=r"method\.tile = "):
        anogan(config, PIXELS, shape)


def test_maps_of_a_network_are_refused():
    with pytest.raises(UserError, match=r"features\.backbone = .*pixels"):
        anogan(thin(), PIXELS._replace(identity="vgg16"), (SIZE, SIZE))
