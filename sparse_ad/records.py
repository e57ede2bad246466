"""Writes the README's tables from the records in results/: no figure is typed by hand.

python -m sparse_ad.records
"""

from pathlib import Path
from typing import Any

from sparse_ad.errors import UserError
from sparse_ad.files import read_json, write_text

ROOT = Path(__file__).resolve().parent.parent
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def render(results: Path) -> str:
    """Returns the tables of all records below `results` as Markdown."""
    return f"{measured_table(results)}\n\n{published_table(results)}"


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
    return (
        f"{counts['train']} / {counts['calibration']} / {tested}",
        interval(image["auroc"]),
        number(image["ap"]),
        f"{number(image['r1'])} / {number(image['r2'])}",
        *(number(pixel[name]) for name in ("auroc", "aupro_0.3", "aupro_0.05")),
        f"{record['cost']['images_per_second']:.1f}",
    )


def published_table(results: Path) -> str:
    """Returns the paper's figures for MVTec AD textures beside ours, where ours were measured."""
    paper = read_json(results / "published.json")["imamura_mlf_sc"]
    head = ("MVTec AD", "published AUROC", "ours", "published R1 / R2", "ours")
    rows = []
    for name in TEXTURES:
        path = results / "sparse_patches" / f"mvtec_{name}.json"
        image = read_json(path)["image"] if path.exists() else None
        r1, r2 = paper["r1_r2"]["sparse_coding"][name]
        ours = ("not measured",) * 2
        if image:
            ours = (interval(image["auroc"]), f"{number(image['r1'])} / {number(image['r2'])}")
        published = paper["image_auroc"]["sparse_coding"][name]
        rows.append((name, f"{published:.2f}", ours[0], f"{r1:.2f} / {r2:.2f}", ours[1]))
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


def fill(readme: str, content: str) -> str:
    """Returns the README with what stands between its markers replaced.

    Raises: UserError where the markers are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"README.md: the markers {BEGIN} and {END} are missing; put them back")
    return f"{before}{begin}\n{content}\n{end}{after}"


if __name__ == "__main__":
    page = ROOT / "README.md"
    write_text(page, fill(page.read_text("utf-8"), render(ROOT / "results")))
