"""Errors that are told to the person at the keyboard in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct: shown as one line, exit code 2, no traceback.

    The message names the field or file, its value, and the remedy.
    """


class FieldError(UserError):
    """A field of some options has a wrong value.

    Code that checks a field knows its own name for it ("penalty"). Callers that know where these
    options stand put the path before it, with `within`: "method.coder.penalty".
    """

    def __init__(self, field: str, value: Any, remedy: str):
        super().__init__(f"{field} = {value!r}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


def require(condition: bool, field: str, value: Any, remedy: str) -> None:
    """Raises FieldError("field = value: remedy") unless `condition` holds."""
    if not condition:
        raise FieldError(field, value, remedy)


def require_choice(field: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises FieldError unless `value` is among `choices`, naming them all."""
    choices = list(choices)
    require(value in choices, field, value, f"choose one of {', '.join(sorted(choices))}")


@contextmanager
def within(path: str) -> Iterator[None]:
    """Puts `path` and a dot before the field that a FieldError raised inside names."""
    try:
        yield
    except FieldError as error:
        field = f"{path}.{error.field}" if path else error.field
        raise FieldError(field, error.value, error.remedy) from error.__cause__
