"""What a report says and shows of the units of errors."""

import numpy as np
import pytest

from sparse_ad.evaluation.results import ErrorUnitsUsed
from sparse_ad.report.normal_figure import draw_normal
from sparse_ad.report.summary import describe_units
from sparse_ad.types import NormalMaps


def test_mean_and_std_are_drawn_from_0_on_scales_of_their_own():
    normal = NormalMaps(np.arange(12.0).reshape(3, 4), np.zeros((3, 4)))
    figure = draw_normal(normal)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["mean", "std"]
    for axes, values, most in zip(panels, normal, (11.0, 1.0), strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0.0, most)
    assert draw_normal(None) is None


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (ErrorUnitsUsed(), ""),
        (ErrorUnitsUsed("none", "border", 1, 0.0, "too few"), "border): too few."),
        (ErrorUnitsUsed("whole", "whole", 9, 1.0), "at all positions of a layer: z = (error"),
        (ErrorUnitsUsed("border", "border", 9, 0.5), "of a distance weigh 50% against wider ones."),
        (
            ErrorUnitsUsed("position", "position", 20, 0.8),
            "of 20 held-out normal images, at the sa",
        ),
        (ErrorUnitsUsed("position", "position", 3, 0.4, "of only 3"), "/ std; of only 3."),
    ],
)
def test_units_in_words(used, text):
    assert text in describe_units(used)
    assert bool(describe_units(used)) == (used.asked != "none")
