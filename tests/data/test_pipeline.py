"""The grain pipelines: order, epochs, resume, padding, and images that cannot be read."""

import itertools

import numpy as np
import pytest

from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import scoring_batches, training_batches
from sparse_ad.errors import UserError
from sparse_ad.types import Example

OPTIONS = Images(size=(8, 6), color="grey")


def make(count: int) -> list[Example]:
    """Images whose every pixel is their index / 255."""
    return [
        Example(np.full((8, 6), index, np.uint8), 0, "good", None, str(index), f"image {index}")
        for index in range(count)
    ]


def indices(batches, count):
    return np.stack([batch.index for batch in itertools.islice(batches, count)])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_sees_each_image_once_in_a_new_order(workers):
    options = Images(size=(8, 6), workers=workers)
    order = indices(training_batches(make(7), options, 3, seed=1), 14).reshape(-1, 7)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(7), (6, 1)))
    assert len(np.unique(order, axis=0)) == 6


def test_order_depends_on_the_seed_alone():
    runs = [
        indices(training_batches(make(50), Images(size=(8, 6), workers=w), 8, seed), 20)
        for w, seed in [(0, 0), (2, 0), (2, 1)]
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not (runs[0] == runs[2]).all()
    # Seed 1 is not seed 0 an epoch later.
    assert not (runs[0].ravel()[50:100] == runs[2].ravel()[:50]).all()


@pytest.mark.parametrize("step", [0, 1, 4, 9])
def test_resume_is_exact(step):
    straight = training_batches(make(7), OPTIONS, 3, seed=1)
    for _ in range(step):
        next(straight)
    state = straight.get_state()
    resumed = training_batches(make(7), OPTIONS, 3, seed=1)
    next(resumed)
    resumed.set_state(state)
    for expected, batch in itertools.islice(zip(straight, resumed, strict=True), 6):
        np.testing.assert_array_equal(batch.index, expected.index)
        np.testing.assert_array_equal(batch.image, expected.image)
        np.testing.assert_allclose(batch.image[:, 0, 0, 0] * 255, batch.index, atol=1e-4)


def test_fewer_images_than_a_batch_repeat():
    batch = next(training_batches(make(2), OPTIONS, 5, seed=0))
    assert batch.image.shape == (5, 8, 6, 1) and batch.valid.all()
    assert sorted(set(batch.index.tolist())) == [0, 1]


def test_unreadable_training_image_is_a_user_error():
    examples = make(6)
    examples[3] = examples[3]._replace(image=b"junk")
    for workers in (0, 2):
        batches = training_batches(examples, Images(size=(8, 6), workers=workers), 2, seed=0)
        with pytest.raises(UserError, match="image 3: cannot be read"):
            indices(batches, 3)


def test_scoring_keeps_order_pads_and_reports():
    examples = make(5)
    mask = np.zeros((8, 6), bool)
    mask[2:4] = True
    examples[1] = examples[1]._replace(label=1, mask=mask)
    examples[3] = examples[3]._replace(image=b"junk", label=1)
    batches = list(scoring_batches(examples, OPTIONS, 4))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, -1, -1, -1]]
    assert [batch.valid.tolist() for batch in batches] == [
        [True] * 3 + [False],
        [True] + [False] * 3,
    ]
    assert all(batch.image.shape == (4, 8, 6, 1) for batch in batches)
    np.testing.assert_array_equal(batches[0].mask[1], mask)
    assert not batches[0].mask[[0, 2, 3]].any()
    assert batches[0].label.tolist() == [0, 1, 0, 1]
    assert "image 3" in batches[0].problem[3] and batches[0].problem[:3] == ("", "", "")
    assert batches[1].problem == ("",) * 4


def test_wrong_mask_is_a_user_error():
    example = make(1)[0]._replace(mask=np.zeros((4, 4), bool))
    with pytest.raises(UserError, match=r"mask of image 0: mask is 4x4 and its image is 6x8"):
        list(scoring_batches([example], OPTIONS, 1))


def test_no_images_is_a_user_error():
    with pytest.raises(UserError, match="examples = 0"):
        training_batches([], OPTIONS, 1, seed=0)


def test_cache_changes_nothing(monkeypatch):
    cached = next(training_batches(make(6), OPTIONS, 6, seed=0))
    monkeypatch.setattr("sparse_ad.data.pipeline.CACHE_BYTES", 0)
    plain = next(training_batches(make(6), OPTIONS, 6, seed=0))
    np.testing.assert_array_equal(cached.image, plain.image)
