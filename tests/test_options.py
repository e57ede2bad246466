"""Options become sections of configs and are read back; whatever is wrong is named by its path."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from ml_collections import ConfigDict

from sparse_ad.errors import FieldError, require
from sparse_ad.methods import METHODS
from sparse_ad.methods.pca import Pca
from sparse_ad.methods.sparse_coding import SparseCoding
from sparse_ad.options import (
    Option,
    choice,
    comments,
    convert,
    describe,
    find_kinds,
    name_of,
    read,
    section,
    switch,
)
from sparse_ad.patches import Patches


@dataclass(frozen=True)
class Coder:
    """A part of a part.

    penalty: a line that looks like a field.
    """

    penalty: float = 1.0  # of the L1 norm
    # which one it is:
    solver: str = "fista"  # fista | ista

    def __post_init__(self):
        require(self.penalty > 0, "penalty", self.penalty, "must be positive")

    def scaled(self):
        penalty: float = 2.0  # of no option
        return penalty * self.penalty


@dataclass(frozen=True)
class Circle:
    radius: float = 0.5  # in pixels
    filled: bool = False
    points: tuple[int, ...] = ()  # of the outline
    coder: Coder = Coder(penalty=2.0)


@dataclass(frozen=True)
class Square:
    side: int = 3  # in pixels
    corner: tuple[int, float] = (0, 0.5)  # row and column
    radius: int = 7
    coder: Coder = Coder()


@dataclass(frozen=True)
class Rounded(Square):
    """Inherits its fields and their comments."""

    side: int = 5
    # of the corners,
    # in pixels
    rounding: float = 1.0  # at least 0
    dashes: tuple[int, ...] = (
        1,
        2,
    )  # lengths


KINDS = {"circle": Circle, "square": Square}


@dataclass(frozen=True)
class Drawing:
    name: str = ""  # of the drawing
    shape: Circle | Square = choice(KINDS, Square())
    title: str | None = None  # above it


def test_a_section_holds_the_fields_of_its_part_and_is_locked():
    config = section(Drawing("d", Circle(points=(1, 2))))
    assert config.to_dict() == {
        "name": "d",
        "shape": {
            "name": "circle",
            "radius": 0.5,
            "filled": False,
            "points": (1, 2),
            "coder": {"penalty": 2.0, "solver": "fista"},
        },
        "title": None,
    }
    with pytest.raises((AttributeError, KeyError), match="side"):
        config.shape.side = 3
    assert "name" not in section(Circle())
    assert section(Circle(), KINDS).name == "circle"


@pytest.mark.parametrize(
    "options",
    [
        Drawing(),
        Drawing("d", Circle(0.25, True, (1, 2), Coder(3.0, "ista")), "t"),
        Drawing(shape=Square(corner=(4, 5.0))),
    ],
)
def test_what_is_read_is_what_was_written(options):
    assert read(Drawing, section(options)) == options
    assert read(Drawing, section(options).to_dict()) == options


def test_every_detector_is_read_back():
    for kind in METHODS.values():
        assert read(METHODS, section(kind(), METHODS), "method") == kind()


def test_fields_that_are_not_given_have_their_defaults():
    assert read(Drawing, {}) == Drawing()
    assert read(KINDS, {"name": "circle", "radius": 2.0}) == Circle(2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": {"name": "hexagon"}}, "shape.name = 'hexagon': choose one of circle, square"),
        ({"shape": {"side": 3}}, "shape.name = None: choose one of circle, square"),
        (
            {"shape": {"name": "square", "sise": 3}},
            "shape.sise = 3: no such field; did you mean side",
        ),
        (
            {"shape": {"name": "square", "filled": True}},
            "shape.filled = True: is a field of circle ",
        ),
        (
            {"shape": {"name": "circle", "xyz": 3}},
            "shape.xyz = 3: no such field; there are coder, filled, points, radius",
        ),
        ({"shap": {}, "tittle": ""}, "shap = {}: no such field; did you mean shape"),
        ({"shape": 5}, "shape = 5: is a section: give its fields"),
        (
            {"shape": {"name": "circle", "coder": {"penalty": -1}}},
            "shape.coder.penalty = -1.0: must be positive",
        ),
        (
            {"shape": {"name": "circle", "coder": "homotopy"}},
            "shape.coder = 'homotopy': is a section",
        ),
        ({"shape": {"name": "square", "side": 2.0}}, "shape.side = 2.0: give a value of type int"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(values, message):
    with pytest.raises(FieldError) as error:
        read(Drawing, values)
    assert str(error.value).startswith(message)
    with pytest.raises(FieldError) as error:
        read(Drawing, values, "run")
    assert str(error.value).startswith(f"run.{message}")


def test_an_empty_part_says_that_it_has_no_fields():
    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(FieldError, match=r"^a = 1: no such field; there are none"):
        read(Nothing, {"a": 1})


def test_fields_of_detectors():
    """What the union of all fields used to accept and ignore."""
    with pytest.raises(FieldError, match=r"^method\.components = 3: is a field of pca and has no"):
        read(METHODS, {"name": "sparse_coding", "components": 3}, "method")
    with pytest.raises(FieldError, match=r"^method\.component = 3: no such .* mean components\?"):
        read(METHODS, {"name": "pca", "component": 3}, "method")
    with pytest.raises(FieldError, match=r"^method\.patches\.sise = 3: .* did you mean size\?"):
        read(METHODS, {"name": "sparse_coding", "patches": {"sise": 3}}, "method")
    with pytest.raises(FieldError, match=r"^method\.patches\.size = 0: must be at least 1"):
        read(METHODS, {"name": "sparse_coding", "patches": {"size": 0}}, "method")
    options = read(METHODS, {"name": "sparse_coding", "patches": {"size": 8}}, "method")
    assert options == SparseCoding(Patches(size=8))


@pytest.mark.parametrize(
    ("value", "hint"),
    [(float("inf"), float), (float("nan"), float), ((1.0, float("inf")), tuple[float, ...])],
)
def test_numbers_are_finite(value, hint):
    with pytest.raises(FieldError, match=r"^x = (inf|nan): give a finite number"):
        convert("x", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        (1.5, float, 1.5),
        (True, bool, True),
        (3, int, 3),
        ("a", str, "a"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ((), tuple[int, ...], ()),
        ([1, 2], tuple[int, float], (1, 2.0)),
        ([["a", 1]], tuple[tuple[str, float], ...], (("a", 1.0),)),
        (None, str | None, None),
    ],
)
def test_values_are_converted_to_the_types_of_their_fields(value, hint, expected):
    converted = convert("x", value, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "x = True: give a value of type int"),
        (True, float, "x = True: give a value of type float"),
        (1, bool, "x = 1: give a value of type bool"),
        ("3", int, "x = '3': give a value of type int"),
        (2.0, int, "x = 2.0: give a value of type int"),
        (None, str, "x = None: give a value of type str"),
        (3, tuple[int, ...], "x = 3: give a tuple"),
        ("ab", tuple[str, ...], "x = 'ab': give a tuple"),
        ((1,), tuple[int, int], r"x = \(1,\): give 2 values"),
        ((1, "a"), tuple[int, ...], "x = 'a': give a value of type int"),
    ],
)
def test_values_of_another_type_are_refused(value, hint, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        convert("x", value, hint)


def test_switching_keeps_what_both_kinds_have():
    """But a field of another type, or a section of other fields."""
    old = section(Square(side=4, radius=9, coder=Coder(5.0, "ista")), KINDS)
    switched = switch(old, KINDS, "circle")
    assert read(KINDS, switched) == Circle(coder=Coder(5.0, "ista"))  # radius is no float
    assert switch(section(Circle(0.75), KINDS), KINDS, "circle").radius == 0.75
    other = section(Circle(), KINDS).to_dict() | {"coder": {"penalty": 9.0}}
    assert switch(other, KINDS, "square").coder.penalty == 1.0
    with pytest.raises((AttributeError, KeyError)):
        switched.side = 3
    with pytest.raises(FieldError, match=r"^name = 'hexagon': choose one of"):
        switch(old, KINDS, "hexagon")


def test_the_kinds_of_a_section_are_found_by_its_path():
    @dataclass(frozen=True)
    class Page:
        drawing: Drawing = Drawing()
        count: int = 1

    config = section(Page())
    assert find_kinds(Page, config, "drawing.shape") is KINDS
    assert find_kinds(Page, config, "drawing") is None
    for path in ("count", "count.shape", "nothing", "drawing.shape.coder", "drawing.name"):
        assert find_kinds(Page, config, path) is None
    unknown = {"drawing": {"shape": {"name": "hexagon", "coder": {}}}}
    assert find_kinds(Page, unknown, "drawing.shape.coder") is None
    outer = {"drawing": ConfigDict({"shape": {"name": "circle"}})}
    assert find_kinds(Page, outer, "drawing.shape") is KINDS


def test_options_that_are_not_listed_have_no_name():
    assert name_of(Circle(), KINDS) == "circle"
    with pytest.raises(LookupError, match="Rounded is not listed: there are circle, square"):
        name_of(Rounded(), KINDS)  # nor have those of a subclass


def test_every_option_is_described():
    assert list(describe(Drawing("d"), "run")) == [
        Option("run.name", "d", "of the drawing"),
        Option("run.shape.name", "square", "one of circle, square"),
        Option("run.shape.side", 3, "in pixels"),
        Option("run.shape.corner", (0, 0.5), "row and column"),
        Option("run.shape.radius", 7, ""),
        Option("run.shape.coder.penalty", 1.0, "of the L1 norm"),
        Option("run.shape.coder.solver", "fista", "which one it is: fista | ista"),
        Option("run.title", None, "above it"),
    ]
    assert next(iter(describe(Pca()))).path == "side"


def test_comments_are_those_of_fields_alone():
    """Not of docstrings, nor of variables of a method."""
    assert comments(Coder) == {
        "penalty": "of the L1 norm",
        "solver": "which one it is: fista | ista",
    }


def test_comments_are_inherited_and_span_lines():
    meanings = comments(Rounded)
    assert list(meanings) == ["side", "corner", "radius", "coder", "rounding", "dashes"]
    assert meanings["side"] == ""  # of its own field, which has none
    assert meanings["corner"] == "row and column"
    assert meanings["rounding"] == "of the corners, in pixels at least 0"
    assert meanings["dashes"] == "lengths"


@pytest.mark.parametrize("kind", METHODS.values())
def test_every_option_of_a_detector_has_a_meaning(kind):
    options: Any = kind()
    assert [option.path for option in describe(options) if not option.meaning] == []
    assert replace(options) == options  # and it is a dataclass that compares by value
