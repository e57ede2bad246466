"""Calibrated detectors: errors in units of normal ones, on one grid, on several, and in tiles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from helpers.toy import ToyDetector, mean_image

from sparse_ad.methods.compiled import compile_score
from sparse_ad.methods.lifts.calibrated import Calibrated, NormalErrors, calibrated
from sparse_ad.methods.lifts.grid import ONE, count_positions, one_map, score_kept_errors
from sparse_ad.methods.lifts.tiles import Tiles, tiled, tiling
from sparse_ad.patches import ChannelPatches, Pool, image_map, pool
from sparse_ad.types import NO_DIAGNOSTICS, PIXELS, ErrorGrid, Explanation, Views

SHAPE, SIZE = (14, 20), (8, 8)
PIXEL = ToyDetector(pool=Pool("max"))  # its errors are those of pixels


def make_images(count, shape, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, *shape, 1)).astype(np.float32)


def make_normal(shape, seed=1):
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0.1, 1.0, (2, *shape)).astype(np.float32)
    return NormalErrors({ONE: mean}, {ONE: std})


def test_scores_are_those_of_errors_in_units():
    method = PIXEL.build(PIXELS, (*SIZE, 1))
    params, normal = jnp.full((*SIZE, 1), 0.5), make_normal(SIZE)
    images = make_images(8, SIZE)
    scores = compile_score(calibrated(method, method.grid))(Calibrated(params, normal), images)
    expected = ((images[..., 0] - 0.5) ** 2 - normal.mean[ONE]) / normal.std[ONE]
    np.testing.assert_allclose(scores.map, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.image, expected.max((1, 2)), rtol=1e-4)
    ignored = np.zeros((8, *SIZE), bool)
    ignored[:, 2:5] = True
    kept = compile_score(calibrated(method, method.grid))(
        Calibrated(params, normal), images, ignored
    )
    there = np.where(ignored, -np.inf, expected)
    np.testing.assert_allclose(kept.image, there.max((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(kept.map, np.where(ignored, 0, expected), rtol=1e-4, atol=1e-5)


def test_views_are_those_of_the_detector():
    zero, normal = {"mean": jnp.zeros((*SIZE, 1))}, make_normal(SIZE)
    errors = {ONE: jnp.full(SIZE, 2.0)}

    def measure(params, maps):
        return errors, NO_DIAGNOSTICS

    grid = ErrorGrid(measure, lambda errors: errors[ONE].max(), lambda errors: errors[ONE])
    plain = Explanation(errors[ONE].ravel(), errors[ONE], jnp.ones(1))
    views = mean_image().views._replace(explain=lambda params, maps: {ONE: plain})
    method = calibrated(mean_image()._replace(views=views), grid)
    params, maps = Calibrated(zero, normal), {"pixels": jnp.ones((*SIZE, 1))}
    shown = method.views
    np.testing.assert_array_equal(shown.reconstruct(params, maps), zero["mean"])
    np.testing.assert_array_equal(shown.atoms(params)[1], 1.0)
    assert shown.latent is None
    for part, expected in zip(shown.normal(params), normal, strict=True):
        np.testing.assert_array_equal(part, expected[ONE])
    layer, z = shown.explain(params, maps)[ONE], (2.0 - normal.mean[ONE]) / normal.std[ONE]
    np.testing.assert_allclose(layer.map, z, rtol=1e-5)
    np.testing.assert_allclose(layer.errors, z.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(layer.channels, plain.channels)
    assert calibrated(method._replace(views=Views()), grid).views._replace(normal=None) == Views()


def whole_of_tiles(overlap=0.25):
    method = PIXEL.build(PIXELS, (*SIZE, 1))
    tiles = Tiles(SIZE, overlap)
    return tiled(method, SHAPE, tiles), tiling(SHAPE, tiles)


def cut(cuts, image):
    height, width = cuts.tile
    return np.stack([image[y : y + height, x : x + width] for y, x in cuts.corners])


def test_tiles_have_the_units_of_their_place_in_the_whole_image():
    method, cuts = whole_of_tiles()
    images, params = make_images(8, SHAPE), jnp.full((*SIZE, 1), 0.5)
    plain = compile_score(method)(params, images)
    tiles = np.stack([cut(cuts, (image[..., 0] - 0.5) ** 2) for image in images])
    np.testing.assert_allclose(plain.image, tiles.max((1, 2, 3)), rtol=1e-5)
    normal = make_normal(tiles.shape[1:])
    scores = compile_score(calibrated(method, method.grid))(Calibrated(params, normal), images)
    in_units = (tiles - normal.mean[ONE]) / normal.std[ONE]
    np.testing.assert_allclose(scores.image, in_units.max((1, 2, 3)), rtol=1e-4)
    assert scores.map.shape == (8, *SHAPE)
    once = np.s_[:, :6, :6]  # covered by the first tile alone
    np.testing.assert_allclose(scores.map[once], in_units[:, 0][once], rtol=1e-4, atol=1e-5)


def test_ignored_pixels_in_tiles():
    """A tile without anything that counts has no say; without any tile there is no score."""
    method, cuts = whole_of_tiles()
    images, params = make_images(8, SHAPE), jnp.full((*SIZE, 1), 0.5)
    ignored = np.zeros((8, *SHAPE), bool)
    ignored[1:, :, :12] = True
    ignored[7] = True
    scores = compile_score(method)(params, images, ignored)
    errors = (images[..., 0] - 0.5) ** 2
    expected = np.where(ignored, -np.inf, errors).max((1, 2))
    np.testing.assert_allclose(scores.image[:7], expected[:7], rtol=1e-4)
    assert np.isnan(scores.image[7]) and not np.asarray(scores.map[7]).any()
    shown = np.where(ignored, 0, errors)
    np.testing.assert_allclose(scores.map, shown, rtol=1e-4, atol=1e-5)
    counted = jax.jit(partial(count_positions, method.grid))(
        {ONE: jnp.zeros((len(cuts.corners), *SIZE))}, jnp.asarray(ignored[1])
    )
    np.testing.assert_array_equal(counted[ONE], cut(cuts, ~ignored[1]))


def test_layers_that_add_up_keep_their_sum_beside_ignored_pixels():
    """Errors of 1 and of 2, on grids of which the coarse one counts in fewer places."""
    fine = partial(
        image_map, patches=ChannelPatches(1, 1), map_shape=(16, 16), shape=(16, 16), border=0
    )
    coarse = partial(
        image_map, patches=ChannelPatches(4, 2), map_shape=(16, 16), shape=(16, 16), border=0
    )
    errors = {"fine": jnp.full((16, 16), 2.0), "coarse": jnp.full((7, 7), 2.0)}

    def pool_both(errors, counted):
        return sum(
            pool(Pool("max"), errors[name].ravel(), counted[name].ravel()) for name in errors
        )

    def draw(errors):
        return fine(errors["fine"]) + coarse(errors["coarse"])

    grid = ErrorGrid(lambda params, maps: errors, pool_both, draw)
    ignored = jnp.zeros((16, 16), bool).at[:, :9].set(True)
    scores = jax.jit(partial(score_kept_errors, grid))(errors, ignored)
    np.testing.assert_allclose(scores.image, 4.0)
    np.testing.assert_allclose(scores.map, np.where(ignored, 0.0, 4.0), rtol=1e-5)


def test_one_map_by_its_functions():

    def measure(params, maps):
        return maps["pixels"][..., 0] - params, NO_DIAGNOSTICS

    grid = one_map(measure, partial(pool, Pool("max")), jnp.abs)
    errors, info = grid.errors(1.0, {"pixels": jnp.arange(6.0).reshape(2, 3, 1)})
    assert info == NO_DIAGNOSTICS and errors.keys() == {ONE}
    assert grid.pool(errors) == 4.0
    assert grid.pool(errors, {ONE: errors[ONE] < 3}) == 2.0
    np.testing.assert_array_equal(grid.to_map(errors), [[1, 0, 1], [2, 3, 4]])
