"""The options of the sources: what is out of range is named, and sections of configs hold them."""

import pytest

from sparse_ad.data import SOURCES
from sparse_ad.errors import FieldError
from sparse_ad.options import comments, read, section

BAD = [
    ("folder", "size", (0, 8)),
    ("folder", "color", "gray"),
    ("folder", "calibration_fraction", 0.0),
    ("folder", "limit", -1),
    ("folder", "workers", -1),
    ("elpv", "test_fraction", 1.0),
    ("elpv", "color", "gray"),
    ("generated", "category", "silk"),
    ("generated", "count", (1, 2, -1)),
    ("generated", "size", (16, 64)),
    ("ham10000", "split", "image"),
    ("ham10000", "test_fraction", 0.0),
    ("ham10000", "anomalous_per_class", -1),
    ("driver", "training_drivers", 1),
]


@pytest.mark.parametrize(("name", "field", "value"), BAD)
def test_fields_out_of_range_are_named(name, field, value):
    with pytest.raises(FieldError) as error:
        SOURCES[name](**{field: value})
    assert error.value.field == field and error.value.value == value


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_a_section_of_a_config(name):
    options = SOURCES[name](size=(40, 48))
    assert read(SOURCES, section(options, SOURCES), "data") == options
    assert all(comments(SOURCES[name]).values())  # each field says what it means


def test_the_shape_of_decoded_images():
    assert SOURCES["folder"](size=(40, 48), color="rgb").shape == (40, 48, 3)
    assert SOURCES["folder"](size=(40, 48)).shape == (40, 48, 1)
