"""Patches cut, folded back, spread into maps and pooled into scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad import patches
from sparse_ad.errors import FieldError
from sparse_ad.patches import Pool

# height, width, channels, size, stride: even, ragged, sparse (stride > size), whole, single pixels
SHAPES = [
    (12, 16, 1, 4, 4),
    (13, 10, 3, 4, 3),
    (14, 11, 1, 2, 5),
    (9, 9, 2, 9, 4),
    (5, 4, 1, 1, 1),
]


def image_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def starts(length, size, stride):
    return range(0, length - size + 1, stride)


@pytest.mark.parametrize(("height", "width", "channels", "size", "stride"), SHAPES)
def test_extract_is_a_sliding_window(height, width, channels, size, stride):
    image = image_of((height, width, channels))
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    expected = np.moveaxis(windows[::stride, ::stride], 2, -1).reshape(-1, size * size * channels)
    np.testing.assert_array_equal(patches.extract(jnp.asarray(image), size, stride), expected)


@pytest.mark.parametrize(("height", "width", "channels", "size", "stride"), SHAPES)
def test_fold_is_the_adjoint(height, width, channels, size, stride):
    """<extract(x), y> = <x, fold(y)>, to float32 sums."""
    shape = (height, width, channels)
    image = image_of(shape)
    cut = patches.extract(jnp.asarray(image), size, stride)
    other = image_of(cut.shape, seed=1)
    folded = patches.fold(jnp.asarray(other), shape, size, stride)
    assert folded.shape == shape
    np.testing.assert_allclose(np.vdot(cut, other), np.vdot(image, folded), rtol=1e-4)


@pytest.mark.parametrize(("height", "width", "channels", "size", "stride"), SHAPES)
def test_average_undoes_extract(height, width, channels, size, stride):
    shape = (height, width, channels)
    image = image_of(shape)
    covered = np.zeros(shape, bool)
    for top in starts(height, size, stride):
        for left in starts(width, size, stride):
            covered[top : top + size, left : left + size] = True
    cut = patches.extract(jnp.asarray(image), size, stride)
    found = patches.average(cut, shape, size, stride)
    np.testing.assert_allclose(found, np.where(covered, image, 0.0), rtol=1e-5, atol=1e-6)


def slow_map(errors, shape, size, stride):
    """Each pixel's mean error of the patches over it, pixels beyond them first moved to an edge.

    Between patches (stride > size): of the patch whose centre is nearest, along either side.
    """
    sides = [np.array(starts(length, size, stride)) for length in shape]
    found = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            over = []
            for pixel, first in zip((row, column), sides, strict=True):
                pixel = min(pixel, first[-1] + size - 1)
                hits = [i for i, at in enumerate(first) if at <= pixel < at + size]
                over.append(hits or [np.abs(first + (size - 1) / 2 - pixel).argmin()])
            found[row, column] = errors[np.ix_(*over)].mean()
    return found


@pytest.mark.parametrize(("height", "width", "channels", "size", "stride"), SHAPES)
def test_error_map_is_the_mean_of_patches_over_a_pixel(height, width, channels, size, stride):
    errors = image_of((len(starts(height, size, stride)), len(starts(width, size, stride)))) ** 2
    found = patches.error_map(jnp.asarray(errors), (height, width), size, stride)
    expected = slow_map(errors, (height, width), size, stride)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.min() >= 0.0
    assert found.max() <= errors.max() * (1 + 1e-5)


def test_error_map_of_equal_errors_is_flat():
    found = patches.error_map(jnp.full((4, 3), 2.5), (14, 11), 4, 3)
    np.testing.assert_allclose(found, 2.5, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 12, 40])
def test_top_rows_are_the_largest_of_each_column(count):
    """Also where there are fewer rows than asked for."""
    errors = image_of((12, 5))  # of both signs
    found = patches.top_rows(jnp.asarray(errors), count)
    expected = np.sort(errors, axis=0)[::-1][:count]
    assert found.shape == (min(count, 12), 5) and found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


def test_top_rows_counts_ties_as_often_as_they_are():
    errors = np.float32([[2, 0, -1], [5, 0, -1], [2, 0, -1], [5, 0, -3], [1, 7, -1]])
    found = patches.top_rows(jnp.asarray(errors), 4)
    np.testing.assert_array_equal(found, np.sort(errors, axis=0)[::-1][:4])
    np.testing.assert_array_equal(found[:, 0], [5, 5, 2, 2])


def test_an_image_map_is_an_error_map_resized():
    """A map of 10 x 7, cut to 8 x 5 by its border, of images of 20 x 14."""
    errors = jnp.asarray(image_of((6, 3)) ** 2)
    options = patches.ChannelPatches(size=3, stride=1)
    found = patches.image_map(errors, options, (8, 5), (20, 14), border=1)
    at_map = slow_map(np.asarray(errors), (8, 5), 3, 1).astype(np.float32)
    expected = patches.resize_map(jnp.asarray(at_map), (20, 14), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_map_is_resized_between_the_centres_of_its_cells():
    """A ramp stays a ramp, at the places of its cells; beyond the outer centres it is flat."""
    ramp = np.float32(np.arange(6.0)[:, None] + 10.0 * np.arange(4.0))
    found = patches.resize_map(jnp.asarray(ramp), (18, 8))
    rows = ((np.arange(18) + 0.5) * 6 / 18 - 0.5).clip(0, 5)
    columns = ((np.arange(8) + 0.5) * 4 / 8 - 0.5).clip(0, 3)
    np.testing.assert_allclose(found, rows[:, None] + 10.0 * columns, atol=1e-5)  # float32
    np.testing.assert_array_equal(patches.resize_map(jnp.asarray(ramp), (6, 4)), ramp)


@pytest.mark.parametrize("border", [1, 3])
def test_a_border_is_put_back_before_resizing(border):
    inner = np.abs(image_of((5, 4)))
    whole = np.pad(inner, border, mode="edge")
    shape = (2 * whole.shape[0], 2 * whole.shape[1])
    found = patches.resize_map(jnp.asarray(inner), shape, border)
    expected = patches.resize_map(jnp.asarray(whole), shape)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == shape
    corner = np.asarray(found)[: 2 * border, : 2 * border]  # all of it is what was cut
    np.testing.assert_allclose(corner, inner[0, 0], rtol=1e-6)
    same = patches.resize_map(jnp.asarray(inner), whole.shape, border)
    np.testing.assert_array_equal(same[border:-border, border:-border], inner)


def pool(errors, **fields):
    return float(patches.pool(patches.Pool(**fields), jnp.asarray(errors)))


@pytest.mark.parametrize("count", [3, 5, 200])
def test_pools(count):
    errors = image_of((count,)) ** 2
    largest = np.sort(errors)[::-1]
    assert pool(errors, rule="max") == largest[0]
    np.testing.assert_allclose(pool(errors), largest[:5].sum(), rtol=1e-6)
    np.testing.assert_allclose(pool(errors, top=1), largest[0])
    for fraction in (0.001, 0.1, 1.0):
        kept = max(1, round(fraction * count))
        found = pool(errors, rule="top_mean", fraction=fraction)
        np.testing.assert_allclose(found, largest[:kept].mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (patches.Pool, "rule", "median"),
        (patches.Pool, "top", 0),
        (patches.Pool, "fraction", 0.0),
        (patches.Pool, "fraction", 1.5),
        (patches.Patches, "size", 0),
        (patches.Patches, "stride", 0),
        (patches.Patches, "per_image", -1),
        (patches.ChannelPatches, "size", 0),
    ],
)
def test_wrong_options_are_named(kind, field, value):
    with pytest.raises(FieldError, match=f"^{field} = {value!r}: "):
        kind(**{field: value})


@pytest.mark.parametrize("cut", [patches.extract, lambda image, size, stride: draw(image, size)])
def test_patch_larger_than_image(cut):
    with pytest.raises(FieldError, match=r"^size = 9: exceeds the image side of 8"):
        cut(jnp.zeros((20, 8, 1)), 9, 1)
    with pytest.raises(FieldError, match=r"^size = 9: exceeds the image side of 8"):
        cut(jnp.zeros((8, 20, 1)), 9, 1)


def test_bad_size_and_stride():
    with pytest.raises(FieldError, match=r"^size = 0"):
        patches.extract(jnp.zeros((8, 8, 1)), 0, 1)
    with pytest.raises(FieldError, match=r"^stride = 0"):
        patches.extract(jnp.zeros((8, 8, 1)), 4, 0)


def draw(image, size, count=400, seed=0):
    return patches.draw(jax.random.key(seed), image[None], count, size)[:, 0]


def test_draw_cuts_real_windows_from_everywhere():
    image = image_of((6, 7, 2))
    every = np.asarray(patches.extract(jnp.asarray(image), 3, 1))
    drawn = np.asarray(draw(jnp.asarray(image), 3))
    assert drawn.shape == (400, 18)
    which = (drawn[:, None] == every).all(-1)
    assert which.any(axis=1).all()
    # 20 windows, 400 draws: a fair draw misses one of them once in 10^7 times.
    assert which.any(axis=0).all()


def test_draw_keeps_images_apart():
    images = jnp.stack([jnp.full((5, 5, 1), float(value)) for value in range(3)])
    drawn = patches.draw(jax.random.key(0), images, 4, 2)
    assert drawn.shape == (4, 3, 4)
    np.testing.assert_array_equal(drawn, np.broadcast_to(np.arange(3.0)[:, None], (4, 3, 4)))


def test_draw_follows_its_key():
    image = jnp.asarray(image_of((6, 7, 1)))
    np.testing.assert_array_equal(draw(image, 3), draw(image, 3))
    assert (draw(image, 3) != draw(image, 3, seed=1)).any()


@pytest.mark.parametrize(
    "options",
    [
        Pool("top_sum", top=3),
        Pool("max"),
        Pool("top_mean", fraction=0.3),
        Pool("top_mean", fraction=1.0),
    ],
)
def test_errors_that_do_not_count_are_as_good_as_not_there(options):
    errors = np.random.default_rng(0).normal(size=40).astype(np.float32) ** 2
    for counted in (errors < 1.0, errors > 1.0, np.arange(40) == 7, np.ones(40, bool)):
        expected = patches.pool(options, jnp.asarray(errors[counted]))
        score = patches.pool(options, jnp.asarray(errors), jnp.asarray(counted))
        np.testing.assert_allclose(score, expected, rtol=1e-6)
    assert np.isnan(patches.pool(options, jnp.asarray(errors), jnp.zeros(40, bool)))
