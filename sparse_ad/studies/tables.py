"""The tables of a study, ours beside the published ones, and the page that shows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from sparse_ad.studies.notes import MARK, list_notes

OWN = ("r1", "r2")  # columns of a summary that are no AUROC


class Table(NamedTuple):
    """What is shown, whatever with."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def list_tables(record: dict[str, Any]) -> list[Table]:
    """Returns the tables of a study.json: a table for each block, or one of all blocks."""
    if record["study"]["columns"] == "blocks":
        return [
            auroc_of_blocks(record),
            *shares_of_blocks(record),
            *differences_of_blocks(record),
            *active_units(record),
        ]
    by_block = (
        table
        for block in record["blocks"]
        for table in (auroc_of_kinds(record, block), *differences_of_kinds(record, block))
    )
    return [*by_block, *active_units(record)]


def overview(record: dict[str, Any]) -> Table:
    """Returns one table of a study: the image AUROC of each row, over all kinds, in each block."""
    if record["study"]["columns"] == "blocks":
        return auroc_of_blocks(record)
    blocks, published = record["blocks"], record["published"].get("auroc", {})
    rows = []
    for key, row in record["rows"].items():
        cells = (over_kinds(record, block, key) for block in blocks)
        said = [theirs(published.get(key, {}).get("all"))] if published else []
        rows.append((row["title"], *cells, *said))
    head = ("", *blocks.values(), *(["published"] if published else []))
    return Table("Image AUROC, all kinds", head, rows)


def auroc_of_kinds(record: dict[str, Any], block: str) -> Table:
    """Returns the image AUROC of each row: columns are the kinds of anomaly, and ALL."""
    columns, rows = kinds(record, block), []
    summary, published = record["summary"].get(block, {}), record["published"].get("auroc", {})
    for key, row in record["rows"].items():
        figures = summary.get(key, {})
        shown = (ours(figures.get(column), record) for column in columns)
        rows.append((row["title"] + mark(record, block, key), *shown))
        if key in published:
            rows.append(("published", *(theirs(published[key].get(c)) for c in columns)))
    return Table(f"{record['blocks'][block]}: image AUROC", ("", *map(str.upper, columns)), rows)


def auroc_of_blocks(record: dict[str, Any]) -> Table:
    """Returns the image AUROC of each row: columns are the blocks, and their mean."""
    blocks, rows = list(record["blocks"]), []
    published = record["published"].get("auroc", {})
    for key, row in record["rows"].items():
        figures = [record["summary"].get(block, {}).get(key, {}).get("all") for block in blocks]
        known = [figure["value"] for figure in figures if figure]
        mean = f"{np.mean(known):.3f}" if known and len(known) == len(blocks) else "–"
        cells = (over_kinds(record, block, key) for block in blocks)
        rows.append((row["title"], *cells, mean))
        if key in published:
            shown = (theirs(published[key].get(block)) for block in (*blocks, "mean"))
            rows.append(("published", *shown))
    return Table("Image AUROC", ("", *record["blocks"].values(), "mean"), rows)


def shares_of_blocks(record: dict[str, Any]) -> Iterator[Table]:
    """Yields R1 / R2 of each row, where there are published ones to stand beside."""
    published, rows = record["published"].get("r1_r2"), []
    if not published:
        return
    for key, row in record["rows"].items():
        found = [record["summary"].get(block, {}).get(key) for block in record["blocks"]]
        shown = (
            " / ".join(f"{each[name]['value']:.2f}" for name in OWN) if each else "–"
            for each in found
        )
        rows.append((row["title"], *shown))
        if key in published:
            pairs = (published[key][block] for block in record["blocks"])
            rows.append(("published", *(f"{r1:.2f} / {r2:.2f}" for r1, r2 in pairs)))
    title = "R1 / R2: shares of normal and of anomalous images on the right side of the threshold"
    yield Table(title, ("", *record["blocks"].values()), rows)


def differences_of_kinds(record: dict[str, Any], block: str) -> Iterator[Table]:
    """Yields what each compared row gains, class by class, and what the paper says it does."""
    columns, published = kinds(record, block), record["published"].get("auroc", {})
    rows = []
    for each in compared(record, block):
        gains = (signed(each["auroc"].get(column)) for column in columns)
        rows.append((pair_title(record, each), *gains))
        if len(record["study"]["seeds"]) > 1:
            rows.append(("deviation", *(spread(each["auroc"].get(name)) for name in columns)))
        pair = [published.get(each[name]) for name in ("row", "less")]
        if all(pair):
            gains = (f"{pair[0][c] - pair[1][c]:+.2f}" if c in pair[0] else "–" for c in columns)
            rows.append(("published", *gains))
    if rows:
        title = f"{record['blocks'][block]}: differences of image AUROC"
        yield Table(title, ("", *map(str.upper, columns)), rows)


def differences_of_blocks(record: dict[str, Any]) -> Iterator[Table]:
    """Yields what the compared rows gain, block by block."""
    rows: dict[str, dict[str, str]] = {}
    for block in record["blocks"]:
        for each in compared(record, block):
            gains = rows.setdefault(pair_title(record, each), {})
            gains[block] = signed(each["auroc"].get("all"))
    if rows:
        shown = [
            (title, *(gains.get(block, "–") for block in record["blocks"]))
            for title, gains in rows.items()
        ]
        yield Table("Differences of image AUROC", ("", *record["blocks"].values()), shown)


def active_units(record: dict[str, Any]) -> Iterator[Table]:
    """Yields how sparse latents are: the share of units that count, and what the penalty costs.

    Means over test images, and over seeds: "share (penalty)".
    """
    found: dict[str, dict[str, list]] = {}
    for cell in record["cells"]:
        info = cell.get("score_info", {})
        if "active" in info:
            place = found.setdefault(cell["row"], {}).setdefault(cell["block"], [])
            place.append((info["active"], info["penalty"]))
    rows = []
    for row, places in found.items():
        means = {block: np.mean(pairs, axis=0) for block, pairs in places.items()}
        cells = (
            f"{means[block][0]:.1%} ({means[block][1]:.2g})" if block in means else "–"
            for block in record["blocks"]
        )
        rows.append((record["rows"][row]["title"], *cells))
    if rows:
        title = "Share of active units (penalty of the code)"
        yield Table(title, ("", *record["blocks"].values()), rows)


def compared(record: dict[str, Any], block: str) -> list[dict[str, Any]]:
    """Returns the differences that the study asks for."""
    return [
        each for each in record["differences"] if (each["block"], each["for"]) == (block, "compare")
    ]


def pair_title(record: dict[str, Any], difference: dict[str, Any]) -> str:
    return " less ".join(record["rows"][difference[name]]["title"] for name in ("row", "less"))


def kinds(record: dict[str, Any], block: str) -> list[str]:
    """Returns the kinds of anomaly in the paper's order, others after them, "all" last."""
    first = next(iter(record["published"].get("auroc", {}).values()), {})
    found = {name for row in record["summary"].get(block, {}).values() for name in row}
    known = [name for name in first if name in found and name != "all"]
    return [*known, *sorted(found - {*known, "all", *OWN}), "all"]


def mark(record: dict[str, Any], block: str, row: str) -> str:
    """Returns the mark of a detector that does not beat the strongest simple check."""
    for each in record["differences"]:
        if (each["block"], each["row"], each["for"]) == (block, row, "check"):
            low = each["auroc"]["all"].get("low")
            return "" if low is not None and low > 0 else MARK
    return ""


def over_kinds(record: dict[str, Any], block: str, row: str) -> str:
    """Returns the AUROC of a detector over all kinds, with its mark."""
    figure = record["summary"].get(block, {}).get(row, {}).get("all")
    return ours(figure, record) + mark(record, block, row)


def ours(figure: dict[str, Any] | None, record: dict[str, Any]) -> str:
    if not figure:
        return "–"
    seeds = len(record["study"]["seeds"])
    lacking = f" [{figure['seeds']} of {seeds} seeds]" if figure["seeds"] < seeds else ""
    if figure["deviation"] is None:
        return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f}){lacking}"
    return f"{figure['value']:.3f} ± {figure['deviation']:.3f}{lacking}"


def theirs(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def signed(figure: dict[str, Any] | None) -> str:
    if not figure or figure["value"] is None:
        return "–"
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def spread(figure: dict[str, Any] | None) -> str:
    deviation = (figure or {}).get("deviation")
    return "–" if deviation is None else f"{deviation:.3f}"


def to_html(record: dict[str, Any]) -> str:
    """Returns a page of all tables, with links to the reports of the cells beside it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("study.html.jinja")
    return page.render(record=record, tables=list_tables(record), notes=list_notes(record))
