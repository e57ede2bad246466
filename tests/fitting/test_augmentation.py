"""What is drawn, how often, from which keys; and the same bits however a fit proceeds."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from signal import SIGKILL

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import (
    LearningToy,
    assert_same_outcome,
    assert_user_error,
    changed,
    launch,
    learning_toy,
    tiny,
    toy_experiment,
)
from helpers.made_up import make_folder
from helpers.toy import SIZE, examples

import sparse_ad
from sparse_ad.data import load
from sparse_ad.data.decode import decode
from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import training_batches
from sparse_ad.devices import replicate
from sparse_ad.errors import FieldError
from sparse_ad.fitting import loop
from sparse_ad.fitting.augmentation import Augmentation, augment
from sparse_ad.fitting.setup import Fit, Setup
from sparse_ad.fitting.steps import make_steps
from sparse_ad.methods import METHODS
from sparse_ad.methods.pca import Pca
from sparse_ad.options import section
from sparse_ad.system.command_line import load_experiment

CONFIG = "configs/sparse_patches.py"
KEY = jax.random.key(3)
ALL = Augmentation("both", True, 0.3)
PIXELS = Images(size=(SIZE, SIZE))
EXAMPLES = examples(11, 0, "good", 1)
CORNER = np.arange(9, dtype=np.float32).reshape(3, 3, 1) / 9  # each of the 8 ways differs
WAYS = {  # option: the images that it may make of one
    "horizontal": [CORNER, CORNER[:, ::-1]],
    "vertical": [CORNER, CORNER[::-1]],
    "both": [CORNER, CORNER[:, ::-1], CORNER[::-1], CORNER[::-1, ::-1]],
}
augmented = jax.jit(augment, static_argnums=0)
SQUARE = [np.rot90(image, turns) for image in (CORNER, CORNER[:, ::-1]) for turns in range(4)]


def many(options, count=2000, image=CORNER, key=KEY):
    images = jnp.asarray(np.broadcast_to(image, (count, *image.shape)))
    return np.asarray(augmented(options, key, images))


def assert_evenly(found, ways):
    """Each way occurs, as often as the others, and nothing else does."""
    counts = Counter(image.tobytes() for image in found)
    assert set(counts) == {np.ascontiguousarray(way).tobytes() for way in ways}
    expected = len(found) / len(ways)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("flip", WAYS)
def test_flips_are_as_likely_as_none(flip):
    assert_evenly(many(Augmentation(flip)), WAYS[flip])


def test_right_angles_and_all_8_orientations():
    assert_evenly(many(Augmentation(rotate=True)), SQUARE[:4])
    assert_evenly(many(Augmentation("both", True)), SQUARE)


def test_brightness_is_even_over_its_range_and_clipped():
    image = np.full((2, 2, 1), 0.5, np.float32)
    found = many(Augmentation(brightness=0.2), image=image)
    assert (found == found[:, :1, :1]).all()  # one factor an image
    factors = found[:, 0, 0, 0] / 0.5
    assert 0.8 <= factors.min() < 0.802 and 1.198 < factors.max() <= 1.2
    counts = np.histogram(factors, 8, (0.8, 1.2))[0]
    assert (abs(counts - 250) < 5 * 250**0.5).all()
    bright = many(Augmentation(brightness=0.9), image=image + 0.4)
    assert bright.max() == 1 and bright.min() >= 0


def test_an_image_does_not_depend_on_the_others():
    images = jax.random.uniform(KEY, (6, 5, 5, 2))
    found = augmented(ALL, KEY, images)
    others = images.at[:3].set(0.5)
    np.testing.assert_array_equal(augmented(ALL, KEY, others)[3:], found[3:])
    assert not (augmented(ALL, jax.random.key(4), images) == found).all()


def test_switched_off_nothing_is_computed():
    images = jnp.zeros((2, 3, 4, 1))
    assert augment(Augmentation(), KEY, images) is images


@pytest.mark.parametrize(
    "options", [ALL, pytest.param(Augmentation(brightness=0.7), marks=pytest.mark.slow)]
)
def test_images_on_the_devices_and_a_stream_have_the_same_bits(options):
    """And several steps a call; the first batch is that of step 0."""
    setup = Setup(stack_toy(), PIXELS, Fit(8, augmentation=options), 0)
    resident = make_steps(setup, EXAMPLES, KEY, 0)
    streamed = make_steps(
        setup._replace(options=replace(setup.options, resident_gb=0.0)), EXAMPLES, KEY, 0
    )
    batches = itertools.islice(training_batches(EXAMPLES, PIXELS, 8, 0), 4)
    expected = [
        augmented(options, jax.random.fold_in(KEY, step), jnp.asarray(batch.image))
        for step, batch in enumerate(batches)
    ]
    for source, calls in ((resident, (4,)), (resident, (1, 3)), (streamed, (1,) * 4)):
        first = source.first()
        np.testing.assert_array_equal(first["pixels"], expected[0])
        state, done = replicate(setup.method.init(KEY, first)), 0
        for most in calls:
            state, _, taken = source.advance(state, done, most)
            done += taken
        assert done == 4
        np.testing.assert_array_equal(state, expected)


def stack_toy():
    """A detector whose state is what it saw, of four steps."""

    def init(key, maps):
        return jnp.zeros((4, *maps["pixels"].shape))

    def update(key, state, maps):
        state = jnp.concatenate([state[1:], maps["pixels"][None]])
        return state, {"mean": jnp.mean(state)}

    return learning_toy()._replace(init=init, update=update)


def test_a_fit_that_goes_on_draws_as_it_would_have():
    setup = Setup(stack_toy(), PIXELS, Fit(8, augmentation=ALL), 0)
    for gigabytes in (0.0, 1.0):
        here = setup._replace(options=replace(setup.options, resident_gb=gigabytes))
        ends = []
        for stop in (0, 2):
            source = make_steps(here, EXAMPLES, KEY, 0)
            state, done = replicate(here.method.init(KEY, source.first())), 0
            while done < 4:
                source = make_steps(here, EXAMPLES, KEY, done) if done == stop else source
                state, _, taken = source.advance(state, done, 2)
                done += taken
            ends.append(np.asarray(state))
        np.testing.assert_array_equal(*ends)


@pytest.mark.slow
def test_a_fit_on_arrays_is_that_of_a_run(tmp_path, monkeypatch):
    """And not that of one without augmentation."""
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    experiment = changed(toy_experiment(tmp_path), fit__augmentation=section(ALL))
    assert experiment.fit.augmentation == ALL
    splits, size = load(experiment.data, 0), experiment.data.size
    method = experiment.build()
    params, _ = loop.fit(experiment.setup(method), splits.train, tmp_path / "work")
    images = np.stack([decode(each.image, size, "grey") for each in splits.train])
    on_arrays = partial(sparse_ad.fit, method, images, epochs=6.0, batch_size=8)
    found, plain = on_arrays(augmentation=ALL), on_arrays()
    np.testing.assert_allclose(found["mean"], params["mean"], rtol=1e-6, atol=1e-6)
    assert np.abs(found["mean"] - plain["mean"]).max() > 0.01


def test_options_from_the_command_line():
    changes = ["flip=both", "rotate=True", "brightness=0.2"]
    experiment = load_experiment(CONFIG, [f"fit.augmentation.{each}" for each in changes])
    assert experiment.fit.augmentation == Augmentation("both", True, 0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["flip=up"], r"flip = 'up': choose one of both, horizontal, none, vertical"),
        (["brightness=1.0"], r"brightness = 1\.0: must be 0 or more, and less than 1"),
        (["brightness=-0.1"], r"brightness = -0\.1: must be 0 or more"),
        (["rotate=True"], r"rotate = True: images of 48 x 64 are not square: give False, or"),
    ],
)
def test_mistakes_are_named_before_the_fit(changes, message):
    changes = ["data.size=(48,64)", *(f"fit.augmentation.{each}" for each in changes)]
    with pytest.raises(FieldError, match=rf"^fit\.augmentation\.{message}"):
        load_experiment(CONFIG, changes)


def test_arrays_that_are_not_square_are_named():
    method = sparse_ad.build(Pca(side=8, components=4), (16, 12, 1))
    with pytest.raises(FieldError, match="rotate = True: images of 16 x 12 are not square"):
        images = np.zeros((8, 16, 12, 1), np.float32)
        sparse_ad.fit(method, images, batch_size=8, augmentation=Augmentation(rotate=True))


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_same_bits(tmp_path):
    root = make_folder(tmp_path / "images")
    changes = ("flip=both", "rotate=True", "brightness=0.2")
    flags = [*tiny(root), *(f"--config.fit.augmentation.{each}" for each in changes)]
    place = ("sparse_ad.fitting.checkpoint.write_checksums", 3, SIGKILL)
    assert launch(*flags, f"--workdir={tmp_path / 'killed'}", strike=place).returncode == -SIGKILL
    for name in ("straight", "killed"):
        process = launch(*flags, f"--workdir={tmp_path / name}")
        assert process.returncode == 0, process.stderr
    assert_same_outcome(tmp_path / "killed", tmp_path / "straight")
    config = json.loads((tmp_path / "killed" / "config.json").read_text())
    recorded = {"flip": "both", "rotate": True, "brightness": 0.2}
    assert config["fit"]["augmentation"] == recorded
    process = launch(*tiny(root), f"--workdir={tmp_path / 'killed'}")
    assert_user_error(process, "fit.augmentation.flip: 'both' there, 'none' here")
