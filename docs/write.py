"""Writes the tables of README.md, results/README.md and docs/choices.md, and docs/configs.md.

The tables come from results/: no number in them is typed by hand.

python -m docs.write          writes them
python -m docs.write --check  exit code 1 unless they are up to date and every record says which
                              commit, versions and device made it
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from docs import options
from docs.commands import commands_table
from docs.selection import selection_table
from sparse_ad.errors import UserError
from sparse_ad.evaluation.comparison import sample_std
from sparse_ad.evaluation.records import read_results
from sparse_ad.evaluation.results import Interval, Results
from sparse_ad.report.tables import markdown as table
from sparse_ad.studies.markdown import markdown, study_page
from sparse_ad.studies.published import published_tables
from sparse_ad.studies.results import StudyRecord
from sparse_ad.studies.tables import overview
from sparse_ad.system.files import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "results"
CHOICES, CONFIGS = ROOT / "docs" / "choices.md", ROOT / "docs" / "configs.md"
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
PUBLISHED = (  # column of the paper's Table 1, its title, and the path of our record
    ("sparse_coding", "sparse coding", "sparse_patches/mvtec_{}.json"),
    ("mlf_sc", "MLF-SC", "mlf_sc/mvtec_{}_published_code.json"),
)
DASH = "–"

DEFAULT = "sparse_features"  # the folder of records of the detector that the README begins with
SEED = re.compile(r"_seed\d+$")  # of a record's name, where an experiment was run with several

Records = dict[Path, Results]
Seeds = Sequence[Results]  # of one experiment, each of another seed
Row = dict[str, Any]  # of a benchmark: each has columns of its own


def counts(seeds: Seeds) -> str:
    """Returns the numbers of training, calibration and test images."""
    texts = (
        f"{train} / {calibration} / {normal + anomalous}"
        for train, calibration, normal, anomalous, _ in (each.counts for each in seeds)
    )
    return ", ".join(dict.fromkeys(texts))


def number(metrics: Sequence[Interval]) -> str:
    """Returns a metric, of several seeds as mean ± std; a dash where one is not defined."""
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) < len(metrics):
        return DASH
    std = sample_std(values)
    return f"{fmean(values):.3f}" + ("" if std is None else f" ± {std:.3f}")


def interval(metrics: Sequence[Interval]) -> str:
    """Returns a metric, of one seed with its interval."""
    low, high = metrics[0].low, metrics[0].high
    bounds = "" if len(metrics) > 1 or low is None else f" ({low:.3f}–{high:.3f})"
    return number(metrics) + bounds


def rates(seeds: Seeds) -> str:
    r1, r2 = ([getattr(each.image, name) for each in seeds] for name in ("r1", "r2"))
    return f"{number(r1)} / {number(r2)}"


def speed(seeds: Seeds) -> str:
    """Returns images per second; a dash where features came from disk: no speed of the whole."""
    if any(each.config.get("features", {}).get("cache_gb") for each in seeds):
        return DASH
    return f"{fmean(each.cost.images_per_second for each in seeds):.1f}"


MEASURED: dict[str, Callable[[Seeds], str]] = {  # title -> what it shows; first come config, data
    "train / calibration / test": counts,
    "image AUROC": lambda seeds: interval([each.image.auroc for each in seeds]),
    "AP": lambda seeds: number([each.image.ap for each in seeds]),
    "R1 / R2": rates,
    "pixel AUROC": lambda seeds: number([each.pixel.auroc for each in seeds]),
    "AUPRO 0.3": lambda seeds: number([each.pixel.aupro_30 for each in seeds]),
    "AUPRO 0.05": lambda seeds: number([each.pixel.aupro_05 for each in seeds]),
    "images/s": speed,
}
BRIEF = ("image AUROC", "R1 / R2", "AUPRO 0.3", "images/s")

Column = tuple[str, str, str]  # title, field of the row, format; "" shows it as it is
BENCHMARKS: dict[str, tuple[str, tuple[Column, ...]]] = {  # block of the README -> file, columns
    "speed": (
        "sparse_coding",
        (
            ("solver", "contender", ""),
            ("seconds", "seconds", ".2f"),
            ("ratio to homotopy", "over homotopy", ".1f"),
            ("largest relative gap", "largest gap", ".1e"),
            ("over its floor", "over floor", ".0f"),
        ),
    ),
    "learning": (
        "dictionary_learning",
        (
            ("learner", "learner", ""),
            ("passes", "passes", ""),
            ("seconds", "seconds", ".2f"),
            ("held-out objective", "held-out objective", ".3f"),
        ),
    ),
    "mlf-sc-speed": (
        "mlf_sc",
        (
            ("part", "part", ""),
            ("contender", "contender", ""),
            ("milliseconds", "seconds", "ms"),
            ("over its floor", "over floor", ".2f"),
            ("over its features", "over features", ".2f"),
            ("over ours", "over ours", ".2f"),
        ),
    ),
    "autoencoder-speed": (
        "autoencoder",
        (
            ("part", "part", ""),
            ("contender", "contender", ""),
            ("images/s", "images/s", ".0f"),
            ("slowest", "slowest", ".0f"),
            ("fastest", "fastest", ".0f"),
            ("share of peak", "share of peak", ".2f"),
        ),
    ),
}
SPEED: tuple[Column, ...] = (  # of benchmarks/sparse_features.json, in docs/choices.md
    ("variant", "variant", ""),
    ("part", "part", ""),
    ("milliseconds", "milliseconds", ".0f"),
    ("over the network", "by network", ".2f"),
)
IMPROVED: tuple[Column, ...] = (  # of benchmarks/choose_mlf_sc.json, in docs/choices.md
    ("variant", "variant", ""),
    ("changed", "candidate", ""),
    ("planted AUROC", "planted", ".3f"),
    ("test AUROC", "test", ".3f"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages or checks them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    check = parser.parse_args(arguments).check
    try:
        if check:
            return report_problems(RESULTS, README, CHOICES)
        for path, content in pages(RESULTS, README, CHOICES).items():
            write_text(path, content)
        write_text(CONFIGS, options.page())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report_problems(results: Path, readme: Path, choices: Path) -> int:
    """Prints what is out of date or missing; returns the exit code."""
    expected = pages(results, readme, choices) | {CONFIGS: options.page()}
    problems = [
        f"{path}: is out of date; run python -m docs.write"
        for path, content in expected.items()
        if not path.exists() or path.read_text("utf-8") != content
    ]
    problems += [
        f"{path}: lacks {name}" for path in records_of(results) for name in missing_origin(path)
    ]
    print("\n".join(problems) or "the pages are up to date")
    return int(bool(problems))


def missing_origin(path: Path) -> Iterator[str]:
    """Yields what a record does not say about how it was made."""
    environment = read_json(path, dict[str, Any])["environment"]
    commit = environment["commit"] or {}
    if not commit.get("id") or commit.get("dirty"):
        yield "a commit without later edits"
    if not environment["versions"].get("jax"):
        yield "the version of JAX"
    if not environment["device"].get("platform"):
        yield "the device"
    if not environment["command"]:
        yield "the command"


def pages(results: Path, readme: Path, choices: Path) -> dict[Path, str]:
    """Returns the pages, filled from the records."""
    return {
        readme: fill_all(readme, readme_blocks(results, readme)),
        choices: fill_all(choices, choices_blocks(results)),
        results / "README.md": all_records(results),
    }


def fill_all(path: Path, blocks: Mapping[str, str]) -> str:
    """Returns a page with its blocks replaced, by name."""
    content = path.read_text("utf-8")
    for name, block in blocks.items():
        content = fill(content, name, block, path.name)
    return content


def choices_blocks(results: Path) -> dict[str, str]:
    """Returns the blocks of docs/choices.md by name, as Markdown."""
    benchmarks = results / "benchmarks"
    return {
        "choices": selection_table(benchmarks / "choose_sparse_features.json"),
        "speed": benchmark_table(benchmarks / "sparse_features.json", SPEED),
        "improved": benchmark_table(benchmarks / "choose_mlf_sc.json", IMPROVED),
    }


def readme_blocks(results: Path, readme: Path) -> dict[str, str]:
    """Returns the blocks of the README by name, as Markdown."""
    real = {
        path: each for path, each in evaluations(results).items() if "generated" not in path.stem
    }
    studies = [
        f"[{path.stem}](results/README.md#{path.stem})\n\n{markdown(overview(record))}"
        for path, record in study_records(results).items()
    ]
    default = {path: each for path, each in real.items() if path.parent.name == DEFAULT}
    others = {path: each for path, each in real.items() if path not in default}
    return {
        "default": evaluation_table(by_experiment(default), readme.parent, BRIEF),
        "results": evaluation_table(by_experiment(others), readme.parent, BRIEF),
        "studies": "\n\n".join(studies),
        "memory": memory_table(results / "benchmarks" / "memory.json"),
        **{
            block: benchmark_table(results / "benchmarks" / f"{name}.json", columns)
            for block, (name, columns) in BENCHMARKS.items()
        },
    }


def all_records(results: Path) -> str:
    """Returns the page of all records."""
    parts = [
        "# All records",
        "Written by `python -m docs.write`. What the columns mean: [README](../README.md).",
        evaluation_table(by_record(evaluations(results)), results, tuple(MEASURED)),
        *(published_table(results, *each) for each in PUBLISHED),
        "Published: Imamura et al., *MLF-SC* (2021), Table 1. Our `grid` is no official split: "
        "22 training images stand in for its normal test images. `mvtec_grid_128` above is the "
        "official split, enlarged from 128x128.",
        *(
            f"## {path.stem}\n\n[Record](studies/{path.name})\n\n{study_page(record)}"
            for path, record in study_records(results).items()
        ),
        "## Commands\n\nAs they are given today. A record says how it was given when it was made.",
        commands_table(records_of(results), results),
    ]
    return "\n\n".join(parts) + "\n"


def records_of(results: Path) -> list[Path]:
    return sorted(results.glob("*/*.json"))


def evaluations(results: Path) -> Records:
    """Returns the records of evaluations by path."""
    folders = ("benchmarks", "studies")
    paths = [path for path in records_of(results) if path.parent.name not in folders]
    return {path: read_results(path) for path in paths}


def study_records(results: Path) -> dict[Path, StudyRecord]:
    paths = sorted((results / "studies").glob("*.json"))
    return {path: read_json(path, StudyRecord) for path in paths}


def by_record(records: Records) -> list[Records]:
    """Returns each record apart."""
    return [{path: results} for path, results in records.items()]


def by_experiment(records: Records) -> list[Records]:
    """Returns the records of each experiment: those whose names differ in the seed alone."""
    groups: dict[Path, Records] = defaultdict(dict)
    for path, results in records.items():
        groups[path.with_name(SEED.sub("", path.stem))][path] = results
    return list(groups.values())


def evaluation_table(experiments: Sequence[Records], page: Path, columns: Sequence[str]) -> str:
    """Returns a table of experiments, with links from the folder of the page to the records."""
    rows = [
        (
            next(iter(records)).parent.name,
            links(records, page),
            *(MEASURED[name](list(records.values())) for name in columns),
        )
        for records in experiments
    ]
    return table(("config", "data", *columns), rows)


def links(records: Records, page: Path) -> str:
    """Returns the name of an experiment, linked to its record, or to those of all its seeds."""
    paths = {path.stem: path.relative_to(page).as_posix() for path in records}
    if len(paths) == 1:
        return "".join(f"[{stem}]({path})" for stem, path in paths.items())
    each = ", ".join(
        f"[{results.config['seed']}]({path})"
        for results, path in zip(records.values(), paths.values(), strict=True)
    )
    return f"{SEED.sub('', next(iter(paths)))}, {len(paths)} seeds ({each})"


def benchmark_table(path: Path, columns: Sequence[Column]) -> str:
    """Returns a table of some columns of a benchmark."""
    rows = [
        [show(row.get(field), style) for _, field, style in columns]
        for row in read_json(path, dict[str, Any])["rows"]
    ]
    return table([title for title, *_ in columns], rows)


def show(value: Any, style: str) -> str:
    """Returns a value as text; a dash where there is none. "ms": seconds as milliseconds."""
    if value is None:
        return DASH
    return f"{1000 * value:.3g}" if style == "ms" else format(value, style) if style else str(value)


def memory_table(path: Path) -> str:
    """Returns the peak memory of each run, and what it was of."""
    head = ("run", "images", "fields", "peak memory, GB")
    rows = [
        (name, str(run["images"]), " ".join(run["fields"]), f"{run['peak_bytes'] / 1e9:.2f}")
        for name, run in read_json(path, dict[str, Any])["runs"].items()
    ]
    return table(head, rows)


def published_table(results: Path, system: str, title: str, path: str) -> str:
    """Returns the paper's metrics on MVTec AD textures beside ours, where ours were measured."""
    paper = published_tables()["imamura_mlf_sc"]
    head = (f"MVTec AD, {title}", "published AUROC", "ours", "published R1 / R2", "ours")
    rows = []
    for name in TEXTURES:
        record = results / path.format(name)
        measured = [
            read_results(each)
            for each in sorted(record.parent.glob(f"{record.stem}*.json"))
            if SEED.sub("", each.stem) == record.stem
        ]
        ours = ("not measured",) * 2
        if measured:
            ours = (interval([each.image.auroc for each in measured]), rates(measured))
        r1, r2 = paper["r1_r2"][system][name]
        published = paper["image_auroc"][system][name]
        rows.append((name, f"{published:.2f}", ours[0], f"{r1:.2f} / {r2:.2f}", ours[1]))
    return table(head, rows)


def fill(page: str, name: str, content: str, file: str) -> str:
    """Returns the page with what stands between <!-- name --> and <!-- /name --> replaced.

    Raises: UserError, which names the file, where the markers are missing.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"(?<={re.escape(opening)}\n).*?(?={re.escape(closing)})", re.DOTALL)
    if not pattern.search(page):
        raise UserError(f"{file}: {opening} or {closing} is missing; put it back")
    return pattern.sub(lambda _: f"{content}\n", page, count=1)


if __name__ == "__main__":
    sys.exit(main())
