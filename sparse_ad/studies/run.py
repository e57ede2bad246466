"""Studies: a grid of detectors, data and seeds, run cell by cell and laid out beside the paper.

A study that was stopped, or of which cells failed, goes on when the same command is given again:
cells that are finished are left alone, and one that was stopped goes on from its checkpoint.
"""

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.evaluation.comparison import Scored, compare, deviation, read_scores
from sparse_ad.studies.grid import PUBLISHED, Cell, list_cells, read_published
from sparse_ad.studies.records import study_page
from sparse_ad.studies.tables import to_html
from sparse_ad.system.command_line import tell
from sparse_ad.system.environment import describe, shorten_command
from sparse_ad.system.files import read_json, write_json, write_text
from sparse_ad.system.workdir import is_finished, plain

log = logging.getLogger(__name__)


def run(study: ConfigDict, workdir: Path) -> None:
    """Runs all cells that are not finished; writes study.json, study.md and study.html.

    Raises: UserError before the first cell for a field, config or value that is wrong; after the
    last one, with all that could be measured written, if any cell failed, naming each.
    """
    cells = list_cells(study, workdir)
    published = read_published(study, read_json(PUBLISHED))
    failed = run_cells(cells)
    done = [cell for cell in cells if cell.place not in failed]
    record = {
        "name": study.name,
        "study": plain(study) | {"root": shorten_command([study.root])},
        "environment": describe(),
        "rows": {cell.row.key: _told(cell.row) for cell in cells},
        "blocks": {cell.block.key: cell.block.title for cell in cells},
        "published": published,
        "cells": [measure_cell(cell) for cell in done],
        "failed": failed,
    }
    record["summary"] = summarise(record["cells"])
    record["differences"] = measure_differences(study, done, record["summary"])
    write_json(workdir / "study.json", record)
    page = study_page(record)
    write_text(workdir / "study.md", f"{page}\n")
    write_text(workdir / "study.html", to_html(record))
    print(f"{page}\n\n{workdir / 'study.html'}")
    if failed:
        places = "; ".join(f"{place}: {reason}" for place, reason in failed.items())
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed; mend and give the command again: {places}"
        )


def run_cells(cells: Sequence[Cell]) -> dict[str, str]:
    """Runs the cells that are not finished. Returns those that failed, and why."""
    todo, failed = [cell for cell in cells if not _finished(cell)], {}
    log.info("%d cells, %d of them finished already", len(cells), len(cells) - len(todo))
    spent, start = defaultdict(list), time.monotonic()
    for number, cell in enumerate(todo):
        left = _estimate(todo[number:], spent)
        so_far = f"{(time.monotonic() - start) / 60:.0f} min so far, {left}"
        log.info("cell %d of %d: %s; %s", number + 1, len(todo), cell.place, so_far)
        begun = time.monotonic()
        try:
            stages.run(cell.config, cell.workdir)
            spent[cell.row.key].append(time.monotonic() - begun)
        except UserError as error:
            failed[cell.place] = str(error)
            tell(f"error: {cell.place}: {error}")
        except Exception as error:  # out of memory, a fault of ours: the other cells can go on
            failed[cell.place] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.exception("%s failed", cell.place)
        jax.clear_caches()  # programs of one cell are of no use to the next
        gc.collect()
    return failed


def measure_cell(cell: Cell) -> dict[str, Any]:
    """Returns the figures of a finished cell."""
    names = ("image", "kinds", "pixel", "score_info", "environment")
    results = read_json(cell.workdir / "results.json", names)
    image, pixel, environment = (results[name] for name in ("image", "pixel", "environment"))
    kinds = {kind: figures["auroc"] for kind, figures in results["kinds"].items()}
    return {
        "block": cell.block.key,
        "row": cell.row.key,
        "seed": cell.seed,
        "place": cell.place,
        "config": cell.row.config,
        "overrides": {name: shorten_command([text]) for name, text in cell.overrides.items()},
        "auroc": kinds | {"all": image["auroc"]},
        **{name: image[name] for name in ("ap", "r1", "r2")},
        "pixel": {name: pixel[name] for name in ("auroc", "aupro_0.3", "aupro_0.05")},
        "score_info": results["score_info"],
        "counts": results["counts"],
        "fit": {name: results["fit"][name] for name in ("steps", "images", "seconds")},
        "images_per_second": results["cost"]["images_per_second"],
        "environment": {name: environment[name] for name in ("commit", "device", "time")},
    }


def summarise(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns block -> row -> column -> figure, over seeds; columns: kinds, "all", "r1", "r2".

    A figure: value (mean over seeds), deviation (None with one seed), seeds, and with one seed
    the interval low, high over its test images.
    """
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        for column, figure in (cell["auroc"] | {"r1": cell["r1"], "r2": cell["r2"]}).items():
            if figure["value"] is not None:
                found[cell["block"]][cell["row"]][column].append(figure)
    return {
        block: {
            row: {column: _over_seeds(figures) for column, figures in columns.items()}
            for row, columns in rows.items()
        }
        for block, rows in found.items()
    }


def measure_differences(
    study: ConfigDict, cells: Sequence[Cell], summary: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns for each block what `compare` asks for, and detectors less their strongest check.

    The strongest is the check with the highest AUROC on the test images: chosen to the advantage
    of the checks. A detector does not beat it unless the interval lies above 0.
    """
    differences = []
    for block, rows in summary.items():
        scored = defaultdict(dict)
        for cell in cells:
            if cell.block.key == block:
                scored[cell.row.key][cell.seed] = read_scores(cell.workdir / "scores.csv")
        checks = {cell.row.key for cell in cells if cell.row.check} & rows.keys()
        wanted = [(*pair, "compare") for pair in study.compare if set(pair) <= rows.keys()]
        if checks:
            strongest = max(sorted(checks), key=lambda row: rows[row]["all"]["value"])
            wanted += [(row, strongest, "check") for row in rows if row not in checks]
        for one, other, reason in wanted:
            columns = rows[one].keys() - {"r1", "r2"} if reason == "compare" else {"all"}
            figures = {
                column: _paired(scored[one], scored[other], column, study.bootstrap)
                for column in sorted(columns)
            }
            differences.append(
                {"block": block, "row": one, "less": other, "for": reason, "auroc": figures}
            )
    return differences


def _paired(these: dict[int, Scored], those: dict[int, Scored], column: str, resamples: int):
    seeds = sorted(these.keys() & those.keys())
    runs = ([each[seed] for seed in seeds] for each in (these, those))
    return compare(*runs, column, resamples, seed=0)


def _over_seeds(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [figure["value"] for figure in figures]
    found = {"value": float(np.mean(values)), "deviation": deviation(values), "seeds": len(values)}
    return found if len(values) > 1 else figures[0] | found


def _told(row) -> dict[str, Any]:
    return {"title": row.title, "config": row.config, "check": row.check}


def _finished(cell: Cell) -> bool:
    """Tells whether a cell has its results; where its files are damaged, running it will say so."""
    try:
        return is_finished(cell.workdir, cell.config)
    except UserError:
        return False


def _estimate(todo: Sequence[Cell], spent: dict[str, list[float]]) -> str:
    """How long the cells will take, by those of their row, or by all of them, so far."""
    known = [seconds for row in spent.values() for seconds in row]
    if not known:
        return "time to go not known yet"
    each = (np.mean(spent[cell.row.key] if spent.get(cell.row.key) else known) for cell in todo)
    return f"about {sum(each) / 60:.0f} min to go"
