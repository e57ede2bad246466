"""What went wrong, said to the person at the keyboard."""

from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend: shown as one line, exit code 2, no traceback.

    The message names the field or file, its value, and the remedy.
    """


def require(condition: bool, field: str, value: Any, remedy: str) -> None:
    """Raises UserError("field = value: remedy") unless `condition` holds."""
    if not condition:
        raise UserError(f"{field} = {value!r}: {remedy}")


def require_choice(field: str, value: Any, choices) -> None:
    """Raises UserError unless `value` is among `choices`, naming them all."""
    require(value in choices, field, value, f"choose one of {', '.join(sorted(choices))}")
