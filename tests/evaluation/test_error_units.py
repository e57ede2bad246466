"""Statistics of normal errors against moments of lists of errors, gathered position by position."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.normal import by_hand, draw_errors

from sparse_ad.errors import FieldError
from sparse_ad.evaluation.calibration import NormalImage, add_up
from sparse_ad.evaluation.error_units import LEVELS, ErrorUnits, constant_layers, normal_errors
from sparse_ad.types import Example

EXAMPLE = Example(b"", 0, "good", None, "", "x.png")
UNITS = ErrorUnits("position", prior=2.0)
SHAPES = ((5, 6), (3, 4, 5), (1, 1), (2, 7))  # of one grid, and of three tiles


def measured(options, errors, counted):
    """Mean and std by streaming sums."""
    images = [
        NormalImage(EXAMPLE, "", {"a": one}, None, {"a": there})
        for one, there in zip(errors, counted, strict=True)
    ]
    normal = normal_errors(options, add_up(images))
    return normal.mean["a"], normal.std["a"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("by", [name for name in LEVELS if name != "none"])
def test_statistics_are_those_of_gathered_errors(by, shape):
    errors, counted = draw_errors(6, shape)
    options = replace(UNITS, by=by)
    for some in (np.ones_like(counted), counted):
        found, expected = measured(options, errors, some), by_hand(options, errors, some)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_a_prior_or_a_filter_they_are_those_of_the_position():
    errors, counted = draw_errors(9, (4, 5))
    options = ErrorUnits("position", prior=0.0, smooth=1, floor=1e-6)
    mean, std = measured(options, errors, np.ones_like(counted))
    np.testing.assert_allclose(mean, errors.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, errors.std(0), rtol=1e-4)


def test_a_large_prior_leaves_those_of_all_positions():
    errors, counted = draw_errors(9, (4, 5))
    counted = np.ones_like(counted)
    near = measured(replace(UNITS, prior=1e9), errors, counted)
    whole = measured(replace(UNITS, by="whole"), errors, counted)
    np.testing.assert_allclose(near, whole, rtol=1e-5)


def test_a_place_that_never_varied_has_the_floor():
    """So that its first deviation is not infinitely suspicious."""
    errors, counted = draw_errors(40, (5, 5))
    errors[:, 2, 2] = 0.5
    options = ErrorUnits("position", prior=0.0, smooth=1)
    mean, std = measured(options, errors, np.ones_like(counted))
    np.testing.assert_allclose(std[2, 2], options.floor * errors.std(), rtol=1e-4)
    assert mean[2, 2] == pytest.approx(0.5)
    shrunk = measured(replace(options, prior=5.0), errors, np.ones_like(counted))
    assert shrunk[1][2, 2] > std[2, 2]


@pytest.mark.parametrize("value", [0.0, 0.3, 1e-20, 1e9])
def test_errors_that_never_vary_have_std_1(value):
    errors = np.full((3, 4, 4), value, np.float32)
    mean, std = measured(UNITS, errors, np.ones(errors.shape, bool))
    np.testing.assert_allclose(mean, value, rtol=1e-6)
    np.testing.assert_array_equal(std, 1.0)


def test_places_without_errors_have_those_of_wider_places():
    errors, counted = draw_errors(5, (6, 6))
    counted[:] = True
    counted[:, :3] = False
    mean, std = measured(replace(UNITS, smooth=1), errors, counted)
    border = measured(replace(UNITS, by="border"), errors, counted)
    np.testing.assert_allclose(mean[:3], border[0][:3], rtol=1e-6)
    np.testing.assert_allclose(std[:3], border[1][:3], rtol=1e-6)
    for nothing in measured(UNITS, errors, np.zeros_like(counted)):
        assert np.isfinite(nothing).all()
    assert (measured(UNITS, errors, np.zeros_like(counted))[1] == 1.0).all()


def test_layers_that_never_vary_are_named():
    errors, counted = draw_errors(5, (6, 6))
    values = {"varied": errors, "constant": np.full_like(errors, 0.3)}
    images = [
        NormalImage(EXAMPLE, "", {name: layer[at] for name, layer in values.items()}, None, None)
        for at in range(len(counted))
    ]
    sums = add_up(images)
    assert constant_layers(sums) == ["constant"]
    assert (normal_errors(UNITS, sums).std["constant"] == 1.0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"by": "ring"}, "by = 'ring': choose one of border, none, position, whole"),
        ({"prior": -1.0}, "prior = -1.0"),
        ({"prior": float("nan")}, "prior = nan"),
        ({"smooth": 2}, "smooth = 2: give an odd number"),
        ({"smooth": 0}, "smooth = 0"),
        ({"floor": 0.0}, "floor = 0.0: give a number from 1e-06 to 1e\\+06"),
        ({"floor": 1e200}, "floor = 1e\\+200: give a number from"),
    ],
)
def test_wrong_options_are_named(fields, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        ErrorUnits(**fields)
