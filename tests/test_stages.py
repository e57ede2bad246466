"""A detector that was added by its options class alone runs through every stage."""

import csv
import json
from dataclasses import replace

import pytest
from helpers.launching import toy_experiment
from helpers.toy import ToyDetector

from sparse_ad import stages
from sparse_ad.experiment import read_experiment
from sparse_ad.methods import METHODS
from sparse_ad.system import workdir


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", ToyDetector)
    return replace(toy_experiment(tmp_path), method=ToyDetector(rate=0.25))


def test_a_new_detector_is_fitted_evaluated_and_predicts(experiment, tmp_path, caplog):
    work, out = tmp_path / "work", tmp_path / "out"
    stages.fit(experiment, work)
    assert workdir.is_fitted(work, experiment) and not workdir.is_finished(work, experiment)
    stages.evaluate_fitted(experiment, work)
    assert workdir.is_finished(work, experiment)
    results = json.loads((work / "results.json").read_text())
    assert results["config"]["method"]["name"] == "toy"
    assert results["config"]["method"].keys() == {"name", "rate", "pool"}  # its own fields alone
    stages.predict(experiment, work, tmp_path / "images" / "test" / "crack", out)
    with (out / "scores.csv").open() as file:
        predicted = {f"test/crack/{row['path']}": row["score"] for row in csv.DictReader(file)}
    with (work / "scores.csv").open() as file:
        evaluated = {row["path"]: row["score"] for row in csv.DictReader(file)}
    assert len(predicted) == 2 and predicted.items() <= evaluated.items()


def test_the_log_names_the_options_of_the_detector_at_hand(experiment, tmp_path, caplog):
    with caplog.at_level("INFO", logger="sparse_ad"):
        stages.build(experiment)
    text = "\n".join(caplog.messages)
    assert "method toy: rate 0.25, pool.rule top_mean" in text
    assert "features pixels: no options" in text
    assert "penalty" not in text and "atoms" not in text


def test_a_config_read_back_from_a_workdir_runs_on(experiment, tmp_path):
    stages.fit(experiment, tmp_path / "work")
    config = workdir.read_config(tmp_path / "work")
    assert read_experiment(config) == experiment
