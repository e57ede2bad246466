"""Studies: a grid of detectors, data and seeds, run cell by cell and tabulated beside the paper.

When a study was stopped, or cells of it failed, the same command resumes it: finished cells are
left alone, and a cell that was stopped continues from its checkpoint.
"""

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.evaluation.comparison import Comparison, compare, sample_std
from sparse_ad.evaluation.records import Scored, read_results, read_scores
from sparse_ad.evaluation.results import Interval
from sparse_ad.studies.grid import Cell, Study, list_cells
from sparse_ad.studies.markdown import study_page
from sparse_ad.studies.published import read_published
from sparse_ad.studies.results import (
    CellResult,
    Difference,
    RowInfo,
    StudyRecord,
    Summaries,
    Summary,
)
from sparse_ad.studies.tables import OWN, to_html
from sparse_ad.system.command_line import tell
from sparse_ad.system.environment import describe, shorten
from sparse_ad.system.files import write_json, write_text
from sparse_ad.system.names import printable
from sparse_ad.system.workdir import is_finished, plain

log = logging.getLogger(__name__)


def run(study: Study, workdir: Path) -> None:
    """Runs all cells that are not finished; writes study.json, study.md and study.html.

    Raises: UserError before the first cell for a field, config or value that is wrong; after the
    last one, with all that could be measured written, if any cell failed, naming each.
    """
    cells = list_cells(study, workdir)
    published = read_published(study)  # a wrong name fails now, not after hours
    failed = run_cells(cells)
    done = [cell for cell in cells if cell.path not in failed]
    results = tuple(measure_cell(cell) for cell in done)
    summary = summarise(results)
    record = StudyRecord(
        name=study.name,
        study=plain(study) | {"root": shorten(study.root)},
        environment=describe(),
        rows={row.key: RowInfo(row.title, row.config, row.check) for _, row, *_ in cells},
        blocks={block.key: block.title for block, *_ in cells},
        published=published,
        cells=results,
        failed=failed,
        summary=summary,
        differences=measure_differences(study, done, summary),
    )
    write_study(workdir, record)
    if failed:
        reasons = "; ".join(f"{cell}: {reason}" for cell, reason in failed.items())
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed; correct the mistakes and run the same "
            f"command again: {reasons}"
        )


def write_study(workdir: Path, record: StudyRecord) -> None:
    """Writes the record and its pages, and prints the tables."""
    page = study_page(record)
    write_json(workdir / "study.json", record)
    write_text(workdir / "study.md", f"{page}\n")
    write_text(workdir / "study.html", to_html(record))
    print(f"{page}\n\n{printable(workdir / 'study.html')}")


def run_cells(cells: Sequence[Cell]) -> dict[str, str]:
    """Runs the cells that are not finished. Returns those that failed, and why."""
    todo, failed = [cell for cell in cells if not _finished(cell)], {}
    log.info("%d cells, %d of them finished already", len(cells), len(cells) - len(todo))
    spent, start = defaultdict(list), time.monotonic()
    for number, cell in enumerate(todo):
        left = _estimate(todo[number:], spent)
        so_far = f"{(time.monotonic() - start) / 60:.0f} min so far, {left}"
        log.info("cell %d of %d: %s; %s", number + 1, len(todo), cell.path, so_far)
        begun = time.monotonic()
        try:
            stages.run(cell.experiment, cell.workdir)
            spent[cell.row.key].append(time.monotonic() - begun)
        except UserError as error:
            failed[cell.path] = str(error)
            tell(f"error: {cell.path}: {error}")
        except Exception as error:  # out of memory, a bug: the other cells can still run
            failed[cell.path] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.exception("%s failed", cell.path)
        jax.clear_caches()  # programs of one cell are of no use to the next
        gc.collect()
    return failed


def measure_cell(cell: Cell) -> CellResult:
    """Returns the metrics of a finished cell."""
    results = read_results(cell.workdir / "results.json")
    image = results.image
    kinds = {kind: metrics.auroc for kind, metrics in results.kinds.items()}
    return CellResult(
        block=cell.block.key,
        row=cell.row.key,
        seed=cell.seed,
        path=cell.path,
        config=cell.row.config,
        overrides={name: shorten(text) for name, text in cell.overrides.items()},
        auroc=kinds | {"all": image.auroc},
        **{name: getattr(image, name) for name in ("ap", "r1", "r2")},
        pixel=results.pixel,
        counts=results.counts,
        fit=results.fit,
        images_per_second=results.cost.images_per_second,
        environment={name: results.environment[name] for name in ("commit", "device", "time")},
        score_info=results.score_info,
    )


def summarise(cells: Sequence[CellResult]) -> Summaries:
    """Returns the metrics over seeds, by block, row and column."""
    metrics: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        for column, metric in (cell.auroc | {"r1": cell.r1, "r2": cell.r2}).items():
            if metric.value is not None:
                metrics[cell.block][cell.row][column].append(metric)
    return {
        block: {
            row: {column: _over_seeds(every) for column, every in columns.items()}
            for row, columns in rows.items()
        }
        for block, rows in metrics.items()
    }


def measure_differences(
    study: Study, cells: Sequence[Cell], summary: Summaries
) -> tuple[Difference, ...]:
    """Returns for each block what `compare` asks for, and detectors less their strongest check.

    The strongest is the check with the highest AUROC on the test images: chosen to the advantage
    of the checks. A detector does not beat it unless the interval lies above 0.
    """
    differences = []
    for block, rows in summary.items():
        scored = _read_block(cells, block)
        measured = {row for row, columns in rows.items() if "all" in columns}
        checks = {cell.row.key for cell in cells if cell.row.check} & measured
        pairs = [(*pair, "compare") for pair in study.compare if set(pair) <= rows.keys()]
        if checks:
            strongest = max(sorted(checks), key=lambda row, rows=rows: rows[row]["all"].value)
            pairs += [(row, strongest, "check") for row in rows if row in measured - checks]
        for row, less, purpose in pairs:
            columns = rows[row].keys() - set(OWN) if purpose == "compare" else {"all"}
            auroc = {
                column: _paired(scored[row], scored[less], column, study.bootstrap)
                for column in sorted(columns)
            }
            differences.append(Difference(block, row, less, purpose, auroc))
    return tuple(differences)


def _read_block(cells: Sequence[Cell], block: str) -> dict[str, dict[int, Scored]]:
    """The scores of all cells of a block, by row and seed."""
    scored = defaultdict(dict)
    for cell in cells:
        if cell.block.key == block:
            scored[cell.row.key][cell.seed] = read_scores(cell.workdir / "scores.csv")
    return scored


def _paired(
    runs: Mapping[int, Scored], others: Mapping[int, Scored], column: str, resamples: int
) -> Comparison:
    seeds = sorted(runs.keys() & others.keys())
    one, two = ([by_seed[seed] for seed in seeds] for by_seed in (runs, others))
    return compare(one, two, column, resamples, seed=0)


def _over_seeds(metrics: Sequence[Interval]) -> Summary:
    values = np.array([metric.value for metric in metrics], float)
    summary = Summary(float(values.mean()), sample_std(values.tolist()), len(values))
    if len(metrics) > 1:
        return summary
    return summary._replace(low=metrics[0].low, high=metrics[0].high)


def _finished(cell: Cell) -> bool:
    """Whether a cell has its results; where its files are damaged, running it reports that."""
    try:
        return is_finished(cell.workdir, cell.experiment)
    except UserError:
        return False


def _estimate(todo: Sequence[Cell], spent: dict[str, list[float]]) -> str:
    """How long the cells will take, by the time of their row so far, or else of all rows."""
    known = [seconds for row in spent.values() for seconds in row]
    if not known:
        return "time to go not known yet"
    each = (np.mean(spent[cell.row.key] if spent.get(cell.row.key) else known) for cell in todo)
    return f"about {sum(each) / 60:.0f} min to go"
