"""Detectors on arrays: the same as a run from a config, and mistakes in one line."""

import jax
import numpy as np
import pytest
from helpers.images import stripes, with_defects
from helpers.launching import LearningToy, changed, toy_experiment

import sparse_ad
from sparse_ad.data import load
from sparse_ad.data.decode import decode
from sparse_ad.errors import UserError
from sparse_ad.fitting import loop
from sparse_ad.methods import METHODS
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.methods.pca import Pca

SIDE = 16


def test_defects_score_higher_and_scores_do_not_see_other_images():
    method = sparse_ad.build(Pca(side=8, components=6), shape=(SIDE, SIDE, 1))
    params = sparse_ad.fit(method, stripes(20, 0, size=SIDE), epochs=2, batch_size=8)
    normal = stripes(11, 1, size=SIDE)
    good = sparse_ad.score(method, params, normal)
    bad = sparse_ad.score(method, params, with_defects(normal))
    assert good.image.shape == (11,) and good.map.shape == (11, SIDE, SIDE)
    assert bad.image.min() > good.image.max()
    alone = sparse_ad.score(method, params, normal[3:4])
    np.testing.assert_array_equal(alone.image[0], good.image[3])
    np.testing.assert_array_equal(alone.map[0], good.map[3])


def test_tiles_of_large_images():
    tiles = Tiles((SIDE, SIDE), 0.25)
    method = sparse_ad.build(Pca(side=8, components=6), (40, 24, 1), tiles=tiles)
    images = np.concatenate([stripes(8, seed, size=40) for seed in (0, 1)])[:, :, :24]
    params = sparse_ad.fit(method, images, epochs=1, batch_size=8)
    assert sparse_ad.score(method, params, images[:3]).map.shape == (3, 40, 24)


def test_a_fit_is_that_of_a_run(tmp_path, monkeypatch):
    """Batch for batch and draw for draw; another program, so to the rounding of float32."""
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    experiment = changed(toy_experiment(tmp_path), seed=3, fit__batch_size=64)
    splits = load(experiment.data, experiment.seed)
    method = experiment.build()
    params, _ = loop.fit(experiment.setup(method), splits.train, tmp_path / "work")
    size = experiment.data.size
    images = np.stack([decode(each.image, size, "grey") for each in splits.train])
    found = sparse_ad.fit(method, images, epochs=experiment.fit.epochs, batch_size=64, seed=3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, params)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, SIDE, SIDE), np.float32), r"float32 \(4, 16, 16\): give floats \[n h w c\]"),
        (np.zeros((4, SIDE, SIDE, 1), np.uint8), "uint8"),
        (np.zeros((0, SIDE, SIDE, 1), np.float32), "give floats"),
        (np.full((8, SIDE, SIDE, 1), 255.0), "from 255 to 255: divide"),
        (np.full((8, SIDE, SIDE, 1), np.nan), "from nan to nan"),
    ],
)
def test_images_that_are_none(images, message):
    method = sparse_ad.build(Pca(side=8, components=6), shape=(SIDE, SIDE, 1))
    with pytest.raises(UserError, match=message):
        sparse_ad.fit(method, images)


def test_a_batch_that_the_devices_cannot_share():
    method = sparse_ad.build(Pca(side=8, components=6), shape=(SIDE, SIDE, 1))
    with pytest.raises(UserError, match=r"batch_size = 12: is not divisible by the 8 devices"):
        sparse_ad.fit(method, stripes(20, 0, size=SIDE), batch_size=12)


def test_what_the_package_offers():
    assert set(sparse_ad.__all__) == {"Predictor", "__version__", "build", "fit", "score"}
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = sparse_ad.predict
