"""Options: frozen dataclasses beside the code that reads them, and config sections made of them.

    @dataclass(frozen=True)
    class Pca:
        side: int = 32  # images are resized to side x side
        components: int = 100  # that are kept

        def __post_init__(self):
            require(self.side >= 1, "side", self.side, "must be at least 1")

    config.method = section(Pca(side=24), METHODS)  # a locked ConfigDict: name, side, components
    options = read(METHODS, config.method, "method")  # Pca(side=24, components=100)

A field whose type is a dataclass is a section of its own. A field that may be one of several
dataclasses is declared by `choice`, and its section says which by its `name`. The comment behind a
field, or above it, is its documentation: `describe` finds it.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sparse_ad.errors import FieldError, require_choice, within

Kinds = Mapping[str, type]  # name -> dataclass
Values = Mapping[str, Any] | ConfigDict  # of a section; a ConfigDict is no Mapping


def choice(kinds: Kinds, default: Any) -> Any:
    """Declares a field that holds one of several dataclasses, chosen by the `name` in its section.

    net: AutoEncoder | Lista = choice({"autoencoder": AutoEncoder, "lista": Lista}, Lista())
    """
    return dataclasses.field(default=default, metadata={"kinds": kinds})


def section(options: Any, kinds: Kinds | None = None) -> ConfigDict:
    """Returns options as a locked section of a config; with `kinds`, `name` says which they are."""
    values: dict[str, Any] = {} if kinds is None else {"name": name_of(options, kinds)}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        nested = dataclasses.is_dataclass(value)
        values[field.name] = section(value, field.metadata.get("kinds")) if nested else value
    return ConfigDict(values).lock()


def name_of(options: Any, kinds: Kinds) -> str:
    """Returns the name under which `kinds` lists the type of the options.

    Raises: LookupError where it does not.
    """
    for name, kind in kinds.items():
        if kind is type(options):
            return name
    raise LookupError(f"{type(options).__name__} is not listed: there are {', '.join(kinds)}")


def read(kinds: Kinds | type, values: Values, path: str = "") -> Any:
    """Returns the options that a section describes, of the one kind or of the one that it names.

    Raises: FieldError with the whole path ("method.coder.penalty") for a field that is unknown,
    that belongs to another kind, or whose value has the wrong type or is refused by its dataclass.
    """
    values = dict(values)
    if isinstance(kinds, type):
        kind, others = kinds, {}
    else:
        with within(path):
            require_choice("name", values.get("name"), kinds)
        kind, others = kinds[values.pop("name")], kinds
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    with within(path):
        for name, value in values.items():
            if name not in fields:
                raise FieldError(name, value, unknown_field(name, kind, others))
        given = {
            name: read_field(field, hints[name], values[name])
            for name, field in fields.items()
            if name in values
        }
        return kind(**given)


def read_field(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    """Returns the value of a field: options where it is a section, else a value of its type."""
    kinds: Any = field.metadata.get("kinds") or hint
    if isinstance(kinds, Mapping) or hasattr(kinds, "__dataclass_fields__"):
        if not isinstance(value, Mapping | ConfigDict):
            raise FieldError(field.name, value, "is a section: give its fields, one by one")
        return read(kinds, value, field.name)
    return convert(field.name, value, hint)


def unknown_field(name: str, kind: type, others: Kinds) -> str:
    """Returns the remedy for a field that a kind of options does not have."""
    fields = [field.name for field in dataclasses.fields(kind)]
    owners = [
        name_of_kind
        for name_of_kind, other in others.items()
        if name in {field.name for field in dataclasses.fields(other)}
    ]
    if owners:
        return f"is a field of {', '.join(owners)} and has no meaning here"
    near = difflib.get_close_matches(name, fields, 1)
    known = ", ".join(sorted(fields)) or "none"
    return (
        f"no such field; did you mean {near[0]}?" if near else f"no such field; there are {known}"
    )


def convert(field: str, value: Any, hint: Any) -> Any:
    """Returns a value as the type that its field declares: a list as tuple, 1 as 1.0.

    Raises: FieldError where that cannot be.
    """
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise FieldError(field, value, "give a tuple, like (1, 2)")
        inner = typing.get_args(hint)
        repeated = len(inner) == 2 and inner[1] is Ellipsis
        if not repeated and len(value) != len(inner):
            raise FieldError(field, value, f"give {len(inner)} values")
        each = (inner[0],) * len(value) if repeated else inner
        return tuple(convert(field, *pair) for pair in zip(value, each, strict=True))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(field, value, "give a finite number")
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise FieldError(field, value, f"give a value of type {hint.__name__}")
    return value


def switch(values: Values, kinds: Kinds, name: str) -> ConfigDict:
    """Returns the section of another kind: its defaults, and what both kinds have from `values`.

    For kinds whose common fields mean the same, such as data sources.

    Raises: FieldError for a name that is not among `kinds`.
    """
    require_choice("name", name, kinds)
    defaults: Any = section(kinds[name](), kinds)
    kept = {key: values[key] for key in defaults if key in values and key != "name"}
    for key, value in kept.items():
        if isinstance(defaults[key], ConfigDict):
            if isinstance(value, Mapping | ConfigDict) and set(value) == set(defaults[key]):
                defaults[key] = ConfigDict(dict(value)).lock()
        elif isinstance(value, type(defaults[key])):  # fields of one name may differ in type
            defaults[key] = value
    return defaults


def find_kinds(kind: type, values: Values, path: str) -> Kinds | None:
    """Returns the kinds that the section at `path` may have; None where it has one or is none."""
    name, _, rest = path.partition(".")
    field = next((each for each in dataclasses.fields(kind) if each.name == name), None)
    part: Any = values.get(name)
    if field is None or not isinstance(part, Mapping | ConfigDict):
        return None
    kinds = field.metadata.get("kinds")
    if not rest:
        return kinds
    inner: Any = kinds.get(part.get("name")) if kinds else typing.get_type_hints(kind)[name]
    return find_kinds(inner, part, rest) if hasattr(inner, "__dataclass_fields__") else None


class Option(NamedTuple):
    """One option, for people to read."""

    path: str
    default: Any
    meaning: str


def describe(options: Any, path: str = "") -> Iterator[Option]:
    """Yields every option of an object of options, those of its sections included."""
    meanings = comments(type(options))
    for field in dataclasses.fields(options):
        value, at = getattr(options, field.name), f"{path}.{field.name}".strip(".")
        kinds = field.metadata.get("kinds")
        if kinds:
            yield Option(f"{at}.name", name_of(value, kinds), f"one of {', '.join(kinds)}")
        if dataclasses.is_dataclass(value):
            yield from describe(value, at)
        else:
            yield Option(at, value, meanings[field.name])


@cache
def comments(kind: type) -> dict[str, str]:
    """Returns the comment of each field: the lines of comments above it, and the one behind it."""
    meanings = {}
    for parent in reversed(kind.__mro__[:-1]):
        lines = textwrap.dedent(inspect.getsource(parent)).splitlines()
        definition: Any = ast.parse("\n".join(lines)).body[0]
        for node in definition.body:
            if isinstance(node, ast.AnnAssign):
                meanings[ast.unparse(node.target)] = comment_of(lines, node)
    return {field.name: meanings.get(field.name, "") for field in dataclasses.fields(kind)}


def comment_of(lines: list[str], node: ast.AnnAssign) -> str:
    """Returns the comment of the field at a node of the syntax tree of `lines`."""
    first = last = node.lineno - 1
    while lines[first - 1].strip().startswith("#"):
        first -= 1
    end, column = node.end_lineno or node.lineno, node.end_col_offset
    behind = lines[end - 1].encode()[column:].decode()  # columns count bytes
    parts = [*lines[first:last], behind]
    return " ".join(part.strip().lstrip("# ") for part in parts).strip()
