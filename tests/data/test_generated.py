"""Generated textures: determinism, exact masks, and no give-away beside the defect."""

import numpy as np
import pytest

from sparse_ad import data
from sparse_ad.data.sources.defects import DEFECTS
from sparse_ad.data.sources.generated import Generated, generate
from sparse_ad.data.sources.textures import TEXTURES


@pytest.mark.parametrize("category", TEXTURES)
def test_images_are_a_function_of_seed_and_name(category):
    few = data.load(Generated(category=category, count=(3, 1, 2)), seed=4)
    many = data.load(Generated(category=category, count=(5, 2, 7)), seed=4)
    images = {e.path: e.image for part in many[:3] for e in part}
    for example in (e for part in few[:3] for e in part):
        np.testing.assert_array_equal(example.image, images[example.path])
    assert len({image.tobytes() for image in images.values()}) == len(images) == 14
    other = data.load(Generated(category=category, count=(3, 1, 2)), seed=5)
    assert not (other.test[0].image == few.test[0].image).all()


def test_counts_kinds_and_masks():
    options = Generated(category="grid", count=(6, 4, 10), size=(64, 96))
    splits = data.load(options, seed=0)
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (5, 1, 14)
    assert {e.kind for e in splits.test} == {"good", *DEFECTS}
    for example in splits.test:
        assert example.image.shape == (64, 96, 3) and example.image.dtype == np.uint8
        assert (example.mask is not None) == bool(example.label)


@pytest.mark.parametrize("size", [(256, 256), (32, 48), (33, 200)])
@pytest.mark.parametrize("kind", DEFECTS)
def test_masks_cover_what_changed_and_no_more(kind, size):
    rng = np.random.default_rng(0)
    for category, texture in TEXTURES.items():
        before = texture(rng, size)
        after, mask = DEFECTS[kind](rng, before)
        changed = np.abs(after - before).max(-1)
        assert 0 < mask.mean() < 0.35, category
        assert changed[~mask].max() == 0, category
        assert (changed[mask] > 0.01).mean() > 0.8, category


@pytest.mark.parametrize("category", TEXTURES)
def test_nothing_global_gives_the_defect_away(category):
    """Outside of the masks, brightness and contrast overlap between normal and anomalous."""
    shape = (128, 128)
    good = [generate(category, "test", "good", index, shape, 0)[0] for index in range(12)]
    outside = [
        image[~mask]
        for image, mask in (
            generate(category, "test", kind, index, shape, 0)
            for kind in DEFECTS
            for index in range(3)
        )
    ]
    for statistic in (np.mean, np.std):
        normal, anomalous = (np.array([statistic(i) for i in part]) for part in (good, outside))
        spread = np.sqrt(normal.var() / len(normal) + anomalous.var() / len(anomalous))
        assert abs(normal.mean() - anomalous.mean()) < 4 * spread, statistic
