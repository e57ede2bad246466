"""Studies: the grid, its cells run and resumed, the tables, and every config of configs/studies."""

import gc
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from helpers.evaluating import ABOUT
from helpers.evaluating import run as evaluate
from helpers.launching import ROOT, contents, launch
from helpers.made_up import make_folder
from helpers.toy import examples, fit, mean_image

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.evaluation.records import read_results, write_results
from sparse_ad.methods.compiled import compile_score
from sparse_ad.options import read, section
from sparse_ad.studies import run, tables
from sparse_ad.studies.grid import Block, PublishedTables, Row, Study, list_cells
from sparse_ad.studies.markdown import study_page
from sparse_ad.studies.notes import MARK
from sparse_ad.studies.published import read_published
from sparse_ad.studies.results import Published, StudyRecord
from sparse_ad.system.command_line import load_config, require_kind
from sparse_ad.system.environment import describe
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.signals import Stopped
from sparse_ad.system.workdir import open_workdir, plain
from sparse_ad.types import Splits

CONFIG = """
from sparse_ad.data.sources.generated import Generated
from sparse_ad.experiment import Experiment
from sparse_ad.options import section
def get_config(name="toy"):
    data = Generated(size=(32, 32), category="carpet", count=(12, 8, 8))
    return section(Experiment(name, data=data))
"""
STUDIES = sorted(
    (path.stem, variant)
    for path in (ROOT / "configs" / "studies").glob("[!_]*.py")
    if path.stem != "base"
    for variant in getattr(
        importlib.import_module(f"configs.studies.{path.stem}"), "VARIANTS", [""]
    )
)


def blind_score(params, images):
    """The scores of the toy, but all images look alike."""
    scores = toy_score(params, images)
    return scores._replace(image=np.zeros(len(images), np.float32))


toy_score = compile_score(mean_image())
DETECTORS = {"toy": toy_score, "blind": blind_score}


def run_cell(experiment, workdir, kinds=("cut", "hole")):
    """Leaves what `stages.run` would, of images that depend on the seed and the category."""
    open_workdir(workdir, experiment)
    if experiment.name not in DETECTORS:
        raise UserError("method.penalty = 9: is never right")
    seed = 10 * experiment.seed + len(experiment.data.category)
    normal = [examples(12, 0, "good", seed + 100 * part) for part in (1, 2, 3)]
    anomalous = {
        "cut": examples(6, 1, "cut", seed),
        "hole": examples(6, 1, "hole", seed + 1, strength=25),
    }
    splits = Splits(*normal[:2], sum((anomalous[kind] for kind in kinds), normal[2]))
    about = ABOUT._replace(config=plain(experiment), environment=describe())
    score = DETECTORS[experiment.name]
    calibration, results, rows = evaluate(score, fit(splits), splits, about=about)
    write_json(workdir / "calibration.json", calibration)
    (workdir / "report.html").write_text("report")
    write_results(workdir, results, rows)


@pytest.fixture(autouse=True, scope="module")
def cells_are_cheap():
    """What the toy compiles is kept, for the other tests, and no garbage is looked for."""
    with (
        mock.patch.object(stages, "run", run_cell),
        mock.patch.object(jax, "clear_caches"),
        mock.patch.object(gc, "collect"),
    ):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config file."""
    path = tmp_path_factory.mktemp("study")
    (path / "detector.py").write_text(CONFIG)
    return path


def make_study(folder, *rows, **fields) -> Study:
    """A study of a toy, a short-sighted one and a blind check, in two blocks."""
    file = f"{folder / 'detector.py'}"
    defaults = {
        "name": "made up",
        "rows": rows
        or (
            Row("mlf_sc", "Toy", f"{file}:toy"),
            Row("short", "Short", f"{file}:blind", ("fit.epochs=2",)),
            Row("check", "Check", f"{file}:blind", check=True),
        ),
        "blocks": (
            Block("carpet", "Carpets", ("data.category=carpet",)),
            Block("wood", "Woods", ("data.category=wood",)),
        ),
        "common": ("fit.epochs=1",),
        "compare": (("mlf_sc", "short"),),
        "bootstrap": 20,
    }
    return Study(**defaults | fields)


def metrics(workdir) -> dict:
    """study.json without times."""
    record = json.loads((workdir / "study.json").read_text())
    del record["environment"]
    for cell in record["cells"]:
        del cell["environment"], cell["fit"]["seconds"], cell["images_per_second"]
    return record


@pytest.fixture(scope="module")
def finished(folder, cells_are_cheap):
    """The workdir of a study with two seeds."""
    run.run(make_study(folder, seeds=(0, 3)), folder / "work")
    return folder / "work"


@pytest.fixture
def record(finished):
    return read_json(finished / "study.json", StudyRecord)


def test_cells_come_seed_by_seed_and_the_more_specific_override_wins(folder, tmp_path):
    rows = (
        Row("a", "A", f"{folder / 'detector.py'}:toy", ("data.size=(40, 40)",)),
        Row("b", "B", f"{folder / 'detector.py'}:blind"),
    )
    common = ("data.size=(48, 48)", "data.count=(1, 2, 3)", "name={root}/x", "fit.epochs=7")
    fields = {"common": common, "overrides": ("fit.epochs=9",), "root": "/data", "compare": ()}
    config = make_study(folder, *rows, seeds=(4, 2), **fields)
    paths = [
        f"{block}/{row}/seed{seed}"
        for seed in (4, 2)
        for block in ("carpet", "wood")
        for row in ("a", "b")
    ]
    assert [cell.path for cell in list_cells(config, tmp_path)] == paths
    paths = [path for path in paths if "wood" in path]
    cells = list_cells(replace(config, only_blocks=("wood",)), tmp_path)
    assert [cell.path for cell in cells] == paths
    assert [cell.workdir for cell in cells] == [tmp_path / path for path in paths]
    assert [cell.experiment.seed for cell in cells] == [4, 4, 2, 2]
    assert [cell.experiment.data.size for cell in cells[:2]] == [(40, 40), (48, 48)]
    for cell in cells:
        assert cell.experiment.data.category == "wood" and cell.experiment.name == "/data/x"
        assert cell.experiment.fit.epochs == 9.0 and cell.experiment.data.count == (1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"common": ("fit.epocs=1",)},
            ["carpet/mlf_sc/seed0", "fit.epocs", "fit.epochs"],
        ),
        ({"overrides": ("fit.epochs=many",)}, ["carpet/mlf_sc/seed0", "fit.epochs"]),
        ({"overrides": ("fit.epochs",)}, ["overrides = 'fit.epochs'", "field=value"]),
        ({"common": ("data.root={root}",)}, ["root = ''", "--config.root"]),
        ({"only_rows": ("toi",)}, ["only_rows = 'toi'", "check, mlf_sc, short"]),
        ({"only_blocks": ("steel",)}, ["only_blocks = 'steel'", "carpet, wood"]),
        ({"blocks": ()}, ["blocks = ()"]),
        ({"seeds": (1, 1)}, ["seeds = (1, 1)", "different"]),
        ({"seeds": ()}, ["seeds = ()"]),
        ({"columns": "rows"}, ["columns = 'rows'", "blocks, kinds"]),
        ({"compare": (("mlf_sc", "longer"),)}, ["compare = 'longer'"]),
        ({"bootstrap": 0}, ["bootstrap = 0"]),
        (
            {"rows": (Row("a", "A", "configs/none.py"),), "compare": ()},
            ["carpet/a/seed0", "none.py"],
        ),
    ],
)
def test_a_wrong_study_is_refused_before_its_first_cell(folder, tmp_path, fields, parts):
    with mock.patch.object(stages, "run") as started, pytest.raises(UserError) as raised:
        run.run(make_study(folder, **fields), tmp_path)
    for part in parts:
        assert part in str(raised.value)
    assert not started.called and not list(tmp_path.iterdir())


def test_a_study_and_a_run_are_not_confused(folder):
    with pytest.raises(
        UserError, match=r"no study.*mvtec_textures\.py, .*reconstruction\.py, .*sparsity\.py"
    ):
        require_kind(load_config("configs/pca.py"), study=True)
    with pytest.raises(UserError, match="--mode=study"):
        require_kind(section(make_study(folder)), study=False)


def test_a_published_table_that_is_not_there_is_refused(folder):
    study = make_study(folder, published=PublishedTables("imamura_mlf_sc.auroc"))
    with pytest.raises(UserError, match=r"published\.auroc = 'imamura_mlf_sc\.auroc'"):
        read_published(study)


def test_metrics_are_means_over_seeds_of_those_of_the_cells(finished, record):
    assert len(record.cells) == 12 and not record.failed
    for block in ("carpet", "wood"):
        for row in ("mlf_sc", "short", "check"):
            paths = [finished / block / row / f"seed{seed}" / "results.json" for seed in (0, 3)]
            results = [read_results(path) for path in paths]
            summary = record.summary[block][row]
            values = [each.image.auroc.value for each in results]
            assert summary["all"].value == pytest.approx(np.mean(values))
            assert summary["all"].std == pytest.approx(np.std(values, ddof=1))
            r1 = [each.image.r1.value for each in results]
            assert summary["r1"].value == pytest.approx(np.mean(r1))
            for kind in ("cut", "hole"):
                values = [each.kinds[kind].auroc.value for each in results]
                assert summary[kind].value == pytest.approx(np.mean(values))
    cell = record.cells[-1]
    assert cell.overrides == {"fit.epochs": "1", "data.category": "wood", "seed": "3"}
    assert cell.environment["commit"] == record.environment["commit"]


def test_study_json_keeps_its_names(finished, record):
    content = json.loads((finished / "study.json").read_text())
    assert [cell["place"] for cell in content["cells"]] == [cell.path for cell in record.cells]
    assert content["differences"][0]["for"] == "compare"
    summary = content["summary"]["wood"]["short"]["all"]
    assert summary["deviation"] == record.summary["wood"]["short"]["all"].std == 0


def test_differences_are_those_of_the_summary(record):
    kinds = {(each.block, each.row, each.less, each.purpose) for each in record.differences}
    assert kinds == {
        (block, row, less, reason)
        for block in ("carpet", "wood")
        for row, less, reason in (
            ("mlf_sc", "short", "compare"),
            ("mlf_sc", "check", "check"),
            ("short", "check", "check"),
        )
    }
    for each in record.differences:
        rows = record.summary[each.block]
        for column, difference in each.auroc.items():
            expected = rows[each.row][column].value - rows[each.less][column].value
            assert difference.value == pytest.approx(expected)
            assert difference.low <= difference.value <= difference.high


def test_a_detector_that_does_not_beat_the_checks_is_marked(finished, record):
    marks = {row: tables.mark(record, "carpet", row) for row in record.rows}
    assert record.summary["carpet"]["mlf_sc"]["all"].value > 0.8  # of a blind check: 0.5
    assert marks == {"mlf_sc": "", "short": MARK, "check": ""}
    within_chance = [  # better on average, but not by more than chance explains
        each._replace(auroc={"all": each.auroc["all"]._replace(value=0.2, low=-0.1)})
        for each in record.differences
    ]
    record = record._replace(differences=tuple(within_chance))
    assert tables.mark(record, "carpet", "mlf_sc") == MARK
    assert "Short †" in (finished / "study.md").read_text()


def test_the_fraction_of_active_units_is_shown_where_there_are_any(record):
    assert all("brightness" in cell.score_info for cell in record.cells)
    assert not list(tables.active_units(record))
    active = {("carpet", 0): 0.2, ("carpet", 3): 0.4, ("wood", 0): 1.0, ("wood", 3): 1.0}
    cells = [
        cell._replace(score_info={"active": active[cell.block, cell.seed], "penalty": 1e-4})
        if cell.row == "short"
        else cell
        for cell in record.cells
    ]
    record = record._replace(cells=tuple(cells))
    (table,) = tables.active_units(record)
    assert table.head == ("", *record.blocks.values())
    assert table.rows == [("Short", "30.0% (0.0001)", "100.0% (0.0001)")]
    assert table.title in study_page(record)


def test_tables_show_ours_beside_the_published(record):
    published = Published(auroc={"mlf_sc": {"hole": 0.61, "all": 0.72}}, source="Table 9")
    record = record._replace(published=published)
    metric = record.summary["carpet"]["mlf_sc"]["all"]
    first = tables.auroc_of_kinds(record, "carpet")
    assert first.head == ("", "HOLE", "CUT", "ALL")  # the published ones first
    assert first.rows[0][-1] == f"{metric.value:.3f} ± {metric.std:.3f}"
    assert first.rows[1] == ("published", "0.61", "–", "0.72")
    page = study_page(record)
    for text in ("Table 9", "2 seeds (0, 3)", "Carpets", "Toy less Short", "Commit", "test images"):
        assert text in page
    assert "All: fit.epochs=1." not in page and "Toy, Check: fit.epochs=1." in page
    assert "Short: fit.epochs=2." in page


def test_a_table_may_have_the_blocks_as_columns(record, folder):
    names = PublishedTables("imamura_mlf_sc.image_auroc", "imamura_mlf_sc.r1_r2")
    published = read_published(make_study(folder, published=names))
    record = record._replace(study=record.study | {"columns": "blocks"}, published=published)
    auroc, rates, gains = tables.list_tables(record)
    assert auroc.head == ("", "Carpets", "Woods", "mean")
    assert auroc.rows[1] == ("published", "0.99", "0.99", "0.97")
    assert rates.rows[1] == ("published", "1.00 / 0.98", "0.95 / 0.98")
    both = [record.summary[block]["mlf_sc"]["all"].value for block in ("carpet", "wood")]
    assert auroc.rows[0][-1] == f"{np.mean(both):.3f}"
    assert gains.rows[0][0] == "Toy less Short" and len(gains.rows[0]) == 3


def test_the_page_links_to_reports_that_are_there(finished):
    page = (finished / "study.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 12
    for link in links:
        assert (finished / link).exists()


def test_a_finished_study_runs_no_cell_again(folder, finished):
    before, known = contents(finished), metrics(finished)
    with mock.patch.object(stages, "run") as started:
        run.run(make_study(folder, seeds=(0, 3)), finished)
    assert not started.called
    assert metrics(finished) == known
    for path, content in contents(finished).items():
        assert path.name.startswith("study.") or before[path] == content


def test_a_stopped_study_ends_as_one_that_ran_through(folder, finished, tmp_path):
    config, calls = make_study(folder, only_blocks=("wood",), seeds=(3,)), []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Stopped(15)
        run_cell(*arguments)

    with mock.patch.object(stages, "run", stopping):
        with pytest.raises(Stopped):
            run.run(config, tmp_path)
        assert not (tmp_path / "study.json").exists()
        run.run(config, tmp_path)
    assert [workdir.parent.name for _, workdir in calls] == ["mlf_sc", "short", "short", "check"]
    assert metrics(tmp_path)["cells"] == metrics(finished)["cells"][-3:]


def test_a_cell_that_fails_leaves_the_others_alone(folder, tmp_path, capsys):
    file = f"{folder / 'detector.py'}"
    rows = (Row("bad", "Bad", f"{file}:broken"), Row("good", "Good", f"{file}:toy"))
    config = make_study(folder, *rows, only_blocks=("carpet",), compare=(("good", "bad"),))
    with pytest.raises(UserError, match=r"1 of 2 cells failed.*carpet/bad/seed0.*method\.penalty"):
        run.run(config, tmp_path)
    assert "error: carpet/bad/seed0: method.penalty = 9" in capsys.readouterr().err
    record = read_json(tmp_path / "study.json", StudyRecord)
    assert list(record.failed) == ["carpet/bad/seed0"] and not record.differences
    assert list(record.summary["carpet"]) == ["good"]
    page = (tmp_path / "study.md").read_text()
    assert "| Bad | – |" in page and "Failed: carpet/bad/seed0: method.penalty = 9" in page
    with mock.patch.dict(DETECTORS, broken=toy_score):  # repaired
        run.run(config, tmp_path)
    assert not read_json(tmp_path / "study.json", StudyRecord).failed


def test_a_fault_of_the_program_is_a_failed_cell_too(folder, tmp_path):
    config = make_study(folder, only_blocks=("carpet",), only_rows=("short",), compare=())
    with (
        mock.patch.object(stages, "run", side_effect=RuntimeError("out of memory\nat 0x0")),
        pytest.raises(UserError, match=r"RuntimeError: out of memory$"),
    ):
        run.run(config, tmp_path)


@pytest.mark.slow
def test_a_block_without_anomalous_images_has_dashes(folder, tmp_path):
    def without_defects(experiment, workdir):
        run_cell(experiment, workdir, () if experiment.data.category == "wood" else ("cut",))

    published = PublishedTables("imamura_mlf_sc.image_auroc", "imamura_mlf_sc.r1_r2")
    study = make_study(folder, published=published, columns="blocks")
    with mock.patch.object(stages, "run", without_defects):
        run.run(study, tmp_path)
    record = read_json(tmp_path / "study.json", StudyRecord)
    kinds = [(each.block, each.purpose) for each in record.differences]
    assert kinds == [("carpet", "compare"), *2 * [("carpet", "check")], ("wood", "compare")]
    assert record.summary["wood"]["mlf_sc"].keys() == {"r1"}
    (rates,) = tables.rates_of_blocks(record)
    assert rates.rows[0][2] == f"{record.summary['wood']['mlf_sc']['r1'].value:.2f} / –"
    assert tables.auroc_of_blocks(record).rows[0][2:] == ("–", "–")


def test_another_config_in_a_cell_is_an_error_that_names_the_cell(folder, finished):
    config = make_study(folder, seeds=(0,), overrides=("fit.epochs=5",), only_rows=("check",))
    before = contents(finished)
    with pytest.raises(UserError, match=r"2 of 2 .*carpet/check/seed0: .*fit\.epochs: 1\.0 there"):
        run.run(config, finished)
    for path, content in contents(finished).items():
        assert path.name.startswith("study.") or before[path] == content


def test_remaining_time_is_estimated_by_the_rows(folder):
    cells = list_cells(make_study(folder), folder)
    assert run._estimate(cells, {}) == "time to go not known yet"
    spent = {"mlf_sc": [60.0, 180.0], "short": [600.0]}  # check: not known, the mean of all
    assert run._estimate(cells, spent) == f"about {2 * (2 + 10 + 840 / 180):.0f} min to go"


@pytest.mark.slow
def test_launch_runs_a_study_and_copies_its_record(tmp_path):
    root = make_folder(tmp_path / "images")
    (tmp_path / "tiny.py").write_text(
        "from configs.studies import base\n"
        "from sparse_ad.studies.grid import Block, Row\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.name = 'tiny'\n"
        "    config.blocks = (Block('all', 'All', ('data.root={root}',)),)\n"
        "    config.rows = (Row('sc', 'SC', 'configs/sparse_patches.py', ('fit.epochs=1',)),)\n"
        "    return config\n"
    )
    small = ("data.size=(16,16)", "method.patches.size=4", "method.atoms=4", "fit.batch_size=2")
    small += ("method.patches.per_image=16", "method.minibatch=16", "evaluation.bootstrap=20")
    process = launch(
        *("--mode=study", f"--config={tmp_path / 'tiny.py'}", f"--config.root={root}"),
        *(f'--config.overrides="{each}"' for each in small),
        *("--config.seeds=5", "--workdir=work", "--record=copies/s.json"),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    assert "cell 1 of 1: all/sc/seed5" in process.stderr and "to go" in process.stderr
    assert "| SC |" in process.stdout and "work/study.html" in process.stdout
    record = tmp_path / "work" / "study.json"
    assert (tmp_path / "copies" / "s.json").read_bytes() == record.read_bytes()
    assert str(tmp_path) not in record.read_text()  # where data lie is nobody's business


@pytest.mark.parametrize(("name", "variant"), STUDIES)
def test_every_study_is_a_grid_of_configs_that_are_there(name, variant, tmp_path):
    get = importlib.import_module(f"configs.studies.{name}").get_config
    study = replace(read(Study, get(variant) if variant else get()), root=str(tmp_path))
    cells = list_cells(study, tmp_path)
    assert len({cell.path for cell in cells}) == len(cells)
    for cell in cells:  # a name is that of the file, and not of how it was loaded
        assert cell.experiment.name.startswith(Path(cell.row.config.partition(":")[0]).stem)
    published = read_published(study).auroc
    compared = published.keys() & {row.key for row in study.rows}
    for key in compared:
        if study.columns == "blocks":
            assert {block.key for block in study.blocks} <= published[key].keys()
    assert bool(compared) is bool(study.published.auroc)
