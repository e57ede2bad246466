"""What must be known to read the tables of a study."""

from collections.abc import Iterator
from typing import Any

UNTOLD = ("data.root", "seed")  # of what is overridden
MARK = " †"  # of a detector that does not beat the simple checks


def list_notes(record: dict[str, Any]) -> list[str]:
    """Returns what must be known to read the tables."""
    seeds = record["study"]["seeds"]
    one = "; in brackets the 95 % bootstrap interval over its test images"
    notes = [
        f"Seed {seeds[0]}{one}."
        if len(seeds) == 1
        else f"Mean ± deviation over {len(seeds)} seeds ({', '.join(map(str, seeds))})."
    ]
    if record["differences"]:
        notes.append(
            "Differences: 95 % interval of the paired bootstrap over test images, those of one "
            "lesion or driver drawn together. It knows nothing of the chance in a fit"
            + ("." if len(seeds) == 1 else ": that is in the deviation over seeds.")
        )
    if any(row["check"] for row in record["rows"].values()):
        notes.append(
            f"{MARK.strip()} not shown to beat the strongest of the simple checks "
            f"({', '.join(row['title'] for row in record['rows'].values() if row['check'])}): the "
            "interval of the difference does not lie above 0."
        )
    if "source" in record["published"]:
        of = record["study"].get("published_of")
        whose = f", of {of}" if of else ""
        notes.append(f"Published: {record['published']['source']}{whose}.")
    notes += [f"Failed: {place}: {reason}." for place, reason in record["failed"].items()]
    return [*notes, *overridden(record), *counts(record), made_with(record)]


def overridden(record: dict[str, Any]) -> Iterator[str]:
    """Yields what the study changes of the configs of its rows, in all cells of the row."""
    changes: dict[tuple[str, ...], list[str]] = {}
    for key, row in record["rows"].items():
        cells = [cell["overrides"].items() for cell in record["cells"] if cell["row"] == key]
        same = set.intersection(*map(set, cells)) if cells else set()
        texts = (f"{name}={text}" for name, text in sorted(same) if name not in UNTOLD)
        changes.setdefault(tuple(texts), []).append(row["title"])
    for texts, titles in changes.items():
        if texts:
            who = "All" if len(changes) == 1 else ", ".join(titles)
            yield f"{who}: {', '.join(texts)}."


def counts(record: dict[str, Any]) -> Iterator[str]:
    """Yields how many images each block has, where its rows and seeds agree, or the range."""
    for block, title in record["blocks"].items():
        parts = [cell["counts"] for cell in record["cells"] if cell["block"] == block]
        if parts:
            names = ("train", "calibration", "test_normal", "test_anomalous")
            shown = [_range([part[name] for part in parts]) for name in names]
            yield (
                f"{title}: {shown[0]} training, {shown[1]} calibration, {shown[2]} normal and "
                f"{shown[3]} anomalous test images."
            )


def made_with(record: dict[str, Any]) -> str:
    """Says with which commits and devices the cells were run."""
    told = [cell["environment"] for cell in record["cells"]] or [record["environment"]]
    commits = {_commit(each["commit"]) for each in told}
    devices = {f"{each['device']['count']} {each['device']['kind']}" for each in told}
    return f"Commit {', '.join(sorted(commits))}; device {', '.join(sorted(devices))}."


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _commit(commit: dict[str, Any] | None) -> str:
    return f"{commit['id'][:7]}{' (edited)' if commit['dirty'] else ''}" if commit else "not known"
