"""The README says what the records say, and no more."""

import re

import pytest

from sparse_ad.errors import UserError
from sparse_ad.studies import records


def test_readme_is_rendered_from_the_records():
    page = (records.ROOT / "README.md").read_text("utf-8")
    assert records.fill_all(page, records.ROOT / "results") == page


def test_the_page_of_all_records_is_rendered_from_them():
    results = records.ROOT / "results"
    assert (results / "README.md").read_text("utf-8") == records.render_all(results)
    for link in re.findall(r"\]\((\S+?)\)", (results / "README.md").read_text("utf-8")):
        assert (results / link).exists(), link


def test_every_record_says_where_it_comes_from():
    paths = list((records.ROOT / "results").glob("*/*.json"))
    assert paths
    for path in paths:
        environment = records.read_json(path)["environment"]
        assert environment["commit"]["id"], path
        assert environment["commit"]["dirty"] is False, path
        assert environment["versions"]["jax"], path
        assert environment["device"]["platform"], path
        assert environment["command"], path


@pytest.mark.parametrize("family", records.TEXTURES)
def test_generated_defects_are_found(family):
    path = records.ROOT / "results" / "sparse_patches" / f"generated_{family}.json"
    record = records.read_json(path)
    assert record["image"]["auroc"]["value"] >= 0.95
    assert record["pixel"]["auroc"]["value"] >= 0.95


def test_solvers_are_as_exact_as_their_benchmark_says():
    path = records.ROOT / "results" / "benchmarks" / "sparse_coding.json"
    seconds = {row["contender"]: row["seconds"] for row in records.read_json(path)["rows"]}
    assert all(row["largest gap"] <= 1e-4 for row in records.read_json(path)["rows"])
    assert seconds["lasso_lars"] >= 10 * seconds["homotopy"]
    assert seconds["lasso_cd"] > seconds["homotopy"]


def test_a_page_without_markers_is_refused():
    with pytest.raises(UserError, match="<!-- speed -->"):
        records.fill("no markers", "speed", "content")
