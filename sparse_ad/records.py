"""Writes the README's tables from the records in results/: no figure is typed by hand.

python -m sparse_ad.records
"""

from pathlib import Path
from typing import Any

from sparse_ad.errors import UserError
from sparse_ad.files import read_json, write_text
from sparse_ad.study_notes import list_notes
from sparse_ad.study_tables import list_tables

ROOT = Path(__file__).resolve().parent.parent
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
PUBLISHED = (  # column of the paper's Table 1, its title, and where ours would be
    ("sparse_coding", "sparse coding", "sparse_patches/mvtec_{}.json"),
    ("mlf_sc", "MLF-SC", "mlf_sc/mvtec_{}_published_code.json"),
)


def render(results: Path) -> dict[str, str]:
    """Returns the README's blocks by name, as Markdown, from the records below `results`."""
    published = [published_table(results, *each) for each in PUBLISHED]
    return {
        "results": "\n\n".join([measured_table(results), *published]),
        "studies": studies(results / "studies"),
        "speed": speed_table(results / "benchmarks" / "sparse_coding.json"),
        "mlf-sc-speed": parts_table(results / "benchmarks" / "mlf_sc.json"),
        "autoencoder-speed": networks_table(results / "benchmarks" / "autoencoder.json"),
        "choice": choice_table(results / "benchmarks" / "choose_mlf_sc.json"),
        "memory": memory_table(results / "benchmarks" / "memory.json"),
        "learning": learning_table(results / "benchmarks" / "dictionary_learning.json"),
    }


def measured_table(results: Path) -> str:
    """Returns a row for each record: what the program measured, with 95 % intervals."""
    head = ("config", "data", "train / calibration / test", "image AUROC", "AP", "R1 / R2")
    head += ("pixel AUROC", "AUPRO 0.3", "AUPRO 0.05", "images/s")
    rows = []
    for path in sorted(results.glob("*/*.json")):
        record = read_json(path)
        if "image" in record:
            rows.append(
                (path.parent.name, f"[{path.stem}]({path.relative_to(ROOT)})", *row(record))
            )
    return table(head, rows)


def row(record: dict[str, Any]) -> tuple[str, ...]:
    counts, image, pixel = record["counts"], record["image"], record["pixel"]
    tested = counts["test_normal"] + counts["test_anomalous"]
    cached = record["config"].get("features", {}).get("cache_gb")  # no speed of the whole
    return (
        f"{counts['train']} / {counts['calibration']} / {tested}",
        interval(image["auroc"]),
        number(image["ap"]),
        f"{number(image['r1'])} / {number(image['r2'])}",
        *(number(pixel[name]) for name in ("auroc", "aupro_0.3", "aupro_0.05")),
        "–" if cached else f"{record['cost']['images_per_second']:.1f}",
    )


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


def studies(folder: Path) -> str:
    """Returns the tables of every recorded study, ours beside the published."""
    pages = [
        f"### [{path.stem}]({path.relative_to(ROOT)})\n\n{study_page(read_json(path))}"
        for path in sorted(folder.glob("*.json"))
    ]
    return "\n\n".join(pages) or "None is recorded yet."


def study_page(record: dict[str, Any]) -> str:
    """Returns all tables of a study.json, and below them how they are to be read."""
    tables = [f"**{each.title}**\n\n{table(each.head, each.rows)}" for each in list_tables(record)]
    return "\n\n".join([*tables, "\n".join(f"- {note}" for note in list_notes(record))])


def parts_table(path: Path) -> str:
    """Returns how long MLF-SC's parts took, and their peers."""
    head = ("part", "contender", "milliseconds", "over its floor", "over its features")
    head += ("over ours",)

    def ratio(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    rows = [
        (
            each["part"],
            each["contender"],
            f"{1000 * each['seconds']:.3g}",
            ratio(each.get("over floor")),
            ratio(each.get("over features")),
            ratio(each.get("over ours")),
        )
        for each in read_json(path)["rows"]
    ]
    return table(head, rows)


def networks_table(path: Path) -> str:
    """Returns how many images a second an auto-encoder learns from and scores, and its peers."""
    head = ("part", "contender", "images/s", "share of peak")
    rows = [
        (
            each["part"],
            each["contender"],
            f"{each['images/s']:.1f}",
            f"{each['share of peak']:.2f}",
        )
        for each in read_json(path)["rows"]
    ]
    return table(head, rows)


def choice_table(path: Path) -> str:
    """Returns what variants of MLF-SC gave: on planted defects, which chose, and on the test."""
    record = read_json(path)
    head = ("variant", "changed", "planted AUROC", "test AUROC")
    rows = [
        (
            each["variant"],
            each["candidate"],
            f"{each['planted']:.3f}",
            f"{each['test']:.3f}",
        )
        for each in record["rows"]
    ]
    return table(head, rows)


def number(figure: dict[str, Any]) -> str:
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"


def interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def speed_table(path: Path) -> str:
    """Returns how long each contender took to code the same patches, and how exactly."""
    head = ("solver", "seconds", "ratio to homotopy", "largest relative gap", "over its floor")
    rows = [
        (
            each["contender"],
            f"{each['seconds']:.2f}",
            f"{each['over homotopy']:.1f}",
            f"{each['largest gap']:.1e}",
            f"{each['over floor']:.0f}" if each["over floor"] else "–",
        )
        for each in read_json(path)["rows"]
    ]
    return table(head, rows)


def learning_table(path: Path) -> str:
    """Returns what each learner reached on held-out patches, and in what time."""
    head = ("learner", "passes", "seconds", "held-out objective")
    rows = [
        (
            each["learner"],
            str(each["passes"]),
            f"{each['seconds']:.2f}",
            f"{each['held-out objective']:.3f}",
        )
        for each in read_json(path)["rows"]
    ]
    return table(head, rows)


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
    readme = ROOT / "README.md"
    write_text(readme, fill_all(readme.read_text("utf-8"), ROOT / "results"))
