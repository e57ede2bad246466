"""Studies: the grid, its cells run and resumed, the tables, and every config of configs/studies."""

import importlib
import json
import re
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import ROOT, contents, launch, learning_toy
from helpers.made_up import make_folder

from configs.studies import base
from sparse_ad import methods, stages
from sparse_ad.errors import UserError
from sparse_ad.report import page as report_page
from sparse_ad.studies import records, run, tables
from sparse_ad.studies.grid import Block, Row, list_cells, read_published, require_kind
from sparse_ad.studies.notes import MARK
from sparse_ad.system.files import read_json
from sparse_ad.system.signals import Stopped

CONFIG = """
from configs import base
def get_config(method="toy"):
    config = base.get_config()
    config.name = config.method.name = method
    config.data.update(name="generated", category="carpet", size=(32, 32), count=(12, 8, 8))
    config.fit.update(batch_size=8, checkpoint_seconds=0.0)
    config.evaluation.update(batch_size=8, bootstrap=20)
    return config
"""
STUDIES = sorted(
    (path.stem, variant)
    for path in (ROOT / "configs" / "studies").glob("[!_]*.py")
    if path.stem != "base"
    for variant in getattr(
        importlib.import_module(f"configs.studies.{path.stem}"), "VARIANTS", [""]
    )
)


def blind():
    """The toy, but all images look alike to it."""
    toy = learning_toy()

    def score(params, maps):
        scores = toy.score(params, maps)
        return scores._replace(image=jnp.zeros_like(scores.image))

    return toy._replace(score=score)


def broken():
    def update(key, state, maps):
        raise UserError("method.penalty = 9: is never right")

    return learning_toy()._replace(update=update)


def write_report(workdir, *_):
    """A report without figures, which take longer than all else."""
    (workdir / "report.html").write_text("report")
    return workdir / "report.html"


@pytest.fixture(autouse=True, scope="module")
def detectors():
    """The toy, and others, under their names; what each compiles is kept, for the other tests."""
    made = {"toy": learning_toy(), "blind": blind(), "broken": broken()}
    known = {name: lambda *_, method=method: method for name, method in made.items()}
    with (
        mock.patch.dict(methods.METHODS, known),
        mock.patch.object(report_page, "write_report", write_report),
        mock.patch.object(stages, "gather_pictures"),
        mock.patch.object(jax, "clear_caches"),
    ):
        yield known


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config file."""
    place = tmp_path_factory.mktemp("study")
    (place / "detector.py").write_text(CONFIG)
    return place


def make_study(folder, *rows, **fields):
    """A study of a toy, a short-sighted one and a blind check, in two blocks."""
    file = f"{folder / 'detector.py'}"
    config = base.get_config()
    config.name = "made up"
    config.rows = rows or (
        Row("mlf_sc", "Toy", f"{file}:toy"),
        Row("short", "Short", f"{file}:blind", ("fit.passes=2",)),
        Row("check", "Check", f"{file}:blind", check=True),
    )
    config.blocks = (
        Block("carpet", "Carpets", ("data.category=carpet",)),
        Block("wood", "Woods", ("data.category=wood",)),
    )
    config.common = ("fit.passes=1",)
    config.compare = (("mlf_sc", "short"),)
    config.bootstrap = 20
    config.update(fields)
    return config


def figures(workdir) -> dict:
    """study.json without times."""
    record = json.loads((workdir / "study.json").read_text())
    del record["environment"]
    for cell in record["cells"]:
        del cell["environment"], cell["fit"]["seconds"], cell["images_per_second"]
    return record


@pytest.fixture(scope="module")
def finished(folder, detectors):
    """The workdir of a study with two seeds."""
    run.run(make_study(folder, seeds=(0, 3)), folder / "work")
    return folder / "work"


def test_cells_come_seed_by_seed_and_the_more_particular_override_holds(folder, tmp_path):
    rows = (
        Row("a", "A", f"{folder / 'detector.py'}:toy", ("data.size=(40, 40)",)),
        Row("b", "B", f"{folder / 'detector.py'}:blind"),
    )
    common = ("data.size=(48, 48)", "data.count=(1, 2, 3)", "data.root={root}/x", "fit.passes=7")
    fields = {"common": common, "overrides": ("fit.passes=9",), "root": "/data", "compare": ()}
    config = make_study(folder, *rows, seeds=(4, 2), **fields)
    places = [
        f"{block}/{row}/seed{seed}"
        for seed in (4, 2)
        for block in ("carpet", "wood")
        for row in ("a", "b")
    ]
    assert [cell.place for cell in list_cells(config, tmp_path)] == places
    config.only_blocks, places = ("wood",), [each for each in places if "wood" in each]
    cells = list_cells(config, tmp_path)
    assert [cell.place for cell in cells] == places
    assert [cell.workdir for cell in cells] == [tmp_path / place for place in places]
    assert [cell.config.seed for cell in cells] == [4, 4, 2, 2]
    assert [cell.config.data.size for cell in cells[:2]] == [(40, 40), (48, 48)]
    assert [cell.config.method.name for cell in cells[:2]] == ["toy", "blind"]
    for cell in cells:
        assert cell.config.data.category == "wood" and cell.config.data.root == "/data/x"
        assert cell.config.fit.passes == 9.0 and cell.config.data.count == (1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"common": ("fit.pases=1",)},
            ["carpet/mlf_sc/seed0", "fit.pases", "--config.fit.passes?"],
        ),
        ({"overrides": ("fit.passes=many",)}, ["carpet/mlf_sc/seed0", "fit.passes"]),
        ({"overrides": ("fit.passes",)}, ["overrides = 'fit.passes'", "field=value"]),
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


def test_a_study_and_a_run_are_told_apart(folder):
    run = list_cells(make_study(folder), folder)[0].config
    with pytest.raises(
        UserError, match=r"no study.*mvtec_textures\.py, reconstruction\.py, sparsity\.py"
    ):
        require_kind(run, study=True)
    with pytest.raises(UserError, match="--mode=study"):
        require_kind(make_study(folder), study=False)


def test_a_place_of_published_figures_that_is_none_is_refused(folder):
    config = make_study(folder)
    config.published.auroc = "imamura_mlf_sc.auroc"
    with pytest.raises(UserError, match=r"published\.auroc = 'imamura_mlf_sc\.auroc'"):
        read_published(config, read_json(ROOT / "results" / "published.json"))


def test_figures_are_means_over_seeds_of_what_the_cells_found(finished):
    record = json.loads((finished / "study.json").read_text())
    assert len(record["cells"]) == 12 and not record["failed"]
    for block in ("carpet", "wood"):
        for row in ("mlf_sc", "short", "check"):
            paths = [finished / block / row / f"seed{seed}" / "results.json" for seed in (0, 3)]
            results = [json.loads(path.read_text()) for path in paths]
            summary = record["summary"][block][row]
            found = [each["image"]["auroc"]["value"] for each in results]
            assert summary["all"]["value"] == pytest.approx(np.mean(found))
            assert summary["all"]["deviation"] == pytest.approx(np.std(found, ddof=1))
            r1 = [each["image"]["r1"]["value"] for each in results]
            assert summary["r1"]["value"] == pytest.approx(np.mean(r1))
            for kind in results[0]["kinds"]:
                found = [each["kinds"][kind]["auroc"]["value"] for each in results]
                assert summary[kind]["value"] == pytest.approx(np.mean(found))
    cell = record["cells"][-1]
    assert cell["overrides"] == {"fit.passes": "1", "data.category": "wood", "seed": "3"}
    assert cell["environment"]["commit"] == record["environment"]["commit"]


def test_differences_are_those_of_the_summary(finished):
    record = json.loads((finished / "study.json").read_text())
    kinds = {
        (each["block"], each["row"], each["less"], each["for"]) for each in record["differences"]
    }
    assert kinds == {
        (block, row, less, reason)
        for block in ("carpet", "wood")
        for row, less, reason in (
            ("mlf_sc", "short", "compare"),
            ("mlf_sc", "check", "check"),
            ("short", "check", "check"),
        )
    }
    for each in record["differences"]:
        rows = record["summary"][each["block"]]
        for column, figure in each["auroc"].items():
            expected = rows[each["row"]][column]["value"] - rows[each["less"]][column]["value"]
            assert figure["value"] == pytest.approx(expected)
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_a_detector_that_does_not_beat_the_checks_is_marked(finished):
    record = json.loads((finished / "study.json").read_text())
    marks = {row: tables.mark(record, "carpet", row) for row in record["rows"]}
    assert record["summary"]["carpet"]["mlf_sc"]["all"]["value"] > 0.8  # of a blind check: 0.5
    assert marks == {"mlf_sc": "", "short": MARK, "check": ""}
    for each in record["differences"]:  # better on average, but not by more than chance explains
        each["auroc"]["all"] |= {"value": 0.2, "low": -0.1}
    assert tables.mark(record, "carpet", "mlf_sc") == MARK
    assert "Short †" in (finished / "study.md").read_text()


def test_the_share_of_active_units_is_shown_where_there_are_any(finished):
    record = json.loads((finished / "study.json").read_text())
    assert all("brightness" in cell["score_info"] for cell in record["cells"])
    assert not list(tables.active_units(record))
    shares = {("carpet", 0): 0.2, ("carpet", 3): 0.4, ("wood", 0): 1.0, ("wood", 3): 1.0}
    for cell in record["cells"]:
        if cell["row"] == "short":
            active = shares[cell["block"], cell["seed"]]
            cell["score_info"] = {"active": active, "penalty": 1e-4}
    (table,) = tables.active_units(record)
    assert table.head == ("", *record["blocks"].values())
    assert table.rows == [("Short", "30.0% (0.0001)", "100.0% (0.0001)")]
    assert table.title in records.study_page(record)


def test_tables_show_ours_beside_the_published(finished):
    record = json.loads((finished / "study.json").read_text())
    record["published"] = {"auroc": {"mlf_sc": {"hole": 0.61, "all": 0.72}}, "source": "Table 9"}
    page = records.study_page(record)
    figure = record["summary"]["carpet"]["mlf_sc"]["all"]
    first = tables.auroc_of_kinds(record, "carpet")
    assert first.rows[0][-1] == f"{figure['value']:.3f} ± {figure['deviation']:.3f}"
    assert first.rows[1][0] == "published" and first.rows[1][-1] == "0.72"
    assert first.head[-1] == "ALL" and len({len(row) for row in (first.head, *first.rows)}) == 1
    for text in ("Table 9", "2 seeds (0, 3)", "Carpets", "Toy less Short", "Commit", "test images"):
        assert text in page
    assert "All: fit.passes=1." not in page and "Toy, Check: fit.passes=1." in page
    assert "Short: fit.passes=2." in page
    record["study"]["columns"], record["published"] = (
        "blocks",
        read_published(
            make_study(
                finished.parent,
                published={"auroc": "imamura_mlf_sc.image_auroc", "r1_r2": "imamura_mlf_sc.r1_r2"},
            ),
            read_json(ROOT / "results" / "published.json"),
        ),
    )
    auroc, shares, gains = tables.list_tables(record)
    assert auroc.head == ("", "Carpets", "Woods", "mean")
    assert auroc.rows[1] == ("published", "0.99", "0.99", "0.97")
    assert shares.rows[1] == ("published", "1.00 / 0.98", "0.95 / 0.98")
    both = [record["summary"][block]["mlf_sc"]["all"]["value"] for block in ("carpet", "wood")]
    assert auroc.rows[0][-1] == f"{np.mean(both):.3f}"
    assert gains.rows[0][0] == "Toy less Short" and len(gains.rows[0]) == 3


def test_the_page_links_to_reports_that_are_there(finished):
    page = (finished / "study.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 12
    for link in links:
        assert (finished / link).exists()


def test_a_finished_study_runs_no_cell_again(folder, finished):
    before, known = contents(finished), figures(finished)
    with mock.patch.object(stages, "run") as started:
        run.run(make_study(folder, seeds=(0, 3)), finished)
    assert not started.called
    assert figures(finished) == known
    for path, content in contents(finished).items():
        assert path.name.startswith("study.") or before[path] == content


def test_a_stopped_study_ends_as_one_that_ran_through(folder, finished, tmp_path):
    config, run, calls = make_study(folder, only_blocks=("wood",), seeds=(3,)), stages.run, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Stopped(15)
        run(*arguments)

    with mock.patch.object(stages, "run", stopping):
        with pytest.raises(Stopped):
            run.run(config, tmp_path)
        assert not (tmp_path / "study.json").exists()
        run.run(config, tmp_path)
    assert [workdir.parent.name for _, workdir in calls] == ["mlf_sc", "short", "short", "check"]
    assert figures(tmp_path)["cells"] == figures(finished)["cells"][-3:]


def test_a_cell_that_fails_leaves_the_others_be(folder, tmp_path, detectors, capsys):
    file = f"{folder / 'detector.py'}"
    rows = (Row("bad", "Bad", f"{file}:broken"), Row("good", "Good", f"{file}:toy"))
    config = make_study(folder, *rows, only_blocks=("carpet",), compare=(("good", "bad"),))
    with pytest.raises(UserError, match=r"1 of 2 cells failed.*carpet/bad/seed0.*method\.penalty"):
        run.run(config, tmp_path)
    assert "error: carpet/bad/seed0: method.penalty = 9" in capsys.readouterr().err
    record = json.loads((tmp_path / "study.json").read_text())
    assert list(record["failed"]) == ["carpet/bad/seed0"] and not record["differences"]
    assert list(record["summary"]["carpet"]) == ["good"]
    page = (tmp_path / "study.md").read_text()
    assert "| Bad | – |" in page and "Failed: carpet/bad/seed0: method.penalty = 9" in page
    with mock.patch.dict(methods.METHODS, broken=detectors["toy"]):  # mended
        run.run(config, tmp_path)
    assert not json.loads((tmp_path / "study.json").read_text())["failed"]


def test_a_fault_of_the_program_is_a_failed_cell_too(folder, tmp_path):
    config = make_study(folder, only_blocks=("carpet",), only_rows=("short",), compare=())
    with (
        mock.patch.object(stages, "run", side_effect=RuntimeError("out of memory\nat 0x0")),
        pytest.raises(UserError, match=r"RuntimeError: out of memory$"),
    ):
        run.run(config, tmp_path)


def test_another_config_in_a_cell_is_told_with_its_name(folder, finished):
    config = make_study(folder, seeds=(0,), overrides=("fit.passes=5",), only_rows=("check",))
    before = contents(finished)
    with pytest.raises(UserError, match=r"2 of 2 .*carpet/check/seed0: .*fit\.passes: 1\.0 there"):
        run.run(config, finished)
    for path, content in contents(finished).items():
        assert path.name.startswith("study.") or before[path] == content


def test_time_to_go_is_told_by_the_rows(folder):
    cells = list_cells(make_study(folder), folder)
    assert run._estimate(cells, {}) == "time to go not known yet"
    spent = {"mlf_sc": [60.0, 180.0], "short": [600.0]}  # check: not known, the mean of all
    assert run._estimate(cells, spent) == f"about {2 * (2 + 10 + 840 / 180):.0f} min to go"


def test_launch_runs_a_study_and_copies_its_record(tmp_path):
    root = make_folder(tmp_path / "images")
    (tmp_path / "tiny.py").write_text(
        "from configs.studies import base\n"
        "from sparse_ad.study_grid import Block, Row\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.name = 'tiny'\n"
        "    config.blocks = (Block('all', 'All', ('data.root={root}',)),)\n"
        "    config.rows = (Row('sc', 'SC', 'configs/sparse_patches.py', ('fit.passes=1',)),)\n"
        "    return config\n"
    )
    small = ("data.size=(16,16)", "method.patch_size=4", "method.atoms=4", "fit.batch_size=2")
    small += ("method.patches_per_image=16", "method.minibatch=16", "evaluation.bootstrap=20")
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
    config = get(variant) if variant else get()
    config.root = str(tmp_path)
    cells = list_cells(config, tmp_path)
    assert len({cell.place for cell in cells}) == len(cells)
    for cell in cells:  # a name is that of the file, and not of how it was loaded
        assert cell.config.name.startswith(Path(cell.row.config.partition(":")[0]).stem)
    known = read_published(config, read_json(ROOT / "results" / "published.json")).get("auroc", {})
    compared = known.keys() & {row.key for row in config.rows}
    for key in compared:
        if config.columns == "blocks":
            assert {block.key for block in config.blocks} <= known[key].keys()
    assert bool(compared) is bool(config.published.auroc)
