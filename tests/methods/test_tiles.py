"""Tiles: they cover the image, agree with the plain detector, and defects stay where they are."""

from functools import partial

import jax
import numpy as np
import pytest
from helpers.launching import toy_config
from helpers.networks import Counting, entries, network_config
from helpers.networks import thin as thin  # a fixture
from helpers.toy import mean_image
from ml_collections import ConfigDict

from configs.base import get_config
from sparse_ad import data, devices, methods, stages
from sparse_ad.errors import UserError
from sparse_ad.features.cache import cached
from sparse_ad.fitting import loop
from sparse_ad.methods.lifts.tiles import blend, starts, tiled, tiling
from sparse_ad.types import Explanation, Scores

KEY = jax.random.key(0)
SHAPE, TILE = (14, 20), (8, 8)
PATCHES = {"patch_size": 4, "stride": 2, "atoms": 6, "patches_per_image": 16}
SMALL = {  # and quick to compile
    "exemplar_coding": PATCHES,
    "mlf_sc": {"patch_size": 3, "stride": 1, "atoms": 3, "solver": "omp", "nonzeros": 2},
    "sparse_coding": PATCHES | {"minibatch": 16, "chunk": 16, "solver": "fista"},
}


def make_images(count, seed=0, shape=SHAPE, channels=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, *shape, channels)).astype(np.float32)


def cut(cuts, image):
    height, width = cuts.tile
    return np.stack([image[y : y + height, x : x + width] for y, x in cuts.places])


def small(name, shape=SHAPE, tile=(), **fields):
    config = get_config()
    config.data.size = shape
    config.method.update({"name": name, "tile": tile, **SMALL[name], **fields})
    return config


def begun(method, images):
    """Returns parameters after no step: quick to compile."""
    return method.finish(KEY, jax.jit(method.init)(KEY, method.features.extract(images)))


def fitted(method, images):
    """Returns parameters after one step."""
    maps = method.features.extract(images)
    state, _ = jax.jit(method.update)(KEY, jax.jit(method.init)(KEY, maps), maps)
    return method.finish(KEY, state)


def local():
    """A detector that sees the brightness of pixels, less the parameter."""

    def score(params, maps):
        brightness = maps["pixels"].mean(-1) - params
        largest = brightness.max((1, 2))
        info = {"least": brightness.min((1, 2)), "largest_gap": largest}
        return Scores(largest, brightness, info)

    def explain(params, maps):
        found = score(params, maps)
        errors = found.map.reshape(len(found.map), -1)
        channels = maps["pixels"].sum((1, 2))
        return {"pixels": Explanation(errors, found.map, channels)}

    def reconstruct(params, maps):
        return maps["pixels"] - params

    return mean_image()._replace(score=score, explain=explain, reconstruct=reconstruct)


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("length", "size", "overlap", "expected"),
    [
        (8, 8, 0.25, [0]),
        (9, 8, 0.25, [0, 1]),
        (14, 8, 0.25, [0, 6]),
        (15, 8, 0.25, [0, 3, 7]),
        (20, 8, 0.0, [0, 6, 12]),
        (17, 10, 0.7, [0, 2, 4, 7]),
        (3, 1, 0.5, [0, 1, 2]),  # one pixel cannot be shared
    ],
)
def test_places(length, size, overlap, expected):
    assert starts(length, size, overlap).tolist() == expected


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_tiles_cover_overlap_and_are_few(overlap):
    for size in (1, 2, 7, 10, 32):
        for length in range(size, 4 * size + 3):
            first = starts(length, size, overlap)
            assert first[0] == 0 and first[-1] == length - size
            steps = np.diff(first)
            most = max(1.0, size * (1 - overlap))
            assert (steps >= 1).all() and (steps <= most + 1e-9).all()
            assert len(steps) == 0 or steps.max() - steps.min() <= 1
            assert (len(steps) - 1) * np.floor(most + 1e-9) < length - size or len(steps) == 0


def test_places_are_row_by_row():
    places = tiling(SHAPE, TILE, 0.25).places
    assert places.tolist() == [[0, 0], [0, 6], [0, 12], [6, 0], [6, 6], [6, 12]]


def test_weights_by_hand():
    """Tiles of 4 at 0 and 2 weigh 1 2 2 1 each, to be shared where both are."""
    cuts = tiling((4, 6), (4, 4), 0.25)
    parts = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
    expected = np.tile([0, 0, 1 / 3, 2 / 3, 1, 1], (4, 1))
    np.testing.assert_allclose(blend(cuts, parts), expected, rtol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_blending_is_a_mean(overlap, channels):
    """A constant stays so; tiles that agree give back the image they were cut from."""
    cuts = tiling((13, 20), (7, 8), overlap)
    assert (cuts.rows > 0).all() and (cuts.columns > 0).all()
    image = np.random.default_rng(0).normal(size=(13, 20, *channels)).astype(np.float32)
    for expected in (np.full_like(image, 3.0), image):
        found = blend(cuts, cut(cuts, expected))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # of 100 float32 terms


def test_one_tile_is_the_plain_detector():
    images = make_images(8, shape=TILE)
    plain, whole = (methods.build(small("mlf_sc", TILE, tile)) for tile in ((), TILE))
    assert whole.score is not plain.score
    params = begun(plain, images)
    assert_same_bits(begun(whole, images), params)
    for detector, lifted, known in (
        (plain, whole, params),
        (local(), tiled(local(), TILE, TILE, 0.25), 0.1),
    ):
        for part in ("score", "reconstruct", "explain"):
            function, other = getattr(detector, part), getattr(lifted, part)
            assert (function is None) == (other is None)
            if function:
                expected = jax.jit(function)(known, detector.features.extract(images))
                assert_same_bits(jax.jit(other)(known, lifted.features.extract(images)), expected)


def test_the_largest_score_of_all_tiles_and_their_maps():
    """Equal to the detector of tiles, applied to each of them."""
    images = make_images(3, 1)
    method = methods.build(small("exemplar_coding", SHAPE, TILE))
    inner = methods.build(small("exemplar_coding", TILE))
    cuts = tiling(SHAPE, TILE, 0.25)
    tiles = [cut(cuts, image) for image in images]
    params = fitted(method, images)
    assert_same_bits(params, fitted(inner, np.concatenate(tiles)))  # it saw tiles as images
    found = jax.jit(method.score)(params, method.features.extract(images))
    assert found.map.shape == (3, *SHAPE) and found.image.shape == (3,)
    score = jax.jit(inner.score)
    mix = jax.jit(partial(blend, cuts))
    for row in range(3):
        expected = score(params, inner.features.extract(tiles[row]))
        np.testing.assert_array_equal(found.image[row], expected.image.max())
        np.testing.assert_allclose(found.map[row], mix(expected.map), rtol=1e-5)


def test_diagnostics_and_explanation():
    method = tiled(local(), SHAPE, TILE, 0.25)
    images = make_images(2, 3, channels=3) * 0.1
    images[0, 10, 16] = 0.9, 0.0, 0.3  # in the last tile alone
    maps = method.features.extract(images)
    found = jax.jit(method.score)(0.0, maps)
    brightness = images.mean(-1)
    np.testing.assert_allclose(found.image, brightness.max((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.info["largest_gap"], brightness.max((1, 2)), rtol=1e-6)
    cuts = tiling(SHAPE, TILE, 0.25)
    tiles = cut(cuts, images[0])
    np.testing.assert_allclose(found.info["least"][0], tiles.mean(-1).min((1, 2)).mean(), rtol=1e-5)
    told = jax.jit(method.explain)(0.0, maps)["pixels"]
    np.testing.assert_allclose(told.errors[0], tiles.mean(-1).ravel(), rtol=1e-6)
    np.testing.assert_allclose(told.map, found.map, rtol=1e-6)
    np.testing.assert_allclose(told.channels[0], tiles[-1].sum((0, 1)), rtol=1e-5)
    shown = jax.jit(method.reconstruct)(0.5, maps)
    np.testing.assert_allclose(shown, images - 0.5, rtol=1e-5, atol=1e-6)
    assert method.atoms is not None


def test_what_a_detector_lacks_is_not_made_up():
    plain = mean_image()._replace(reconstruct=None, atoms=None)
    method = tiled(plain, SHAPE, TILE, 0.25)
    assert method.explain is None and method.reconstruct is None and method.atoms is None


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_a_defect_is_seen_where_it_is(overlap):
    """At every pixel: inside a tile, where tiles overlap, at the border of tile and image."""
    method = tiled(local(), SHAPE, TILE, overlap)
    images = np.eye(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(-1, *SHAPE, 1)
    found = jax.jit(method.score)(0.0, method.features.extract(images))
    np.testing.assert_allclose(found.map, images[..., 0], atol=1e-6)
    np.testing.assert_array_equal(found.image, 1.0)


def test_same_bits_in_any_batch():
    images = make_images(8, 1)
    method = methods.build(small("sparse_coding", SHAPE, TILE))
    extract, score = method.features.extract, jax.jit(method.score)
    params = begun(method, images)
    together = score(params, extract(images))
    for place in (0, 5):
        alone = score(params, extract(images[place : place + 1]))
        assert_same_bits(alone, jax.tree.map(lambda leaf, at=place: leaf[at : at + 1], together))
    mixed = np.concatenate([images[:3], make_images(5, 2)])
    assert_same_bits(score(params, extract(mixed)).image[:3], together.image[:3])
    assert devices.mesh().size == 8
    apart = stages.scoring(method)(devices.replicate(params), images)
    assert len(apart.image.sharding.device_set) == 8
    assert_same_bits(apart, together)


def test_features_are_computed_for_as_many_tiles_as_images_at_a_time(tmp_path):
    inner = Counting()
    method = tiled(mean_image()._replace(features=inner.features), SHAPE, TILE, 0.25)
    images = make_images(16, channels=3)
    maps = method.features.extract(images)
    assert inner.calls == [16] * 6
    cuts = tiling(SHAPE, TILE, 0.25)
    for row in (0, 15):
        expected = Counting().extract(cut(cuts, images[row]))
        assert_same_bits(jax.tree.map(lambda leaf, at=row: leaf[at], maps), expected)
    kept = cached(Counting().features, tmp_path / "a", 1e9)
    lifted = tiled(mean_image()._replace(features=kept), SHAPE, TILE, 0.25)
    assert_same_bits(lifted.features.extract(images), maps)
    assert len(entries(tmp_path)) == 16 * 6  # one a tile
    assert lifted.features.identity != kept.identity


def test_a_network_sees_tiles(thin, tmp_path):
    """The whole fit, on cached features of tiles, ends as the one that computes them anew."""
    config = toy_config(tmp_path)
    config.data.update(size=(24, 24), color="rgb")
    config.features = ConfigDict(network_config(layers=("relu2_1",)).features)
    config.features.fuse = True
    config.method.update({"name": "exemplar_coding", "tile": (16, 16)} | SMALL["exemplar_coding"])
    splits = data.load(config.data, 0)
    method = methods.build(config)
    loop.state_like(method, config)
    params, record = loop.fit(method, config, splits.train, tmp_path / "plain")
    assert record["steps"] == 3
    config.features.cache_gb = 1.0
    kept = methods.build(config)
    loop.state_like(kept, config)
    assert_same_bits(loop.fit(kept, config, splits.train, tmp_path / "kept")[0], params)
    assert len(entries(thin)) == 4 * len(splits.train)
    assert_same_bits(loop.load(kept, config, tmp_path / "kept", splits.train), params)


def test_a_whole_run(tmp_path):
    config = toy_config(tmp_path)
    config.data.size = SHAPE
    config.method.update({"name": "exemplar_coding", "tile": TILE} | SMALL["exemplar_coding"])
    stages.run(config, tmp_path / "work")
    assert (tmp_path / "work" / "results.json").exists()
    assert (tmp_path / "work" / "report.html").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tile": (16, 8)}, r"method.tile = \(16, 8\): exceeds the images, 14 x 20; make it sm"),
        ({"tile": (8, 21)}, r"method.tile = \(8, 21\): exceeds"),
        ({"tile": (8,)}, r"method.tile = \(8,\): give \(height, width\)"),
        ({"tile": (0, 8)}, r"method.tile = \(0, 8\): give \(height, width\)"),
        ({"tile": (8, 8.5)}, r"method.tile = \(8, 8.5\): give \(height, width\)"),
        ({"tile": TILE, "tile_overlap": 0.95}, "method.tile_overlap = 0.95: give a share from 0 "),
        ({"tile": TILE, "tile_overlap": -0.1}, "method.tile_overlap = -0.1"),
        ({"tile": TILE, "tile_overlap": float("nan")}, "method.tile_overlap = nan"),
        ({"tile": TILE, "patch_size": 9}, "method.patch_size = 9: exceeds the image side of 8"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    config = small("sparse_coding", **fields)
    with pytest.raises(UserError, match=message):
        method = methods.build(config)
        config.fit.batch_size = 8
        loop.state_like(method, config)
