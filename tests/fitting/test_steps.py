"""Many steps in one program are those of one a call, in any number; images lose nothing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import learning_toy
from helpers.toy import SIZE, examples
from jax.sharding import AxisType

from sparse_ad import devices
from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import training_batches, training_order
from sparse_ad.data.resident import hold_images
from sparse_ad.devices import mesh, replicate
from sparse_ad.fitting import steps
from sparse_ad.fitting.setup import Fit, Setup
from sparse_ad.fitting.steps import Pace, batch_indices, make_steps, resident_steps, streamed_steps
from sparse_ad.methods.lifts.tiles import Tiles, tiled

KEY = jax.random.key(3)
IMAGES = examples(11, 0, "good", 1)


PIXELS = Images(size=(SIZE, SIZE))
SEED = 0


def make(method=None, resident_gb=1.0):
    return Setup(method or learning_toy(), PIXELS, Fit(8, resident_gb=resident_gb), SEED)


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def take(source, lengths):
    """Takes calls of these lengths; returns the state, and what each step measured."""
    state, done, infos = replicate(learning_toy().init(KEY, source.first())), 0, []
    for length in lengths:
        state, found, taken = source.advance(state, done, length)
        assert taken == length
        infos += found["mean"][:taken].tolist()
        done += taken
    return np.asarray(state), infos


@pytest.fixture(scope="module")
def held():
    return hold_images(IMAGES, PIXELS, 1e9)


@pytest.fixture(scope="module")
def source(held):
    return resident_steps(learning_toy(), held, 8, SEED, KEY)


def test_any_number_of_steps_a_call_gives_the_same_bits(source):
    state, infos = take(source, [1] * 12)
    for lengths in ([12], [3, 4, 5], [11, 1]):
        assert_same_bits(take(source, lengths), (state, infos))


def test_steps_are_those_of_eager_updates(source):
    """Batch for batch and key for key, computed one by one."""
    method = learning_toy()
    batches = training_batches(IMAGES, PIXELS, 8, SEED)
    state = None
    for step, batch in enumerate(itertools.islice(batches, 5)):
        maps = {"pixels": jnp.asarray(batch.image)}
        state = method.init(KEY, maps) if state is None else state
        state, _ = method.update(jax.random.fold_in(KEY, step), state, maps)
    np.testing.assert_allclose(take(source, [5])[0], state, rtol=1e-6)  # fused otherwise


@pytest.mark.parametrize("done", [0, 1, 9])
def test_both_ways_see_the_same_batches(done):
    order = training_order(len(IMAGES), 5)
    streamed = training_batches(IMAGES, PIXELS, 4, 5, first=done)
    expected = np.stack([batch.index for batch in itertools.islice(streamed, 9)])
    np.testing.assert_array_equal(batch_indices(order, done, 9, 4), expected)


def test_one_device_is_eight(source, held, monkeypatch):
    """To the order of float32 sums."""
    expected = take(source, [6])
    assert mesh().size == 8
    alone = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.local_devices()[:1])
    monkeypatch.setattr(devices, "mesh", lambda: alone)
    found = take(resident_steps(learning_toy(), held, 8, SEED, KEY), [6])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_each_device_works_on_its_share(held):
    seen = []

    def update(key, state, maps):
        jax.debug.inspect_array_sharding(maps["pixels"], callback=seen.append)
        return state, {"mean": maps["pixels"].mean()}

    take(resident_steps(learning_toy()._replace(update=update), held, 8, SEED, KEY), [2])
    assert {each.shard_shape((8, SIZE, SIZE, 1)) for each in seen} == {(1, SIZE, SIZE, 1)}


def test_tiles_are_cut_from_images_on_the_device(held):
    """As from decoded ones: the same steps, to the rounding of float32."""
    method = tiled(learning_toy(), (SIZE, SIZE), Tiles((16, 16), 0.25))
    assert method.features.raw
    held_steps = resident_steps(method, held, 8, SEED, KEY)
    streamed = streamed_steps(make(method), IMAGES, KEY, 0)
    found = [take_tiles(source, method) for source in (held_steps, streamed)]
    np.testing.assert_allclose(*found, rtol=1e-6)


def take_tiles(source, method):
    state, done = replicate(method.init(KEY, source.first())), 0
    assert state.shape == (16, 16, 1)
    while done < 3:
        state, _, taken = source.advance(state, done, 3 - done)
        done += taken
    return np.asarray(state)


@pytest.mark.parametrize(
    ("gigabytes", "raw", "resident"),
    [(1.0, True, True), (0.0, True, False), (1.0, False, False), (1e-6, True, False)],
)
def test_what_is_held(gigabytes, raw, resident):
    method = learning_toy()
    method = method._replace(features=method.features._replace(raw=raw))
    source = make_steps(make(method, gigabytes), IMAGES, KEY, 0)
    state = replicate(method.init(KEY, source.first()))
    assert source.advance(state, 0, 5)[2] == (5 if resident else 1)


def test_a_small_device_holds_no_more_than_half(monkeypatch):
    monkeypatch.setattr(steps, "room", lambda: 2 * 11 * SIZE * SIZE - 1)
    source = make_steps(make(), IMAGES, KEY, 0)
    state = replicate(learning_toy().init(KEY, source.first()))
    assert source.advance(state, 0, 5)[2] == 1


def test_pace(monkeypatch):
    """Steps of 0.1 s, and a call every so often that is slow: lengths settle at a second."""
    clock = [0.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: clock[0])
    pace, lengths, before = Pace(1.0), [], 0
    for _ in range(12):
        lengths.append(pace.steps)
        clock[0] += 0.1 * before  # the call before comes to its end
        pace.note(before)
        before = lengths[-1]
    assert lengths[:6] == [1, 1, 2, 4, 8, 10] and set(lengths[6:]) <= {9, 10}
    clock[0] += 1000.0
    pace.note(before)
    assert pace.steps == 1
    assert Pace(0.0).steps == 1


def test_no_pace_where_each_step_is_saved(monkeypatch):
    pace = Pace(0.0)
    for _ in range(4):
        pace.note(1)
    assert pace.steps == 1
