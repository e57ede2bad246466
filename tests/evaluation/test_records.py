"""Files of an evaluation are read as they were written, and what is wrong with them is named."""

import csv
import json

import numpy as np
import pytest
from helpers.evaluating import run
from helpers.toy import fit, make_splits, mean_image

from sparse_ad.errors import UserError
from sparse_ad.evaluation import records
from sparse_ad.evaluation.results import ScoreRow
from sparse_ad.methods.compiled import compile_score
from sparse_ad.system.files import write_json

ROWS = [
    ScoreRow("a,b.png", "good", "x", 0, 0.25, 1.0, False),
    ScoreRow("ü.png", "crack", "y", 1, 1.5e-7, 1.0, True),
]


@pytest.fixture(scope="module")
def evaluated():
    splits = make_splits()
    return run(compile_score(mean_image()), fit(splits), splits)


def test_scores_are_read_as_written(tmp_path):
    records.write_scores(tmp_path / "scores.csv", ROWS)
    scored = records.read_scores(tmp_path / "scores.csv")
    assert list(scored.path) == ["a,b.png", "ü.png"] and list(scored.kind) == ["good", "crack"]
    assert scored.label.tolist() == [0, 1] and scored.score.tolist() == [0.25, 1.5e-7]
    assert list(scored.group) == ["x", "y"]


def test_scores_of_unreadable_images_are_empty_cells(tmp_path):
    records.write_scores(tmp_path / "a" / "scores.csv", [ROWS[1], ScoreRow("c", *[None] * 6)])
    with (tmp_path / "a" / "scores.csv").open(newline="", encoding="utf-8") as file:
        first, last = csv.DictReader(file)
    assert list(first) == ["path", "kind", "group", "label", "score", "threshold", "flagged"]
    assert (first["label"], first["flagged"]) == ("1", "1")
    assert last == dict.fromkeys(first, "") | {"path": "c"}


def test_scores_without_a_column_are_named(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("path,kind,label,score\na.png,good,0,1.0\n")
    with pytest.raises(UserError, match="no column 'group'; delete results"):
        records.read_scores(path)


def test_calibration_and_results_are_read_as_written(tmp_path, evaluated):
    calibration, results, rows = evaluated
    write_json(tmp_path / "calibration.json", calibration)
    records.write_results(tmp_path, results, rows)
    assert records.read_calibration(tmp_path / "calibration.json") == calibration
    assert records.read_results(tmp_path / "results.json") == results
    assert len(records.read_scores(tmp_path / "scores.csv").score) == len(rows)


def test_results_keep_their_names_in_json(tmp_path, evaluated):
    _, results, rows = evaluated
    records.write_results(tmp_path, results, rows)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["image"]["auroc"]["value"] == results.image.auroc.value
    assert content["pixel"]["aupro_0.3"]["low"] == results.pixel.aupro_30.low
    assert content["kinds"]["cut"]["count"] == 7
    assert content["cost"]["peak_device_memory"] is None  # CPUs do not say


def _without_scale(content):
    del content["scale"]


def _with_text(content):
    content["image"]["ap"]["low"] = "high"


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_without_scale, "scale is missing"), (_with_text, "image.ap.low is 'high'")],
)
def test_damaged_results_are_named(tmp_path, evaluated, damage, message):
    _, results, rows = evaluated
    records.write_results(tmp_path, results, rows)
    path = tmp_path / "results.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"results\.json: {message}"):
        records.read_results(path)


def _of_other_units(content):
    content["error_units"]["by"] = "position"


def _of_unknown_units(content):
    content["error_units"]["by"] = "ring"


def _without_scores(content):
    content["scores"] = []


def _with_a_score_that_is_no_number(content):
    content["scores"][0]["score"] = None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_of_other_units, "error_units.by = 'position' does not go with normal_errors"),
        (_of_unknown_units, "error_units.by = 'ring' is none of none, whole, border, position"),
        (_without_scores, "scores is empty"),
        (_with_a_score_that_is_no_number, "scores are not all finite"),
    ],
)
def test_calibrations_that_contradict_themselves_are_named(tmp_path, evaluated, damage, message):
    path = tmp_path / "calibration.json"
    write_json(path, evaluated[0])
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"calibration\.json: {message}"):
        records.read_calibration(path)


def test_metrics_that_are_undefined_survive(tmp_path, evaluated):
    _, results, rows = evaluated
    results = results._replace(score_info={"largest_gap": np.nan})
    records.write_results(tmp_path, results, rows)
    assert np.isnan(records.read_results(tmp_path / "results.json").score_info["largest_gap"])
