"""Writes the README's tables, and results/README.md, from the records in results/.

No figure is typed by hand.

python -m sparse_ad.records
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparse_ad.errors import UserError
from sparse_ad.studies.notes import list_notes
from sparse_ad.studies.tables import Table, list_tables, overview
from sparse_ad.system.files import read_json, write_text

ROOT = Path(__file__).resolve().parents[2]
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
PUBLISHED = (  # column of the paper's Table 1, its title, and where ours would be
    ("sparse_coding", "sparse coding", "sparse_patches/mvtec_{}.json"),
    ("mlf_sc", "MLF-SC", "mlf_sc/mvtec_{}_published_code.json"),
)
Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]  # title -> what it shows of a row


def shown(name: str, style: str = "", scale: float = 1.0) -> Callable[[Row], str]:
    """Returns what shows a field of a row, a dash where there is none."""

    def show(row: Row) -> str:
        value = row.get(name)
        return "–" if value is None else format(value * scale if style else value, style)

    return show


MEASURED: Columns = {  # of results.json; "place" is the path of the record
    "config": lambda record: record["place"].parent.name,
    "data": lambda record: f"[{record['place'].stem}]({record['link']})",
    "train / calibration / test": lambda record: " / ".join(map(str, counted(record["counts"]))),
    "image AUROC": lambda record: interval(record["image"]["auroc"]),
    "AP": lambda record: number(record["image"]["ap"]),
    "R1 / R2": lambda record: " / ".join(number(record["image"][name]) for name in ("r1", "r2")),
    "pixel AUROC": lambda record: number(record["pixel"]["auroc"]),
    "AUPRO 0.3": lambda record: number(record["pixel"]["aupro_0.3"]),
    "AUPRO 0.05": lambda record: number(record["pixel"]["aupro_0.05"]),
    "images/s": lambda record: rate(record),
}
BRIEFLY = ("config", "data", "image AUROC", "R1 / R2", "AUPRO 0.3", "images/s")
BENCHMARKS: dict[str, tuple[str, Columns]] = {  # block of the README -> file, columns of its rows
    "speed": (
        "sparse_coding",
        {
            "solver": shown("contender"),
            "seconds": shown("seconds", ".2f"),
            "ratio to homotopy": shown("over homotopy", ".1f"),
            "largest relative gap": shown("largest gap", ".1e"),
            "over its floor": shown("over floor", ".0f"),
        },
    ),
    "learning": (
        "dictionary_learning",
        {
            "learner": shown("learner"),
            "passes": shown("passes"),
            "seconds": shown("seconds", ".2f"),
            "held-out objective": shown("held-out objective", ".3f"),
        },
    ),
    "mlf-sc-speed": (
        "mlf_sc",
        {
            "part": shown("part"),
            "contender": shown("contender"),
            "milliseconds": shown("seconds", ".3g", 1000),
            "over its floor": shown("over floor", ".2f"),
            "over its features": shown("over features", ".2f"),
            "over ours": shown("over ours", ".2f"),
        },
    ),
    "autoencoder-speed": (
        "autoencoder",
        {
            "part": shown("part"),
            "contender": shown("contender"),
            "images/s": shown("images/s", ".0f"),
            "slowest": shown("slowest", ".0f"),
            "fastest": shown("fastest", ".0f"),
            "share of peak": shown("share of peak", ".2f"),
        },
    ),
    "choice": (
        "choose_mlf_sc",
        {
            "variant": shown("variant"),
            "changed": shown("candidate"),
            "planted AUROC": shown("planted", ".3f"),
            "test AUROC": shown("test", ".3f"),
        },
    ),
}


def render(results: Path) -> dict[str, str]:
    """Returns the README's blocks by name, as Markdown, from the records below `results`."""
    real = [each for each in measured(results, ROOT) if "generated" not in each["place"].stem]
    benchmarks = {
        block: listed(read_json(results / "benchmarks" / f"{name}.json")["rows"], columns)
        for block, (name, columns) in BENCHMARKS.items()
    }
    return benchmarks | {
        "results": listed(real, {name: MEASURED[name] for name in BRIEFLY}),
        "studies": "\n\n".join(study_overview(path) for path in studies(results)),
        "memory": memory_table(results / "benchmarks" / "memory.json"),
    }


def render_all(results: Path) -> str:
    """Returns the page of all records."""
    parts = [
        "# All records",
        "Written by `python -m sparse_ad.records`. What the columns say: [README](../README.md).",
        listed(measured(results, results), MEASURED),
        *(published_table(results, *each) for each in PUBLISHED),
        "Published: Imamura et al., *MLF-SC* (2021), Table 1.",
        *(
            f"## {path.stem}\n\n[Record](studies/{path.name})\n\n{study_page(read_json(path))}"
            for path in studies(results)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def measured(results: Path, page: Path) -> list[Row]:
    """Returns the records of evaluations, each with its place and the link from the page to it."""
    found = [(path, read_json(path)) for path in sorted(results.glob("*/*.json"))]
    return [
        record | {"place": path, "link": path.relative_to(page)}
        for path, record in found
        if "image" in record
    ]


def counted(counts: dict[str, int]) -> tuple[int, int, int]:
    return counts["train"], counts["calibration"], counts["test_normal"] + counts["test_anomalous"]


def rate(record: Row) -> str:
    """Returns images a second; a dash where features came from disk: no speed of the whole."""
    cached = record["config"].get("features", {}).get("cache_gb")
    return "–" if cached else f"{record['cost']['images_per_second']:.1f}"


def published_table(results: Path, system: str, title: str, place: str) -> str:
    """Returns the paper's figures for MVTec AD textures beside ours, where ours were measured."""
    paper = read_json(results / "published.json")["imamura_mlf_sc"]
    head = (f"MVTec AD, {title}", "published AUROC", "ours", "published R1 / R2", "ours")
    rows = []
    for name in TEXTURES:
        path = results / place.format(name)
        image = read_json(path)["image"] if path.exists() else None
        r1, r2 = paper["r1_r2"][system][name]
        ours = ("not measured",) * 2
        if image:
            ours = (interval(image["auroc"]), f"{number(image['r1'])} / {number(image['r2'])}")
        published = paper["image_auroc"][system][name]
        rows.append((name, f"{published:.2f}", ours[0], f"{r1:.2f} / {r2:.2f}", ours[1]))
    return table(head, rows)


def studies(results: Path) -> list[Path]:
    return sorted((results / "studies").glob("*.json"))


def study_overview(path: Path) -> str:
    """Returns the one table of a study that says most."""
    record = read_json(path)
    return f"[{path.stem}](results/README.md#{path.stem})\n\n{markdown(overview(record))}"


def study_page(record: Row) -> str:
    """Returns all tables of a study.json, and below them how they are to be read."""
    tables = [f"**{each.title}**\n\n{markdown(each)}" for each in list_tables(record)]
    notes = "\n".join(f"- {note}" for note in list_notes(record))
    return "\n\n".join([*tables, notes])


def number(figure: dict[str, Any]) -> str:
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"


def interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def listed(rows: Sequence[Row], columns: Columns) -> str:
    """Returns a table of some columns of the rows."""
    return table(tuple(columns), [tuple(show(row) for show in columns.values()) for row in rows])


def markdown(each: Table) -> str:
    return table(each.head, each.rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table(path: Path) -> str:
    """Returns the peak memory of each run, and what it was of."""
    head = ("run", "images", "fields", "peak memory, GB")
    rows = [
        (name, str(each["images"]), " ".join(each["fields"]), f"{each['peak_bytes'] / 1e9:.2f}")
        for name, each in read_json(path)["runs"].items()
    ]
    return table(head, rows)


def fill(page: str, name: str, content: str) -> str:
    """Returns the page with what stands between <!-- name --> and <!-- /name --> replaced.

    Raises: UserError where the markers are missing.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begin, rest = page.partition(opening)
    _, end, after = rest.partition(closing)
    if not (begin and end):
        raise UserError(f"README.md: {opening} or {closing} is missing; put it back")
    return f"{before}{begin}\n{content}\n{end}{after}"


def fill_all(page: str, results: Path) -> str:
    """Returns the README with all its blocks filled from the records."""
    for name, content in render(results).items():
        page = fill(page, name, content)
    return page


if __name__ == "__main__":
    readme, results = ROOT / "README.md", ROOT / "results"
    write_text(readme, fill_all(readme.read_text("utf-8"), results))
    write_text(results / "README.md", render_all(results))
