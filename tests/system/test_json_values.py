"""NamedTuples survive JSON, and what does not fit them is named with its whole path."""

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from sparse_ad.errors import FieldError
from sparse_ad.system.json_values import from_json, to_json


class Interval(NamedTuple):
    value: float
    low: float | None = None
    reason: str = ""


class Result(NamedTuple):
    metrics: dict[str, Interval]
    rows: tuple[Interval, ...]
    size: tuple[int, int]
    best: Interval | None
    folder: str
    flagged: bool
    names: list[str]
    config: dict[str, Any]
    free: Any = None


RESULT = Result(
    metrics={"auroc": Interval(0.9, 0.8), "ap": Interval(0.7, None, "one class")},
    rows=(Interval(1.0), Interval(2.0)),
    size=(2, 3),
    best=None,
    folder="a/b",
    flagged=True,
    names=["x"],
    config={"seed": 0},
    free={"any": [1, None]},
)


def through_text(value):
    return json.loads(json.dumps(to_json(value), allow_nan=False))


def test_a_named_tuple_survives():
    assert from_json(through_text(RESULT), Result) == RESULT
    assert from_json(through_text(RESULT._replace(best=Interval(3.0))), Result).best.value == 3.0


def test_named_tuples_become_objects():
    expected = {"value": 1.5, "low": None, "reason": ""}
    assert to_json(Interval(np.float32(1.5), np.nan)) == expected
    assert to_json({"rows": [Interval(1.5)], "pair": (1, 2)}) == {
        "rows": [expected],
        "pair": [1, 2],
    }


class Renamed(NamedTuple):
    aupro_30: float
    purpose: str = ""
    json_names = {"aupro_30": "aupro_0.3", "purpose": "for"}  # noqa: RUF012


def test_a_field_may_have_another_name_in_json():
    value = Renamed(0.5, "x")
    assert through_text(value) == {"aupro_0.3": 0.5, "for": "x"}
    assert from_json(through_text(value), Renamed) == value
    with pytest.raises(FieldError) as error:
        from_json({"aupro_30": 0.5}, Renamed)
    assert error.value.field == "aupro_0.3"


def test_null_in_place_of_a_float_is_nan():
    assert math.isnan(from_json(through_text(Interval(math.inf)), Interval).value)
    assert from_json(through_text(Interval(1.0, None)), Interval).low is None


def test_whole_numbers_are_read_as_floats():
    value = from_json({"value": 1}, Interval).value
    assert value == 1.0 and type(value) is float


def test_files_of_other_versions_can_be_read():
    assert from_json({"value": 1.0, "newer": 2}, Interval) == Interval(1.0)


BAD = {  # change of the JSON -> field named, and what is said of it
    "missing": (lambda c: c.pop("rows"), "rows", "is missing"),
    "missing below": (lambda c: c["metrics"]["ap"].pop("value"), "metrics.ap.value", "is missing"),
    "text for a number": (
        lambda c: c["rows"][1].update(value="x"),
        "rows.1.value",
        "is 'x', expected int | float",
    ),
    "number for text": (lambda c: c.update(folder=1), "folder", "is 1, expected str"),
    "a bool is no number": (
        lambda c: c["rows"][0].update(value=True),
        "rows.0.value",
        "is True, expected int | float",
    ),
    "a number is no bool": (lambda c: c.update(flagged=1), "flagged", "is 1, expected bool"),
    "a fraction is no int": (lambda c: c.update(size=[1, 2.5]), "size.1", "is 2.5, expected int"),
    "too many": (lambda c: c.update(size=[1, 2, 3]), "size", "has 3 items, expected 2"),
    "list for an object": (lambda c: c.update(metrics=[]), "metrics", "is [], expected dict"),
    "null for a list": (lambda c: c.update(rows=None), "rows", "is None, expected list"),
    "optional": (lambda c: c.update(best={}), "best.value", "is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case):
    content = through_text(RESULT)
    spoil, field, problem = BAD[case]
    spoil(content)
    with pytest.raises(FieldError) as error:
        from_json(content, Result)
    assert (error.value.field, error.value.remedy) == (field, problem)
