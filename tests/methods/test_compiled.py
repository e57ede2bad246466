"""Compiled scores where pixels are ignored: errors, maps, and independence of the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import SIZE, stripes, with_defects
from helpers.toy import ToyDetector, mean_image

from sparse_ad.data.ignored import fill, find_ignored
from sparse_ad.methods.compiled import compile_score
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.methods.lifts.grid import ONE, count_positions, one_map
from sparse_ad.methods.pca import Pca
from sparse_ad.patches import ChannelPatches, Patches, Pool, image_map, pool
from sparse_ad.sparse.exemplars import ExemplarCoder
from sparse_ad.types import PIXELS, Example

SHAPE = (SIZE, SIZE, 1)
DEFECT = np.s_[:, 8:16, 8:16]  # where `with_defects` puts it
PATCHES = ExemplarCoding(
    patches=Patches(size=4, stride=2, per_image=64), coder=ExemplarCoder(nonzeros=2), atoms=(32,)
)


def fit(options, steps=4):
    method, key = options.build(PIXELS, SHAPE), jax.random.key(0)
    maps = {"pixels": jnp.asarray(stripes(32, 0))}
    state = jax.jit(method.init)(key, maps)
    update = jax.jit(method.update)
    for step in range(steps):
        state, _ = update(jax.random.fold_in(key, step), state, maps)
    return method, compile_score(method), jax.jit(method.finish)(key, state)


@pytest.fixture(scope="module")
def toy():
    return fit(ToyDetector(pool=Pool("max")))


@pytest.fixture(scope="module")
def pca():
    return fit(Pca(side=12, components=6))


@pytest.fixture(scope="module")
def sparse():
    return fit(PATCHES)


def masks(count, *where):
    ignored = np.zeros((count, SIZE, SIZE), bool)
    for index in where:
        ignored[index] = True
    return ignored


def filled(images, ignored):
    """The images as the pipeline gives them."""
    made = []
    for image, mask in zip(images, ignored, strict=True):
        found = find_ignored(Example(image, 0, "", None, "", "", mask), (SIZE, SIZE))
        made.append(image if found is None else fill(image, found))
    return np.stack(made)


def test_ignored_pixels_are_0_in_the_map_and_count_for_nothing(toy):
    """Errors of single pixels: exactly those that are kept remain."""
    _, score, params = toy
    images, ignored = with_defects(stripes(8, 1)), masks(8, DEFECT, np.s_[:, :, 20:])
    plain, kept = score(params, images), score(params, images, ignored)
    np.testing.assert_array_equal(kept.map, np.where(ignored, 0, plain.map))
    np.testing.assert_array_equal(kept.image, np.asarray(kept.map).max((1, 2)))


def test_positions_count_by_their_influence_on_kept_pixels():
    """Position 0 colours pixel 0, and 1 hardly; position 1 pixels 1 to 3; position 2 none."""
    influence = jnp.zeros((3, 4)).at[0, :2].set(jnp.array([1.0, 0.002])).at[1, 1:].set(1.0)

    def to_map(errors):
        return errors @ influence

    grid = one_map(lambda params, maps: maps, partial(pool, Pool("max")), to_map)
    for ignored, expected in (
        ([1, 0, 0, 0], [False, True, True]),
        ([0, 1, 0, 0], [True, False, True]),
        ([0, 0, 1, 1], [True, False, True]),
        ([1, 1, 1, 1], [False, False, True]),
    ):
        mask = jnp.array([ignored], bool)
        counted = count_positions(grid, {ONE: jnp.zeros((1, 3))}, mask)
        np.testing.assert_array_equal(counted[ONE][0], expected)


def test_without_ignored_pixels_nothing_changes(pca):
    _, score, params = pca
    images = stripes(8, 1)
    one = score(params, images)
    np.testing.assert_array_equal(one.image, score(params, images, masks(8)).image)
    np.testing.assert_array_equal(one.map, score(params, images, masks(8)).map)


@pytest.mark.parametrize("name", ["toy", "pca", pytest.param("sparse", marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_the_batch(name, request):
    """Images with and without ignored pixels, alone (beside zeros) and among others."""
    _, score, params = request.getfixturevalue(name)
    images, ignored = stripes(16, 1), masks(16)
    ignored[1, :9, :9] = ignored[3, 4:, 20:] = ignored[9:13, 5:9] = True
    whole = score(params, images, ignored)
    for index in (0, 1, 3, 12, 15):
        alone, mask = np.zeros((8, *SHAPE), np.float32), masks(8)
        alone[5], mask[5] = images[index], ignored[index]
        for one in (score(params, alone, mask), *without(score, params, alone, mask)):
            assert np.asarray(one.image)[5] == np.asarray(whole.image)[index]
            np.testing.assert_array_equal(one.map[5], whole.map[index])


def without(score, params, images, ignored):
    """The scores of the same call as without any masks, where nothing is ignored."""
    return () if ignored.any() else (score(params, images),)


def test_a_defect_counts_unless_it_is_ignored(sparse):
    _, score, params = sparse
    images = stripes(8, 1)
    broken = with_defects(images)
    ignored = masks(8, DEFECT)
    normal = np.asarray(score(params, images).image)
    assert np.asarray(score(params, broken).image).min() > 5 * normal.max()
    hidden = score(params, filled(broken, ignored), ignored)
    np.testing.assert_array_equal(
        hidden.image, score(params, filled(images, ignored), ignored).image
    )
    elsewhere = masks(8, np.s_[:, :, 18:])
    seen = score(params, filled(broken, elsewhere), elsewhere)
    assert np.asarray(seen.image).min() > 5 * normal.max()
    beside = masks(8, np.s_[:, :, 12:])  # half of the defect is left, at the very border
    half = np.asarray(score(params, filled(broken, beside), beside).map)[:, 8:16, 11]
    whole = np.asarray(score(params, broken).map)[:, 8:16, 11]
    assert half.mean() > 0.5 * whole.mean()


def test_the_border_of_what_is_ignored_does_not_dominate(sparse):
    """Pixels filled in look like no stripes: patches with some of them would outdo all others."""
    _, score, params = sparse
    images, ignored = stripes(8, 1), masks(8)
    for index in range(8):  # a mask of its own for each image
        ignored[index, index : index + 10, 2 * index : 2 * index + 9] = True
    pictures = filled(images, ignored)
    normal = np.asarray(score(params, images).image).max()
    assert np.asarray(score(params, pictures).image).min() > 50 * normal  # all positions counted
    assert np.asarray(score(params, pictures, ignored).image).max() < 2 * normal


def test_where_nothing_is_left_to_score_there_is_no_score(sparse):
    _, score, params = sparse
    ignored = masks(8)
    ignored[2, 2:, 2:] = True  # what is left is narrower than a patch
    scores = score(params, stripes(8, 1), ignored)
    assert np.flatnonzero(np.isnan(scores.image)).tolist() == [2]
    assert not np.asarray(scores.map)[2].any()


def test_a_detector_without_a_grid_scores_filled_pixels():
    score, params = compile_score(mean_image()), {"mean": jnp.zeros(SHAPE)}
    images, ignored = stripes(8, 1), masks(8, np.s_[:, :4])
    scores = score(params, images, ignored)
    np.testing.assert_array_equal(scores.image, score(params, images).image)
    np.testing.assert_array_equal(scores.map, np.where(ignored, 0, images[..., 0]))


def test_positions_of_maps_that_were_cut_and_resized():
    """Maps of 8x8 positions, of 4 pixels each, less a border of 1: those far off count."""
    patches = ChannelPatches(size=1, stride=1)
    to_map = partial(image_map, patches=patches, map_shape=(6, 6), shape=(32, 32), border=1)
    grid = one_map(lambda params, maps: maps, partial(pool, Pool("max")), to_map)
    ignored = jnp.zeros((32, 32), bool).at[:, :10].set(True)
    counted = count_positions(grid, {ONE: jnp.zeros((6, 6))}, ignored)
    np.testing.assert_array_equal(counted[ONE], np.broadcast_to(np.arange(6) >= 2, (6, 6)))
