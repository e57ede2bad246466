"""Tiles: they cover the image, agree with the plain detector, and defects stay where they are."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import toy_experiment
from helpers.networks import Counting, entries, thin_network
from helpers.networks import thin as thin  # a fixture
from helpers.toy import mean_image

from sparse_ad import data, devices, methods, stages
from sparse_ad.batching import batched
from sparse_ad.errors import FieldError
from sparse_ad.features.cache import cached
from sparse_ad.fitting import loop
from sparse_ad.methods.compiled import compile_score
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.methods.lifts.tiles import Tiles, blend, starts, tiled, tiling
from sparse_ad.methods.mlf_sc import MlfSc
from sparse_ad.methods.sparse_coding import SparseCoding
from sparse_ad.patches import ChannelPatches, Patches
from sparse_ad.sparse.channels import ChannelOmp
from sparse_ad.sparse.coder import LassoCoder
from sparse_ad.types import PIXELS, Diagnostics, Explanation, Scores, Views

KEY = jax.random.key(0)
SHAPE, SIZE = (14, 20), (8, 8)
TILES = Tiles(SIZE)
PATCHES = Patches(size=4, stride=2, per_image=16)
EXEMPLARS = ExemplarCoding(PATCHES, atoms=(6,))
# Quick to compile.
SPARSE = SparseCoding(PATCHES, coder=LassoCoder("fista", chunk=16), atoms=6, minibatch=16)
MLF_SC = MlfSc(ChannelPatches(size=3, stride=1), ChannelOmp(nonzeros=2), atoms=3)


def make_images(count, seed=0, shape=SHAPE, channels=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, *shape, channels)).astype(np.float32)


def cut(cuts, image):
    height, width = cuts.tile
    return np.stack([image[y : y + height, x : x + width] for y, x in cuts.corners])


def build(options, shape=SHAPE, tiles=None):
    return methods.build(options, PIXELS, (*shape, 1), tiles or Tiles())


def begun(method, images):
    """Returns parameters after no step: quick to compile."""
    return method.finish(KEY, jax.jit(method.init)(KEY, method.features.extract(images)))


def fitted(method, images):
    """Returns parameters after one step."""
    maps = method.features.extract(images)
    state, _ = jax.jit(method.update)(KEY, jax.jit(method.init)(KEY, maps), maps)
    return method.finish(KEY, state)


def apply(method, function, params, images):
    """Returns function(params, maps of one image) of all images."""
    loop_of = jax.jit(batched(function, method.together))
    return loop_of(params, method.features.extract(images))


def local():
    """A detector that sees the brightness of pixels, less the parameter."""

    def score(params, maps):
        brightness = maps["pixels"].mean(-1) - params
        info = Diagnostics({"least": brightness.min()}, {"pixel": brightness.max()})
        return Scores(brightness.max(), brightness, info)

    def explain(params, maps):
        brightness = score(params, maps).map
        channels = maps["pixels"].sum((0, 1))
        return {"pixels": Explanation(brightness.ravel(), brightness, channels)}

    views = Views(
        reconstruct=lambda params, maps: maps["pixels"] - params,
        atoms=lambda params: jnp.ones((2, 3, 3, 1)),
        explain=explain,
        latent=lambda params, maps: maps["pixels"][0, :2, 0],
    )
    return mean_image()._replace(score=score, views=views)


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
def test_where_tiles_start(length, size, overlap, expected):
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


def test_corners_are_row_by_row():
    corners = tiling(SHAPE, TILES).corners
    assert corners.tolist() == [[0, 0], [0, 6], [0, 12], [6, 0], [6, 6], [6, 12]]


def test_weights_by_hand():
    """Tiles of 4 at 0 and 2 weigh 1 2 2 1 each, to be shared where both are."""
    cuts = tiling((4, 6), Tiles((4, 4)))
    parts = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
    expected = np.tile([0, 0, 1 / 3, 2 / 3, 1, 1], (4, 1))
    np.testing.assert_allclose(blend(cuts, jnp.asarray(parts)), expected, rtol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_blending_is_a_mean(overlap, channels):
    """A constant stays so; tiles that agree give back the image they were cut from."""
    cuts = tiling((13, 20), Tiles((7, 8), overlap))
    assert (cuts.rows > 0).all() and (cuts.columns > 0).all()
    image = np.random.default_rng(0).normal(size=(13, 20, *channels)).astype(np.float32)
    for expected in (np.full_like(image, 3.0), image):
        blended = blend(cuts, jnp.asarray(cut(cuts, expected)))
        np.testing.assert_allclose(blended, expected, rtol=1e-5, atol=1e-6)  # of 100 float32 terms


@pytest.mark.slow
def test_one_tile_is_the_plain_detector():
    images = make_images(8, shape=SIZE)
    plain, whole = build(MLF_SC, SIZE), build(MLF_SC, SIZE, TILES)
    assert whole.score is not plain.score
    params = begun(plain, images)
    assert_same_bits(begun(whole, images), params)
    for detector, lifted, known in (
        (plain, whole, params),
        (local(), tiled(local(), SIZE, TILES), jnp.float32(0.1)),
    ):
        views = zip(detector.views, lifted.views, strict=True)
        parts = [(detector.score, lifted.score), *views]
        for function, other in parts:
            assert (function is None) == (other is None)
            if function and function is not detector.views.atoms:
                expected = apply(detector, function, known, images)
                assert_same_bits(apply(lifted, other, known, images), expected)


@pytest.mark.slow
def test_the_largest_score_of_all_tiles_and_their_maps():
    """Equal to the detector of tiles, applied to each of them."""
    images = make_images(3, 1)
    method, inner = build(EXEMPLARS, SHAPE, TILES), build(EXEMPLARS, SIZE)
    cuts = tiling(SHAPE, TILES)
    tiles = [cut(cuts, image) for image in images]
    params = fitted(method, images)
    assert_same_bits(params, fitted(inner, np.concatenate(tiles)))  # it saw tiles as images
    scores = apply(method, method.score, params, images)
    assert scores.map.shape == (3, *SHAPE) and scores.image.shape == (3,)
    mix = jax.jit(partial(blend, cuts))
    for row in range(3):
        expected = apply(inner, inner.score, params, tiles[row])
        np.testing.assert_array_equal(scores.image[row], expected.image.max())
        np.testing.assert_allclose(scores.map[row], mix(expected.map), rtol=1e-5)


@pytest.mark.slow
def test_diagnostics_and_views():
    method = tiled(local(), SHAPE, TILES)
    images = make_images(2, 3, channels=3) * np.float32(0.1)
    images[0, 10, 16] = 0.9, 0.0, 0.3  # in the last tile alone
    zero = jnp.float32(0.0)
    scores = apply(method, method.score, zero, images)
    brightness = images.mean(-1)
    np.testing.assert_allclose(scores.image, brightness.max((1, 2)), rtol=1e-6)
    assert scores.info.mean.keys() == {"least"} and scores.info.largest.keys() == {"pixel"}
    np.testing.assert_allclose(scores.info.largest["pixel"], brightness.max((1, 2)), rtol=1e-6)
    tiles = cut(tiling(SHAPE, TILES), images[0])
    least = tiles.mean(-1).min((1, 2)).mean()
    np.testing.assert_allclose(scores.info.mean["least"][0], least, rtol=1e-5)
    layer = apply(method, method.views.explain, zero, images)["pixels"]
    np.testing.assert_allclose(layer.errors[0], tiles.mean(-1).ravel(), rtol=1e-6)
    np.testing.assert_allclose(layer.map, scores.map, rtol=1e-6)
    np.testing.assert_allclose(layer.channels[0], tiles[-1].sum((0, 1)), rtol=1e-5)
    shown = apply(method, method.views.reconstruct, jnp.float32(0.5), images)
    np.testing.assert_allclose(shown, images - 0.5, rtol=1e-5, atol=1e-6)
    latents = apply(method, method.views.latent, zero, images)
    np.testing.assert_array_equal(latents[0], tiles[:, 0, :2, 0].ravel())
    assert method.views.atoms(zero).shape == (2, 3, 3, 1)


def test_what_a_detector_lacks_is_not_made_up():
    method = tiled(mean_image()._replace(views=Views()), SHAPE, TILES)
    assert method.views == Views()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_a_defect_is_seen_where_it_is(overlap):
    """At every pixel: inside a tile, where tiles overlap, at the border of tile and image."""
    method = tiled(local(), SHAPE, Tiles(SIZE, overlap))
    images = np.eye(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(-1, *SHAPE, 1)
    scores = apply(method, method.score, jnp.float32(0.0), images)
    np.testing.assert_allclose(scores.map, images[..., 0], atol=1e-6)
    np.testing.assert_array_equal(scores.image, 1.0)


@pytest.mark.slow
def test_same_bits_in_any_batch():
    images = make_images(8, 1)
    method = build(SPARSE, SHAPE, TILES)
    extract, score = method.features.extract, jax.jit(batched(method.score, method.together))
    params = begun(method, images)
    together = score(params, extract(images))
    for row in (0, 5):
        alone = score(params, extract(images[row : row + 1]))
        assert_same_bits(alone, jax.tree.map(lambda leaf, at=row: leaf[at : at + 1], together))
    mixed = np.concatenate([images[:3], make_images(5, 2)])
    assert_same_bits(score(params, extract(mixed)).image[:3], together.image[:3])
    assert devices.mesh().size == 8
    spread = compile_score(method)(devices.replicate(params), images)
    assert len(spread.image.sharding.device_set) == 8
    assert_same_bits(spread, together)


def test_features_are_computed_for_as_many_tiles_as_images_at_a_time(tmp_path):
    inner = Counting()
    method = tiled(mean_image()._replace(features=inner.features), SHAPE, TILES)
    images = make_images(16, channels=3)
    maps = method.features.extract(images)
    assert inner.calls == [16] * 6
    cuts = tiling(SHAPE, TILES)
    for row in (0, 15):
        expected = Counting().extract(cut(cuts, images[row]))
        assert_same_bits(jax.tree.map(lambda leaf, at=row: leaf[at], maps), expected)
    kept = cached(Counting().features, tmp_path / "a", 1e9)
    lifted = tiled(mean_image()._replace(features=kept), SHAPE, TILES)
    assert_same_bits(lifted.features.extract(images), maps)
    assert len(entries(tmp_path)) == 16 * 6  # one a tile
    assert lifted.features.identity != kept.identity


@pytest.mark.slow
def test_a_network_sees_tiles(thin, tmp_path):
    """The whole fit, on cached features of tiles, ends as the one that computes them again."""
    experiment = toy_experiment(tmp_path)
    images = replace(experiment.data, size=(24, 24), color="rgb")
    options = {"data": images, "tiles": Tiles((16, 16)), "method": EXEMPLARS}
    results = []
    for gigabytes in (0.0, 1.0):
        features = thin_network(layers=("relu2_1",), fuse=True, cache_gb=gigabytes)
        run = replace(experiment, features=features, **options)
        setup = run.setup(run.build())
        setup.state_like()
        splits = data.load(run.data, 0)
        params, record = loop.fit(setup, splits.train, tmp_path / str(gigabytes))
        assert record.steps == 3
        results.append(params)
    assert_same_bits(*results)
    assert len(entries(thin)) == 4 * len(splits.train)
    assert_same_bits(loop.load(setup, tmp_path / "1.0", splits.train), results[0])


@pytest.mark.slow
def test_a_whole_run(tmp_path):
    experiment = toy_experiment(tmp_path)
    images = replace(experiment.data, size=SHAPE)
    run = replace(experiment, data=images, tiles=TILES, method=EXEMPLARS)
    stages.run(run, tmp_path / "work")
    assert (tmp_path / "work" / "results.json").exists()
    assert (tmp_path / "work" / "report.html").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (8,)}, r"size = \(8,\): give \(height, width\)"),
        ({"size": (0, 8)}, r"size = \(0, 8\): give \(height, width\)"),
        ({"size": SIZE, "overlap": 0.95}, "overlap = 0.95: give a fraction from 0 to 0.9"),
        ({"size": SIZE, "overlap": -0.1}, "overlap = -0.1"),
        ({"size": SIZE, "overlap": float("nan")}, "overlap = nan"),
    ],
)
def test_wrong_options_are_named(fields, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        Tiles(**fields)


@pytest.mark.parametrize("size", [(16, 8), (8, 21)])
def test_tiles_must_fit(size):
    message = rf"^size = \({size[0]}, {size[1]}\): exceeds the images, 14 x 20; make it smaller"
    with pytest.raises(FieldError, match=message):
        Tiles(size).part((*SHAPE, 1))


def test_the_detector_must_fit_the_tiles():
    options = replace(SPARSE, patches=Patches(size=9))
    with pytest.raises(FieldError, match=r"^patches\.size = 9: exceeds the image side of 8"):
        build(options, SHAPE, TILES)


def test_the_part_of_an_image():
    assert Tiles().part((*SHAPE, 3)) == (*SHAPE, 3)
    assert TILES.part((*SHAPE, 3)) == (*SIZE, 3)
