"""The tables of a study: our metrics beside the published ones."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sparse_ad.evaluation.comparison import Comparison
from sparse_ad.report import html
from sparse_ad.report.tables import Table
from sparse_ad.studies.notes import MARK, list_notes
from sparse_ad.studies.results import Difference, StudyRecord, Summary

OWN = ("r1", "r2")  # columns of a summary that are no AUROC
DASH = "–"


class Layout(NamedTuple):
    """What the tables of a study have as columns."""

    tables: Callable[[StudyRecord], Iterable[Table]]
    overview: Callable[[StudyRecord], Table]


def list_tables(record: StudyRecord) -> list[Table]:
    """Returns the tables of a study: one for each block, or one of all blocks."""
    return [*LAYOUTS[record.study["columns"]].tables(record), *active_units(record)]


def overview(record: StudyRecord) -> Table:
    """Returns one table of a study: the image AUROC of each row, over all kinds, in each block."""
    return LAYOUTS[record.study["columns"]].overview(record)


def tables_of_blocks(record: StudyRecord) -> list[Table]:
    """Returns one table of all blocks, for each metric."""
    return [
        auroc_of_blocks(record),
        *rates_of_blocks(record),
        *differences_of_blocks(record),
    ]


def tables_of_kinds(record: StudyRecord) -> list[Table]:
    """Returns tables of each block, whose columns are the kinds of anomaly."""
    by_block = (
        table
        for block in record.blocks
        for table in (auroc_of_kinds(record, block), *differences_of_kinds(record, block))
    )
    return list(by_block)


def overview_of_kinds(record: StudyRecord) -> Table:
    """Returns the image AUROC of each row, over all kinds, in each block."""
    published, rows = record.published.auroc, []
    for key, row in record.rows.items():
        cells = (over_kinds(record, block, key) for block in record.blocks)
        theirs = [show_published(published.get(key, {}).get("all"))] if published else []
        rows.append((row.title, *cells, *theirs))
    head = ("", *record.blocks.values(), *(["published"] if published else []))
    return Table("Image AUROC, all kinds", head, rows)


def auroc_of_kinds(record: StudyRecord, block: str) -> Table:
    """Returns the image AUROC of each row: columns are the kinds of anomaly, and ALL."""
    columns, rows = list_kinds(record, block), []
    published = record.published.auroc
    for key, row in record.rows.items():
        metrics = summary_of(record, block, key)
        ours = (show_summary(metrics.get(column), record) for column in columns)
        rows.append((row.title + mark(record, block, key), *ours))
        if key in published:
            theirs = (show_published(published[key].get(column)) for column in columns)
            rows.append(("published", *theirs))
    head = ("", *map(str.upper, columns))
    return Table(f"{record.blocks[block]}: image AUROC", head, rows)


def auroc_of_blocks(record: StudyRecord) -> Table:
    """Returns the image AUROC of each row: columns are the blocks, and their mean."""
    blocks, published, rows = list(record.blocks), record.published.auroc, []
    for key, row in record.rows.items():
        metrics = [summary_of(record, block, key).get("all") for block in blocks]
        values = [metric.value for metric in metrics if metric]
        mean = f"{np.mean(values):.3f}" if values and len(values) == len(blocks) else DASH
        cells = (over_kinds(record, block, key) for block in blocks)
        rows.append((row.title, *cells, mean))
        if key in published:
            theirs = (show_published(published[key].get(block)) for block in (*blocks, "mean"))
            rows.append(("published", *theirs))
    return Table("Image AUROC", ("", *record.blocks.values(), "mean"), rows)


def rates_of_blocks(record: StudyRecord) -> Iterator[Table]:
    """Yields R1 / R2 of each row, where there are published ones to compare with."""
    published, rows = record.published.r1_r2, []
    if not published:
        return
    for key, row in record.rows.items():
        summaries = [summary_of(record, block, key) for block in record.blocks]
        rows.append((row.title, *map(show_rates, summaries)))
        if key in published:
            pairs = (published[key][block] for block in record.blocks)
            rows.append(("published", *(f"{r1:.2f} / {r2:.2f}" for r1, r2 in pairs)))
    title = (
        "R1 / R2: fractions of normal and of anomalous images on the right side of the threshold"
    )
    yield Table(title, ("", *record.blocks.values()), rows)


def differences_of_kinds(record: StudyRecord, block: str) -> Iterator[Table]:
    """Yields what each compared row gains, kind by kind, and what the paper reports."""
    columns, rows = list_kinds(record, block), []
    for difference in compared(record, block):
        metrics = [difference.auroc.get(column) for column in columns]
        rows.append((pair_title(record, difference), *map(show_difference, metrics)))
        if len(record.study["seeds"]) > 1:
            rows.append(("std", *map(show_std, metrics)))
        rows += published_gains(record, difference, columns)
    if rows:
        title = f"{record.blocks[block]}: differences of image AUROC"
        yield Table(title, ("", *map(str.upper, columns)), rows)


def differences_of_blocks(record: StudyRecord) -> Iterator[Table]:
    """Yields what the compared rows gain, block by block."""
    gains: dict[str, dict[str, str]] = {}
    for block in record.blocks:
        for difference in compared(record, block):
            gain = show_difference(difference.auroc.get("all"))
            gains.setdefault(pair_title(record, difference), {})[block] = gain
    if gains:
        rows = [
            (title, *(by_block.get(block, DASH) for block in record.blocks))
            for title, by_block in gains.items()
        ]
        yield Table("Differences of image AUROC", ("", *record.blocks.values()), rows)


def active_units(record: StudyRecord) -> Iterator[Table]:
    """Yields how sparse latents are: the fraction of active units, and the penalty of the code.

    Means over test images, and over seeds: "fraction (penalty)".
    """
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cell in record.cells:
        if "active" in cell.score_info:
            of_row = pairs.setdefault(cell.row, {}).setdefault(cell.block, [])
            of_row.append((cell.score_info["active"], cell.score_info["penalty"]))
    rows = []
    for row, by_block in pairs.items():
        means = {block: np.mean(every, axis=0) for block, every in by_block.items()}
        cells = (
            f"{means[block][0]:.1%} ({means[block][1]:.2g})" if block in means else DASH
            for block in record.blocks
        )
        rows.append((record.rows[row].title, *cells))
    if rows:
        title = "Fraction of active units (penalty of the code)"
        yield Table(title, ("", *record.blocks.values()), rows)


def summary_of(record: StudyRecord, block: str, row: str) -> dict[str, Summary]:
    """Returns the metrics of a row in a block by column; none where no cell has finished."""
    return record.summary.get(block, {}).get(row, {})


def compared(record: StudyRecord, block: str) -> list[Difference]:
    """Returns the differences that the study asks for."""
    return [
        difference
        for difference in record.differences
        if (difference.block, difference.purpose) == (block, "compare")
    ]


def pair_title(record: StudyRecord, difference: Difference) -> str:
    return f"{record.rows[difference.row].title} less {record.rows[difference.less].title}"


def published_gains(
    record: StudyRecord, difference: Difference, columns: list[str]
) -> list[tuple[str, ...]]:
    """Returns the row of the published differences; no row where there are none."""
    one, two = (record.published.auroc.get(key) for key in (difference.row, difference.less))
    if not (one and two):
        return []
    gains = (f"{one[name] - two[name]:+.2f}" if name in one else DASH for name in columns)
    return [("published", *gains)]


def list_kinds(record: StudyRecord, block: str) -> list[str]:
    """Returns the kinds of anomaly in the paper's order, others after them, "all" last."""
    first = next(iter(record.published.auroc.values()), {})
    columns = {name for row in record.summary.get(block, {}).values() for name in row}
    known = [name for name in first if name in columns and name != "all"]
    return [*known, *sorted(columns - {*known, "all", *OWN}), "all"]


def mark(record: StudyRecord, block: str, row: str) -> str:
    """Returns the mark of a detector that does not beat the strongest simple check."""
    for difference in record.differences:
        if (difference.block, difference.row, difference.purpose) == (block, row, "check"):
            low = difference.auroc["all"].low
            return "" if low is not None and low > 0 else MARK
    return ""


def over_kinds(record: StudyRecord, block: str, row: str) -> str:
    """Returns the AUROC of a detector over all kinds, with its mark."""
    metric = summary_of(record, block, row).get("all")
    return show_summary(metric, record) + mark(record, block, row)


def show_summary(metric: Summary | None, record: StudyRecord) -> str:
    if not metric:
        return DASH
    seeds = len(record.study["seeds"])
    missing = f" [{metric.seeds} of {seeds} seeds]" if metric.seeds < seeds else ""
    if metric.std is None:
        return f"{metric.value:.3f} ({metric.low:.3f}–{metric.high:.3f}){missing}"
    return f"{metric.value:.3f} ± {metric.std:.3f}{missing}"


def show_rates(metrics: dict[str, Summary]) -> str:
    rates = (f"{metrics[name].value:.2f}" if name in metrics else DASH for name in OWN)
    return " / ".join(rates) if metrics else DASH


def show_published(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def show_difference(metric: Comparison | None) -> str:
    if not metric or metric.value is None:
        return DASH
    return f"{metric.value:+.3f} ({metric.low:+.3f} to {metric.high:+.3f})"


def show_std(metric: Comparison | None) -> str:
    return DASH if not metric or metric.std is None else f"{metric.std:.3f}"


def to_html(record: StudyRecord) -> str:
    """Returns a page of all tables, with links to the reports of the cells beside it."""
    return html.render("study", record=record, tables=list_tables(record), notes=list_notes(record))


LAYOUTS = {
    "blocks": Layout(tables_of_blocks, auroc_of_blocks),
    "kinds": Layout(tables_of_kinds, overview_of_kinds),
}
