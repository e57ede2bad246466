"""Images held in memory: as bytes where that loses nothing, else as float32; None if too large."""

import jax
import numpy as np
import pytest
from helpers.made_up import noise

from sparse_ad.data.decode import decode
from sparse_ad.data.images import Images
from sparse_ad.data.resident import LEVELS, hold_images, to_float
from sparse_ad.errors import UserError
from sparse_ad.types import Example

SIZE = 24
OPTIONS = Images(size=(SIZE, SIZE))
EXAMPLES = [
    Example(noise(index, (SIZE, SIZE)), 0, "good", None, str(index), f"good/{index}.png")
    for index in range(11)
]


def test_bytes_are_held_as_bytes_and_lose_nothing():
    held = hold_images(EXAMPLES, OPTIONS, 11.0 * SIZE * SIZE)
    assert held.dtype == np.uint8
    decoded = np.stack([decode(example.image, (SIZE, SIZE), "grey") for example in EXAMPLES])
    np.testing.assert_array_equal(jax.jit(to_float)(held), decoded)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(jax.jit(to_float)(levels).ravel(), LEVELS)


@pytest.mark.parametrize("odd", [0, 4, 10])
def test_one_image_between_levels_makes_all_float(odd):
    examples = list(EXAMPLES)
    rng = np.random.default_rng(0)
    examples[odd] = examples[odd]._replace(image=rng.uniform(size=(30, 20)).astype(np.float32))
    held = hold_images(examples, OPTIONS, 1e9)
    assert held.dtype == np.float32
    decoded = np.stack([decode(example.image, (SIZE, SIZE), "grey") for example in examples])
    np.testing.assert_array_equal(held, decoded)
    assert hold_images(examples, OPTIONS, 44.0 * SIZE * SIZE) is not None
    assert hold_images(examples, OPTIONS, 44.0 * SIZE * SIZE - 1) is None


def test_an_unreadable_image_is_named():
    examples = [*EXAMPLES[:3], EXAMPLES[3]._replace(image=b"junk")]
    with pytest.raises(UserError, match=r"good/3\.png: cannot be read"):
        hold_images(examples, OPTIONS, 1e9)
