"""Values as JSON: NamedTuples to objects and back."""

import reprlib
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparse_ad.errors import FieldError, within


def to_json(value: Any) -> Any:
    """Returns a value in the types of strict JSON.

    NamedTuples become objects by the names of their fields, or by the names that their `json_names`
    gives to some of them; other tuples, lists and arrays become lists. Numbers that are not
    finite become null.
    """
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    if _is_named_tuple(type(value)):
        names = _json_names(type(value))
        return {names[field]: to_json(item) for field, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if hasattr(value, "__array__"):
        return to_json(np.asarray(value).tolist())
    return value


def from_json(content: Any, kind: Any, field: str = "") -> Any:
    """Returns JSON content as `kind`, the inverse of `to_json`.

    `kind` is a NamedTuple, whose annotations say what its fields hold, and so on; dict[str, X];
    tuple[X, ...], tuple[X, Y], list[X]; X | None; float, int, str, bool; Any: as it is.
    A field that is missing has its default. A field that `kind` does not have is ignored, so that
    files of other versions can be read. Null in place of a float is NaN: see `to_json`.

    Raises: FieldError with the whole path of the field ("image.auroc.low") that is missing without
    a default or is something else.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return content
    if origin in (types.UnionType, typing.Union):
        return _first_that_fits(content, inner, field)
    if _is_named_tuple(kind):
        return _named_tuple(_checked(content, dict, field), kind, field)
    if dict in (kind, origin):
        items = _checked(content, dict, field).items()
        with within(field):
            return {name: from_json(item, (*inner, Any)[1], name) for name, item in items}
    if kind in (tuple, list) or origin in (tuple, list):
        return _sequence(_checked(content, list, field), origin or kind, inner, field)
    if kind is float:
        return float("nan") if content is None else float(_checked(content, int | float, field))
    return _checked(content, kind, field)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _json_names(kind: Any) -> dict[str, str]:
    """Returns field -> name in JSON; they differ where that is a keyword or not an identifier."""
    return {field: field for field in kind._fields} | getattr(kind, "json_names", {})


def _checked(content: Any, kind: Any, field: str) -> Any:
    """Returns the content, or raises FieldError unless it is of that kind; True is no number."""
    if isinstance(content, kind) and (kind is bool or not isinstance(content, bool)):
        return content
    name = getattr(kind, "__name__", str(kind))
    raise FieldError(field, content, f"is {reprlib.repr(content)}, expected {name}")


def _named_tuple(content: dict[str, Any], kind: Any, field: str) -> Any:
    hints = typing.get_type_hints(kind)
    values = {}
    with within(field):
        for own, name in _json_names(kind).items():
            if name in content:
                values[own] = from_json(content[name], hints[own], name)
            elif own not in kind._field_defaults:
                raise FieldError(name, None, "is missing")
    return kind(**values)


def _sequence(content: list[Any], kind: type, inner: tuple[Any, ...], field: str) -> Any:
    repeated = kind is list or len(inner) < 2 or inner[1] is Ellipsis
    if not repeated and len(content) != len(inner):
        raise FieldError(field, content, f"has {len(content)} items, expected {len(inner)}")
    kinds = (*inner, Any)[:1] * len(content) if repeated else inner
    items = zip(content, kinds, strict=True)
    with within(field):
        return kind(from_json(*item, str(index)) for index, item in enumerate(items))


def _first_that_fits(content: Any, kinds: Sequence[Any], field: str) -> Any:
    """Returns the content as the first of several kinds that it fits; None fits NoneType only."""
    if content is None and type(None) in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return from_json(content, kind, field)
        except FieldError:
            continue
    return from_json(content, last, field)
