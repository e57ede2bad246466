"""AnoGAN: the search, and scores made of it."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_ad.batching import batched
from sparse_ad.errors import FieldError, UserError
from sparse_ad.methods.anogan import AnoGan, Fitted, draw, minimise, search
from sparse_ad.nets.adversarial import Gan
from sparse_ad.nets.dcgan import Discriminator, Generator
from sparse_ad.types import PIXELS

KEY = jax.random.key(0)
SIZE, LATENT, WEIGHT = 32, 3, 0.3
WIDTHS = (3, 4, 5)
STEPS = 150  # of a search that gets somewhere
SMALL = AnoGan(
    latent=LATENT,
    widths=WIDTHS,
    search_steps=0,
    search_rate=0.05,
    discrimination_weight=WEIGHT,
    together=4,
)


@cache
def build(**fields):
    """A detector whose functions take many images, compiled."""
    method = replace(SMALL, **fields).build(PIXELS, (SIZE, SIZE, 3))
    score, reconstruct = (
        jax.jit(batched(function, method.together))
        for function in (method.score, method.views.reconstruct)
    )
    return SimpleNamespace(one=method, score=score, reconstruct=reconstruct)


def waves(count: int, seed: int) -> dict:
    """Colour images of stripes."""
    phase = np.random.default_rng(seed).uniform(0, 6, (count, 1, 1, 1))
    across = np.arange(SIZE)[:, None] * np.array([0.4, 0.5, 0.6])
    images = 0.5 + 0.4 * np.sin(across + phase) * np.ones((SIZE, 1, 1))
    return {"pixels": jnp.asarray(images, jnp.float32)}


def generated(fit, noise) -> dict:
    """The images that the detector's generator makes of noise."""
    generator = Generator((SIZE, SIZE, 3), WIDTHS)
    return {"pixels": (generator.apply(fit.params.generator, noise, train=False) + 1) / 2}


@pytest.fixture(scope="module")
def fit():
    """A detector after a few steps."""
    method, maps = build().one, waves(8, 0)
    first = state = jax.jit(method.init)(KEY, maps)
    update = jax.jit(method.update)
    for step in range(8):
        state, _ = update(jax.random.fold_in(KEY, step), state, maps)
    return SimpleNamespace(first=first, state=state, params=jax.jit(method.finish)(KEY, state))


@pytest.mark.slow
def test_score_is_the_weighted_loss_of_what_is_reconstructed(fit):
    maps, method = waves(4, 1), build()
    scores = method.score(fit.params, maps)
    images, nearest = maps["pixels"], np.asarray(method.reconstruct(fit.params, maps))
    discriminator = jax.jit(
        lambda x: Discriminator(WIDTHS).apply(fit.params.discriminator, 2 * x - 1, False)
    )
    features = [np.asarray(discriminator(jnp.asarray(x))[1]) for x in (images, nearest)]
    residual = 2 * np.abs(images - nearest).sum((1, 2, 3))
    discrimination = np.abs(features[0] - features[1]).sum((1, 2, 3))
    # float32 sums in another order; features are differences of many
    np.testing.assert_allclose(scores.info.mean["residual"], residual, rtol=1e-4)
    np.testing.assert_allclose(scores.info.mean["discrimination"], discrimination, rtol=1e-3)
    loss = (1 - WEIGHT) * residual + WEIGHT * discrimination
    np.testing.assert_allclose(scores.image, loss, rtol=1e-4)
    np.testing.assert_allclose(scores.map, np.abs(images - nearest).mean(-1), atol=1e-5)


def linear_gan(matrix):
    """A generator G(z) = z A, and features that are twice the image."""
    generator = SimpleNamespace(apply=lambda params, z, train: (z @ matrix).reshape(-1, 4, 5, 2))
    discriminator = SimpleNamespace(apply=lambda params, x, train: (None, 2 * x))
    return Gan(generator, discriminator, None)


def test_search_finds_the_noise_of_a_linear_generator():
    """Then loss(x, z) = (1 - w + 2 w) sum |x - z A|, zero at the noise that made x."""
    rng = np.random.default_rng(0)
    matrix, noise = rng.normal(size=(LATENT, 40)), rng.uniform(-1, 1, LATENT)
    image = jnp.asarray((noise @ matrix).reshape(4, 5, 2), jnp.float32)
    gan, params = (
        linear_gan(jnp.asarray(matrix, jnp.float32)),
        Fitted({}, {}, jnp.zeros((1, LATENT))),
    )
    begun = search(gan, replace(SMALL, search_steps=0), params, image)
    np.testing.assert_allclose(begun.residual, np.abs(image).sum(), rtol=1e-5)
    np.testing.assert_allclose(begun.discrimination, 2 * np.abs(image).sum(), rtol=1e-5)
    np.testing.assert_allclose(begun.loss, (1 + WEIGHT) * np.abs(image).sum(), rtol=1e-5)
    np.testing.assert_array_equal(begun.generated, jnp.zeros_like(image))
    options = replace(SMALL, search_steps=400, search_rate=0.01)
    nearest = search(gan, options, params, image)
    np.testing.assert_allclose(nearest.generated, image, atol=0.05)  # a constant rate jumps about


def test_search_takes_the_best_of_its_starts():
    """Of several, whichever is first, the one that makes the image; its loss is zero."""
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(LATENT, 40)), jnp.float32)
    starts = draw(KEY, 4, LATENT)
    for start in starts:
        image = (start @ matrix).reshape(4, 5, 2)
        nearest = search(linear_gan(matrix), SMALL, Fitted({}, {}, starts), image)
        np.testing.assert_allclose(nearest.generated, image, atol=1e-5)  # another order of sums
        assert nearest.loss < 1e-3


@pytest.mark.slow
def test_starts_are_drawn_with_the_fit(fit):
    method = build(search_starts=2).one
    one, other = (method.finish(jax.random.key(seed), fit.state).starts for seed in (1, 2))
    assert one.shape == (2, LATENT) and (np.abs(one) <= 1).all()
    assert (one != other).all() and (one[0] != one[1]).all()


@pytest.mark.slow
def test_generated_images_are_reached_and_others_are_not(fit):
    images = generated(fit, draw(jax.random.key(7), 4, LATENT))
    begun, score = build().score(fit.params, images).image, build(search_steps=STEPS).score
    reached = score(fit.params, images).image
    assert (reached < 0.2 * begun).all()
    scores = score(fit.params, {"pixels": images["pixels"].at[:, 10:20, 10:20].add(0.3)})
    assert (scores.image > 2 * reached).all()
    inside = scores.map[:, 10:20, 10:20].mean((1, 2))
    assert (inside > 2 * scores.map[:, 22:].mean((1, 2))).all()


@pytest.mark.slow
def test_any_batch_and_any_neighbours_give_the_same_bits(fit):
    maps, score = waves(8, 2), build(search_steps=STEPS).score
    expected = score(fit.params, maps)
    for rows in (slice(5, 6), slice(None, None, -1)):
        scores = score(fit.params, {"pixels": maps["pixels"][rows]})
        there = jax.tree.map(lambda leaf, rows=rows: leaf[rows], expected)
        jax.tree.map(np.testing.assert_array_equal, scores, there)


@pytest.mark.slow
def test_scoring_uses_running_averages(fit):
    statistics, begun = fit.params.generator["batch_stats"], fit.first.generator.statistics
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != np.asarray(b)).any(), statistics, begun)
    assert all(jax.tree.leaves(moved))
    wide = fit.params.generator | {"batch_stats": jax.tree.map(lambda leaf: 4 * leaf, statistics)}
    score = lambda params: build().score(params, waves(4, 1)).image  # noqa: E731
    assert (score(Fitted(wide, *fit.params[1:])) != score(fit.params)).all()


def test_more_steps_are_never_worse():
    """Even at a rate that jumps about, where the last point is often not the best."""
    starts = draw(KEY, 6, 2)
    loss = lambda point: jnp.abs(point - jnp.array([0.3, -0.2])).sum()  # noqa: E731
    descend = lambda steps: jax.vmap(  # noqa: E731
        lambda start: minimise(loss, start, optax.adam(0.7), steps)[0]
    )(starts)
    losses = [descend(steps) for steps in range(6)]
    assert (np.diff(losses, axis=0) <= 0).all()
    np.testing.assert_array_equal(losses[0], jax.vmap(loss)(starts))
    assert (losses[-1] < losses[0]).any() and (np.diff(losses, axis=0) == 0).any()


def test_last_step_counts_and_no_number_is_never_best():
    def loss(point):  # not a number beyond 1, and least at 0.95
        return jnp.where(point > 1, jnp.nan, (point - 0.95) ** 2)[0]

    for start, expected in ((0.0, 0.95**2), (2.0, np.inf)):
        start = jnp.array([start])
        least, best = minimise(loss, start, optax.sgd(0.7), 3)  # 0, 1.33
        np.testing.assert_array_equal(best, start)
        np.testing.assert_allclose(least, expected)
    least, _ = minimise(loss, jnp.zeros(1), optax.sgd(0.4), 3)  # 0.95, 0.19, 0.038, 0.0076 off
    np.testing.assert_allclose(least, 0.0076**2, rtol=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent", 0),
        ("widths", ()),
        ("widths", (4, 0)),
        ("dtype", "float16"),
        ("together", 0),
        ("search_steps", -1),
        ("search_rate", 0.0),
        ("search_starts", 0),
        ("discrimination_weight", 1.5),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(FieldError) as error:
        replace(SMALL, **{field: value})
    assert error.value.field == field and error.value.value == value


def test_sizes_and_features_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"48 x 48: .*power of two, 32 or more"):
        SMALL.build(PIXELS, (48, 48, 3))
    with pytest.raises(UserError, match=r"features = 'vgg16': .*pixels"):
        SMALL.build(PIXELS._replace(identity="vgg16", raw=False), (SIZE, SIZE, 3))
