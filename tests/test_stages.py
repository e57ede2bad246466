"""A detector that was added by its options class alone runs through every stage."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.folders import contents
from helpers.launching import LearningToy, changed, toy_experiment
from helpers.made_up import noise, write_image
from helpers.toy import ToyDetector, mean_image
from helpers.undrawn import undrawn as undrawn  # a fixture

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.experiment import read_experiment
from sparse_ad.methods import METHODS
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.prediction.run import Request, predict
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
    predict(experiment, work, [str(tmp_path / "images" / "test" / "crack")], out, Request(()))
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


def without_test(experiment, tmp_path):
    for name in ("test", "ground_truth"):
        shutil.rmtree(tmp_path / "images" / name)
    return experiment


def test_normal_images_alone_end_in_a_report_of_those_held_out(experiment, tmp_path, capsys):
    work = tmp_path / "work"
    stages.run(without_test(experiment, tmp_path), work)
    assert workdir.is_finished(work, experiment)
    results = json.loads((work / "results.json").read_text())
    assert results["counts"] == {
        **{"train": 4, "calibration": 1},
        **{"test_normal": 0, "test_anomalous": 0, "test_skipped": 0},
    }
    assert results["image"]["auroc"]["reason"] == "no test images"
    page = (work / "report.html").read_text()
    assert "no test images: all that is shown are the held-out normal images" in page
    assert "--mode=predict" in capsys.readouterr().out
    (work / "results.json").unlink()
    stages.evaluate_fitted(experiment, work)
    assert workdir.is_finished(work, experiment)


@pytest.mark.parametrize("layout", ["test", "kinds"])
def test_a_fitted_run_is_measured_on_other_images(experiment, tmp_path, layout):
    """With the threshold of its calibration; its own results stay."""
    work, out = tmp_path / "work", tmp_path / "out"
    stages.run(experiment, work)
    before = contents(work)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "images", other)
    shutil.rmtree(other / "train")
    if layout == "kinds":
        for path in (other / "test").iterdir():
            path.rename(other / path.name)
        (other / "test").rmdir()
    write_image(other / "scratch.txt.png", noise(3))  # in no folder of a kind
    shutil.copytree(other / ("test/crack" if layout == "test" else "crack"), other / "x" / "y")
    if layout == "test":
        (other / "x").rename(other / "test" / "x")
    stages.evaluate_on(experiment, work, other, out)
    assert contents(work) == before
    results = json.loads((out / "results.json").read_text())
    own = json.loads((work / "results.json").read_text())
    assert results["kinds"].keys() == {"crack", "x"}
    assert results["threshold"] == own["threshold"] and results["counts"]["train"] == 4
    assert results["other"].endswith("other") and own["other"] == ""
    assert results["image"]["r1"] == own["image"]["r1"]
    assert [each["count"] for each in results["left_out"]] == [1]
    assert "other" in (out / "report.html").read_text()


def test_other_images_need_folders_of_kinds(experiment, tmp_path):
    stages.fit(experiment, tmp_path / "work")
    for folder in (tmp_path / "images" / "train" / "good", tmp_path / "none"):
        with pytest.raises(UserError, match=f"{folder}"):
            stages.evaluate_on(experiment, tmp_path / "work", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_grid_of_errors_filled_pixels_count(experiment, tmp_path, caplog, monkeypatch):
    build = ToyDetector.build
    write_image(tmp_path / "corner.png", np.pad(np.full((4, 4), 255, np.uint8), ((0, 8), (0, 6))))
    ignoring = changed(experiment, data__ignore=str(tmp_path / "corner.png"))
    stages.build(ignoring)
    assert "ignored pixels are filled in" not in caplog.text
    monkeypatch.setattr(ToyDetector, "build", lambda *args: build(*args)._replace(grid=None))
    stages.build(ignoring)
    assert "ignored pixels are filled in" in caplog.text


def test_batches_are_no_larger_than_the_data(experiment, tmp_path, monkeypatch):
    """On the devices of the tests: 8 rows for 4 images."""
    sizes, extract = [], mean_image().features.extract

    def noted(images):
        sizes.append(len(images))
        return extract(images)

    build = ToyDetector.build

    def counting(self, features, shape):
        return build(self, features._replace(extract=noted), shape)

    monkeypatch.setattr(ToyDetector, "build", counting)
    large = changed(experiment, fit__batch_size=80000, evaluation__batch_size=80000)
    stages.run(large, tmp_path / "work")
    assert set(sizes) == {80000, 8}  # of the first only the shape is computed
    results = json.loads((tmp_path / "work" / "results.json").read_text())
    assert results["config"]["fit"]["batch_size"] == 80000 and results["cost"]["batch_size"] == 8
    assert results["fit"]["steps"] == 3


@pytest.fixture
def calibrated(experiment):
    """In units of its calibration images, 2 of 5."""
    by_position = {"evaluation__calibration__by": "position"}
    return changed(experiment, data__calibration_fraction=0.4, **by_position)


def read(path):
    return json.loads(path.read_text())


def rows_of(folder):
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_calibrated_errors_are_those_of_the_report_and_of_predictions(calibrated, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    stages.run(calibrated, work)
    assert workdir.is_finished(work, calibrated) and workdir.is_fitted(work, calibrated)
    calibration, results = (read(work / f"{name}.json") for name in ("calibration", "results"))
    assert results["error_units"] == calibration["error_units"]
    assert results["error_units"]["by"] == "position" and results["error_units"]["images"] == 2
    assert "of only 2 calibration images" in (work / "report.html").read_text()
    assert (work / "figures" / "normal_errors.png").exists()
    images = [str(tmp_path / "images" / "test" / "crack")]
    predict(calibrated, work, images, out, Request(()))
    predicted = {f"test/crack/{row['path']}": row["score"] for row in rows_of(out)}
    evaluated = {row["path"]: row["score"] for row in rows_of(work)}
    assert len(predicted) == 2 and predicted.items() <= evaluated.items()
    plain = changed(calibrated, evaluation__calibration__by="none")
    with pytest.raises(
        UserError, match=r"^evaluation\.calibration\.by = 'none': .*--mode=evaluate"
    ):
        predict(plain, work, images, tmp_path / "none", Request(()))


@pytest.mark.slow
def test_units_of_a_fitted_run_may_change(calibrated, tmp_path):
    """Other labelled images are scored in the units of the run; evaluating it sets them again."""
    work, other = tmp_path / "work", tmp_path / "other"
    stages.run(calibrated, work)
    stages.evaluate_on(calibrated, work, tmp_path / "images" / "test", other)
    known, again = ([row["score"] for row in rows_of(folder)] for folder in (work, other))
    assert again == known
    plain = changed(calibrated, evaluation__calibration__by="none")
    with pytest.raises(UserError, match=r"^evaluation\.calibration\.by = 'none': "):
        stages.evaluate_on(plain, work, tmp_path / "images" / "test", tmp_path / "none")
    stages.evaluate_fitted(plain, work)
    assert not (work / "normal_errors.npz").exists()
    assert not (work / "figures" / "normal_errors.png").exists()
    assert read(work / "results.json")["error_units"]["asked"] == "none"
    assert [row["score"] for row in rows_of(work)] != known
    stages.evaluate_fitted(calibrated, work)
    assert [row["score"] for row in rows_of(work)] == known


def test_units_that_are_damaged_or_half_written_are_not_believed(calibrated, tmp_path, monkeypatch):
    work, images = tmp_path / "work", [str(tmp_path / "images" / "test" / "good")]
    stages.fit(calibrated, work)
    changed_units = changed(calibrated, evaluation__calibration__prior=1.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        stages.evaluate_fitted(changed_units, work)  # the units are written, the threshold is not
    for asked, message in (
        (calibrated, r"normal_errors\.npz: does not belong"),
        (changed_units, r"evaluation\.calibration\.prior = 1\.0: .* was calibrated with 5\.0"),
    ):
        assert not workdir.is_fitted(work, asked)
        with pytest.raises(UserError, match=message):
            predict(asked, work, images, tmp_path / "out", Request(()))
    stages.fit(calibrated, work)  # sets both again
    predict(calibrated, work, images, tmp_path / "out", Request(()))
    (work / "normal_errors.npz").unlink()
    with pytest.raises(UserError, match=r"normal_errors\.npz: No such file"):
        stages.load_fitted(calibrated, work)


@pytest.mark.slow
def test_held_out_images_are_shown_with_the_scores_that_set_the_threshold(calibrated, tmp_path):
    work = tmp_path / "work"
    stages.run(without_test(calibrated, tmp_path), work)
    calibration = read(work / "calibration.json")
    shown = {row["path"]: row for row in rows_of(work)}
    assert len(shown) == 2
    for each in calibration["scores"]:
        assert float(shown[each["path"]]["score"]) == each["score"]
        assert shown[each["path"]]["flagged"] == "0"  # the larger of both is the threshold


@pytest.mark.slow
def test_one_image_to_calibrate_by_leaves_raw_errors(calibrated, tmp_path):
    work = tmp_path / "work"
    alone = changed(calibrated, data__calibration_fraction=0.2)
    stages.run(alone, work)
    units = read(work / "results.json")["error_units"]
    assert (units["by"], units["asked"], units["images"]) == ("none", "position", 1)
    assert "Errors are not calibrated" in (work / "report.html").read_text()
    assert stages.load_fitted(alone, work).detector.method.views.normal is None


def test_detectors_without_a_grid_cannot_be_calibrated(calibrated, tmp_path):
    for method, remedy in (
        (LearningToy(), "set it to 'none'$"),
        (Reconstruction(score="objective"), "or method.score to 'error'$"),
    ):
        message = rf"^evaluation\.calibration\.by = 'position': .*{remedy}"
        with pytest.raises(UserError, match=message):
            stages.run(replace(calibrated, method=method), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_workdir_of_an_older_version_is_fitted(experiment, tmp_path):
    work = tmp_path / "work"
    stages.fit(experiment, work)
    for name in ("calibration.json", "config.json"):
        content = read(work / name)
        del content["evaluation"]["calibration"]
        content.pop("error_units", None), content.pop("normal_errors", None)
        (work / name).write_text(json.dumps(content))
    assert workdir.is_fitted(work, experiment)
    assert stages.load_fitted(experiment, work).calibration.error_units.by == "none"
