"""The pages say what the records say, and `--check` notices if not."""

import json
import re
import shutil
from pathlib import Path

import pytest

from docs import write
from sparse_ad.errors import UserError
from sparse_ad.evaluation.records import read_results


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the pages and the records, and a page of options."""
    shutil.copy(write.README, tmp_path)
    shutil.copy(write.CHOICES, tmp_path)
    (tmp_path / "configs.md").write_text("options")
    shutil.copytree(write.RESULTS, tmp_path / "results")
    monkeypatch.setattr(write, "README", tmp_path / "README.md")
    monkeypatch.setattr(write, "CHOICES", tmp_path / "choices.md")
    monkeypatch.setattr(write, "CONFIGS", tmp_path / "configs.md")
    monkeypatch.setattr(write.options, "page", lambda: "options")  # the real one takes seconds
    monkeypatch.setattr(write, "RESULTS", tmp_path / "results")
    return tmp_path


def edit(path, change):
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def set_auroc(record):
    record["image"]["auroc"]["value"] = 0.123


def set_dirty(record):
    record["environment"]["commit"]["dirty"] = True


def test_pages_are_those_that_the_records_give(capsys):
    assert write.main(["--check"]) == 0, capsys.readouterr().out


def test_links_of_the_page_of_all_records_lead_somewhere():
    for link in re.findall(r"\]\((\S+?)\)", (write.RESULTS / "README.md").read_text("utf-8")):
        assert (write.RESULTS / link).exists(), link


@pytest.mark.slow
def test_a_changed_record_is_noticed_and_written(checkout, capsys):
    edit(checkout / "results" / "sparse_patches" / "elpv.json", set_auroc)
    assert write.main(["--check"]) == 1
    assert capsys.readouterr().out.count("is out of date; run python -m docs.write") == 2
    assert write.main([]) == 0
    for page in (checkout / "README.md", checkout / "results" / "README.md"):
        assert "0.123 (" in page.read_text("utf-8")
    assert write.main(["--check"]) == 0


@pytest.mark.slow
def test_a_changed_page_of_options_is_noticed_and_written(checkout, capsys):
    (checkout / "configs.md").write_text("old")
    assert write.main(["--check"]) == 1
    assert f"{checkout / 'configs.md'}: is out of date" in capsys.readouterr().out
    assert write.main([]) == 0 and write.main(["--check"]) == 0


def test_a_record_of_edited_code_is_noticed(checkout, capsys):
    edit(checkout / "results" / "sparse_patches" / "elpv.json", set_dirty)
    assert write.main(["--check"]) == 1
    assert "elpv.json: lacks a commit without later edits" in capsys.readouterr().out


def test_a_readme_without_markers_is_an_error(checkout, capsys):
    (checkout / "README.md").write_text("no markers")
    assert write.main([]) == 2
    assert re.search("error: README.md: <!-- .* is missing", capsys.readouterr().err)


def test_only_what_stands_between_the_markers_is_replaced():
    page = "a\n<!-- x -->\nold\nrows\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    expected = "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert write.fill(page, "x", "new", "a.md") == expected
    assert write.fill(page, "y", r"\1", "a.md").endswith("<!-- y -->\n\\1\n<!-- /y -->\n")
    with pytest.raises(UserError, match=r"a\.md: <!-- speed -->"):
        write.fill(page, "speed", "content", "a.md")


def made_up(auroc, seed):
    """The record of solar cells with another AUROC and seed."""
    results = read_results(write.RESULTS / "sparse_patches" / "elpv.json")
    metric = results.image.auroc._replace(value=auroc)
    config = results.config | {"seed": seed}
    return results._replace(config=config, image=results.image._replace(auroc=metric))


def test_seeds_of_one_experiment_are_one_row():
    folder = Path("results/sparse_features")
    records = {
        folder / "a_b_seed0.json": made_up(0.8, 0),
        folder / "a_b_seed1.json": made_up(0.9, 1),
        folder / "a_b_seed10.json": made_up(1.0, 10),
        folder / "alone_seed3.json": made_up(0.7, 3),
        folder / "many_seeds.json": made_up(0.6, 0),
    }
    groups = write.by_experiment(records)
    _, _, several, *single = write.evaluation_table(groups, Path(), write.BRIEF).splitlines()
    config, data, auroc, rates, aupro, _ = several.strip("| ").split(" | ")
    linked = ", ".join(f"[{seed}]({folder}/a_b_seed{seed}.json)" for seed in (0, 1, 10))
    assert (config, data) == ("sparse_features", f"a_b, 3 seeds ({linked})")
    assert auroc == "0.900 ± 0.100"
    assert re.fullmatch(r"0\.980 ± 0\.000 / 0\.029 ± 0\.000", rates) and aupro == "–"
    for row, name, value in zip(single, ("alone_seed3", "many_seeds"), ("0.7", "0.6"), strict=True):
        assert f"[{name}]({folder}/{name}.json) | {value}00 (" in row
    apart = write.evaluation_table(write.by_record(records), Path(), tuple(write.MEASURED))
    assert len(apart.splitlines()) == 2 + len(records) and "±" not in apart


def test_a_metric_that_one_seed_lacks_is_a_dash():
    seeds = [made_up(0.8, 0), made_up(None, 1)]
    assert write.MEASURED["image AUROC"](seeds) == "–"
    assert write.MEASURED["train / calibration / test"](seeds) == "353 / 88 / 460"


def test_seeds_stand_beside_what_is_published(checkout):
    source = checkout / "results" / "sparse_patches" / "elpv.json"
    for seed in (0, 1):
        shutil.copy(source, checkout / "results" / "mlf_sc" / f"mvtec_grid_x_seed{seed}.json")
    page = write.published_table(checkout / "results", "mlf_sc", "", "mlf_sc/mvtec_{}_x.json")
    assert "| grid | 0.97 | 0.386 ± 0.000 | 1.00 / 0.88 | 0.980 ± 0.000 / 0.029 ± 0.000 |" in page
    assert page.count("not measured") == 8
