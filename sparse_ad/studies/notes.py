"""Notes below the tables of a study: how to read them, and what the runs were made with."""

from collections.abc import Iterator
from typing import Any

from sparse_ad.studies.results import StudyRecord

UNLISTED = ("data.root", "seed")  # overrides
MARK = " †"  # of a detector that does not beat the simple checks


def list_notes(record: StudyRecord) -> list[str]:
    """Returns what must be known to read the tables."""
    seeds = record.study["seeds"]
    one = "; in brackets the 95 % bootstrap interval over its test images"
    notes = [
        f"Seed {seeds[0]}{one}."
        if len(seeds) == 1
        else f"Mean ± std over {len(seeds)} seeds ({', '.join(map(str, seeds))})."
    ]
    if record.differences:
        notes.append(
            "Differences: 95 % interval of the paired bootstrap over test images, those of one "
            "lesion or driver drawn together. It does not include the randomness of a fit"
            + ("." if len(seeds) == 1 else ": the std over seeds does.")
        )
    if any(row.check for row in record.rows.values()):
        notes.append(
            f"{MARK.strip()} not shown to beat the strongest of the simple checks "
            f"({', '.join(row.title for row in record.rows.values() if row.check)}): the "
            "interval of the difference does not lie above 0."
        )
    if record.published.source:
        of = record.study.get("published_of")
        data = f", of {of}" if of else ""
        notes.append(f"Published: {record.published.source}{data}.")
    notes += [f"Failed: {cell}: {reason}." for cell, reason in record.failed.items()]
    return [*notes, *overridden(record), *counts(record), made_with(record)]


def overridden(record: StudyRecord) -> Iterator[str]:
    """Yields what the study changes of the configs of its rows, in all cells of the row."""
    changes: dict[tuple[str, ...], list[str]] = {}
    for key, row in record.rows.items():
        cells = [cell.overrides.items() for cell in record.cells if cell.row == key]
        same = set.intersection(*map(set, cells)) if cells else set()
        texts = (f"{name}={text}" for name, text in sorted(same) if name not in UNLISTED)
        changes.setdefault(tuple(texts), []).append(row.title)
    for texts, titles in changes.items():
        if texts:
            who = "All" if len(changes) == 1 else ", ".join(titles)
            yield f"{who}: {', '.join(texts)}."


def counts(record: StudyRecord) -> Iterator[str]:
    """Yields how many images each block has, where its rows and seeds agree, or the range."""
    for block, title in record.blocks.items():
        every = [cell.counts for cell in record.cells if cell.block == block]
        if every:
            train, calibration, normal, anomalous, _ = map(_range, zip(*every, strict=True))
            yield (
                f"{title}: {train} training, {calibration} calibration, {normal} normal and "
                f"{anomalous} anomalous test images."
            )


def made_with(record: StudyRecord) -> str:
    """Returns with which commits and devices the cells were run."""
    environments = [cell.environment for cell in record.cells] or [record.environment]
    commits = {_commit(each["commit"]) for each in environments}
    devices = {f"{each['device']['count']} {each['device']['kind']}" for each in environments}
    return f"Commit {', '.join(sorted(commits))}; device {', '.join(sorted(devices))}."


def _range(values: tuple[int, ...]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _commit(commit: dict[str, Any] | None) -> str:
    return f"{commit['id'][:7]}{' (edited)' if commit['dirty'] else ''}" if commit else "not known"
