"""Planted defects: reproducible, where their masks say, and as faint as they are said to be."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from sparse_ad.data.planted import DRAWS, FAINT, KINDS, STRONG, plant

SEEDS = range(6)
ADDED = {
    "scratch": STRONG,
    "spot": STRONG,
    "stain": FAINT,
    "shade": FAINT,
}  # kinds that add brightness
VISIBLE = 1 / 255


@cache
def texture(height=64, width=64, channels=1, scale=1.0) -> np.ndarray:
    """A weave with noise, about mid-grey."""
    rng = np.random.default_rng(3)
    rows, columns, _ = np.mgrid[:height, :width, :channels]
    weave = 0.08 * (np.sin(0.7 * rows) + np.sin(0.9 * columns))
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width, channels)), (1, 1, 0))
    image = (0.5 + scale * (weave + 0.05 * noise)).astype(np.float32)
    image.setflags(write=False)
    return image


SHAPES = {"square": (64, 64, 1), "colour": (64, 64, 3), "wide": (40, 96, 1), "small": (32, 32, 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_defect(kind):
    image = texture()
    (one, mask), (same, again) = (plant(image, kind, (1, 2)) for _ in range(2))
    assert_array_equal(one, same)
    assert_array_equal(mask, again)
    for seed in ((1, 3), (2, 2), (2, 1)):
        assert (plant(image, kind, seed)[0] != one).any()


def test_kinds_differ():
    found = [plant(texture(), kind, (0,))[0] for kind in KINDS]
    assert len({each.tobytes() for each in found}) == len(KINDS)


SOFT = {"bent": 16, "shade": 40}  # pixels of outline beyond the mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_mask_says_where(kind, shape):
    image = texture(*shape)
    for seed in SEEDS:
        planted, mask = plant(image, kind, (seed,))
        assert (planted.shape, planted.dtype) == (image.shape, np.float32)
        assert (mask.shape, mask.dtype) == (image.shape[:2], np.bool_)
        assert planted.min() >= 0 and planted.max() <= 1
        change = np.abs(planted - image).max(-1)
        assert change[mask].max() >= VISIBLE
        assert 0 < mask.sum() < (0.8 if kind == "shade" else 0.5) * mask.size
        assert change[mask].sum() > 0.6 * change.sum()
        # Beyond a few pixels of its soft outline an image is as it was.
        far = ~ndimage.binary_dilation(mask, iterations=SOFT.get(kind, 5))
        assert_array_equal(planted[far], image[far])


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_no_weight_keep_their_bits(kind):
    image = texture(48, 64, 3)
    for seed in SEEDS:
        found, weight = KINDS[kind](np.random.default_rng(seed), image)
        assert weight.shape == (48, 64) and weight.min() >= 0 and 0.25 <= weight.max() <= 1
        untouched = weight == 0
        assert untouched.any() or kind == "shade"
        assert_array_equal(found[untouched], image[untouched])


@pytest.mark.parametrize("kind", [kind for kind in ADDED if kind != "shade"])
def test_contrast_is_in_units_of_the_image(kind):
    """The same defect on a texture of a quarter of the contrast is a quarter as strong."""
    loud, quiet = texture(scale=1.0), texture(scale=0.25)
    assert_allclose(loud.std(), 4 * quiet.std(), rtol=1e-3)
    low, high = ADDED[kind]
    for seed in SEEDS:
        (one, weight), (other, same) = (
            KINDS[kind](np.random.default_rng(seed), image) for image in (loud, quiet)
        )
        assert_array_equal(weight, same)
        assert_allclose(one - loud, 4 * (other - quiet), atol=1e-5)
        if kind != "stain":  # whose brightness is mottled
            strength = np.abs(one - loud).max() / weight.max() / loud.std()
            assert 0.99 * low < strength < 1.01 * high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_images(kind, level):
    """What adds brightness is seen on them, at black and white, too; the others change nothing."""
    image = np.full((32, 48, 1), level, np.float32)
    planted, mask = plant(image, kind, (0,))
    assert np.isfinite(planted).all() and 0 < mask.sum() < mask.size
    if kind in ADDED:
        change = np.abs(planted - image)
        assert change.max() >= VISIBLE
    else:
        assert_allclose(planted, image, atol=1e-6)


def test_a_defect_that_is_not_seen_is_drawn_again(monkeypatch):
    """As often as it takes, but for so many times."""
    seen = []

    def third(rng, image):
        seen.append(rng.random())
        return image + np.float32(len(seen) >= 3), np.ones(image.shape[:2], np.float32)

    monkeypatch.setitem(KINDS, "spot", third)
    planted, _ = plant(texture(), "spot", (0,))
    assert len(seen) == 3 and planted.min() == 1.0
    never = lambda rng, image: seen.append(0) or (image, np.ones(image.shape[:2]))  # noqa: E731
    monkeypatch.setitem(KINDS, "spot", never)
    plant(texture(), "spot", (0,))
    assert len(seen) == 3 + DRAWS + 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 200, 1), (200, 9, 3)])
def test_tiny_and_narrow_images(shape):
    for kind in KINDS:
        planted, mask = plant(texture(*shape), kind, (0,))
        assert planted.shape == shape and mask.any()
