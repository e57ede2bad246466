"""Tables, as Markdown and as aligned text."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of text, however it is shown."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Returns columns of text. `align`: "<" or ">" for each; by default all ">" but the first."""
    lines = [head, *rows]
    align = align or "<" + ">" * (len(head) - 1)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return "\n".join(layout.format(*line).rstrip() for line in lines)
