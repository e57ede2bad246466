"""The table of candidates: order, means, what is missing, and rank correlations."""

import json

import pytest

from docs.selection import selection_table


@pytest.fixture
def table(tmp_path):
    """Writes a record of (candidate, set, planted, test) and returns its table, line by line."""

    def write(*rows):
        names = ("candidate", "set", "planted", "test")
        other = {"aupro": None, "r1": 1.0, "r2": 0.5, "kinds": {}}
        record = {"rows": [dict(zip(names, row, strict=True)) | other for row in rows]}
        (tmp_path / "record.json").write_text(json.dumps(record))
        return selection_table(tmp_path / "record.json").splitlines()

    return write


def test_without_a_record_nothing_is_measured(tmp_path):
    assert selection_table(tmp_path / "record.json") == "not measured yet"


def test_candidates_are_ordered_by_their_mean_on_planted_defects(table):
    lines = table(
        ("low", "grid", 0.6, 0.7),
        ("low", "tiles", 0.7, 0.5),
        ("part", "grid", 1.0, 1.0),
        ("high", "tiles", 0.8, 0.8),
        ("high", "grid", 0.9, 0.6),
        ("middle", "grid", 0.7, 0.9),
        ("middle", "tiles", 0.9, 0.9),
    )
    assert lines[:6] == [
        "| candidate | grid, planted / test | tiles, planted / test | mean, planted / test |",
        "| --- | --- | --- | --- |",
        "| high | 0.900 / 0.600 | 0.800 / 0.800 | 0.850 / 0.700 |",
        "| middle | 0.700 / 0.900 | 0.900 / 0.900 | 0.800 / 0.900 |",
        "| low | 0.600 / 0.700 | 0.700 / 0.500 | 0.650 / 0.600 |",
        "| part | 1.000 / 1.000 | – | – |",
    ]
    assert lines[6] == ""  # grid: ranks 1 2 3 4 against 2 3 1 4; mean: 1 2 3 against 1 3 2
    assert lines[7:] == [
        "Rank correlation (Spearman) of planted and test over candidates: "
        "grid 0.40, tiles 1.00, mean 0.50."
    ]


def test_rank_correlations_that_say_nothing_are_dashes(table):
    two = (("a", "grid", 0.6, 0.7), ("b", "grid", 0.7, 0.8))
    assert table(*two)[-1].endswith("grid –, mean –.")
    assert table(*two, ("c", "grid", 0.8, 0.9))[-1].endswith("grid 1.00, mean 1.00.")
    equal = [("a", "grid", 0.6, 1.0), ("b", "grid", 0.7, 1.0), ("c", "grid", 0.8, 1.0)]
    assert table(*equal)[-1].endswith("grid –, mean –.")
