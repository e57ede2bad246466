"""What a workdir refuses: another config, damaged files, and disks that are full or read-only."""

import importlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers.launching import LearningToy, changed, contents, fitted_toy, toy_experiment
from helpers.undrawn import undrawn as undrawn  # a fixture

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.methods import METHODS
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.options import section
from sparse_ad.prediction.run import Request, predict
from sparse_ad.system import workdir
from sparse_ad.system.files import append_lines


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    return toy_experiment(tmp_path)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A fitted run, of which tests get copies: (experiment, workdir)."""
    folder = tmp_path_factory.mktemp("original")
    with fitted_toy(folder) as experiment:
        yield experiment, folder / "work"


@pytest.fixture
def fitted(original, work):
    """The experiment of which `work` is a fitted run, on images that no test may change."""
    shutil.copytree(original[1], work)
    return original[0]


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A disk of two megabytes of its own, where this may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    monkeypatch.setattr(workdir, "MIN_FREE_BYTES", 0)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk):
    """Leaves the disk without a free byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            return


def test_other_config_is_named_field_by_field(fitted, work):
    before = contents(work)
    other = changed(fitted, method__rate=0.9, data__size=(16, 12))
    with pytest.raises(UserError) as caught:
        stages.run(other, work)
    for text in ("method.rate: 0.5 there, 0.9 here", "data.size: [16, 16] there, [16, 12] here"):
        assert text in str(caught.value)
    assert "evaluation" not in str(caught.value) and contents(work) == before


def test_another_detector_is_named_without_its_fields(fitted, work):
    other = replace(fitted, method=MeanColour())
    with pytest.raises(UserError, match=r"\(method: 'toy' there, 'mean_colour' here\)"):
        stages.run(other, work)


def test_a_new_option_leaves_workdirs_valid(experiment, work, monkeypatch):
    """That of another detector, and one of the detector itself: it has its default."""

    @dataclass(frozen=True)
    class NewToy(LearningToy):
        fresh: int = 3  # new in this version

    stages.run(experiment, work)
    monkeypatch.setitem(METHODS, "toy", NewToy)
    newer = replace(experiment, method=NewToy())
    assert workdir.is_finished(work, newer)
    stages.evaluate_fitted(newer, work)
    with pytest.raises(UserError, match=r"method.fresh: 3 there, 4 here"):
        stages.run(replace(experiment, method=NewToy(fresh=4)), work)


@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_a_workdir_of_an_older_layout_ends_in_one_line(experiment, work, name):
    stages.run(experiment, work)
    config = json.loads((work / "config.json").read_text())
    old = config | {"net": {"latent": 300}, "method": {"name": "toy", "penalty": 1.0}}
    content = json.loads((work / name).read_text())
    new = old if name == "config.json" else content | {"config": old}
    (work / name).write_text(json.dumps(new))
    with pytest.raises(UserError, match=rf"{name}: was written by a version.*--workdir") as caught:
        stages.run(experiment, work)
    assert "\n" not in str(caught.value)


def test_evaluation_may_change_after_the_fit(experiment, work):
    stages.run(experiment, work)
    state = contents(work / "checkpoints")
    other = changed(experiment, evaluation__false_alarm_rate=0.5)
    assert not workdir.is_fitted(work, other) and not workdir.is_finished(work, other)
    stages.run(other, work)
    assert json.loads((work / "calibration.json").read_text())["evaluation"]["bootstrap"] == 10
    results = json.loads((work / "results.json").read_text())
    assert results["threshold"]["false_alarm_rate"] == 0.5
    assert results["fit"]["last"].keys() == {"mean"} and contents(work / "checkpoints") == state
    other = changed(other, fit__checkpoint_seconds=5.0)
    assert workdir.is_finished(work, other)
    assert not workdir.is_finished(work, experiment)  # results are of another threshold by now


def test_a_changed_section_name_is_not_taken_for_evaluation():
    found = workdir.differences({"evaluation_x": 1}, {"evaluation_x": 2}, workdir.CHANGEABLE)
    assert found == ["evaluation_x: 1 there, 2 here"]


def test_config_comes_back_as_it_went(fitted, work):
    assert workdir.read_config(work).to_dict() == section(fitted).to_dict()


@pytest.mark.parametrize("call", [stages.evaluate_fitted, stages.run, stages.fit])
def test_data_and_workdir_may_move(experiment, work, tmp_path, call):
    stages.fit(experiment, work)
    state = contents(work / "checkpoints")
    slash = changed(experiment, data__root=f"{experiment.data.root}/")
    call(slash, work)
    moved = tmp_path / "elsewhere"
    shutil.move(experiment.data.root, moved)
    shutil.move(work, tmp_path / "moved_work")
    work = tmp_path / "moved_work"
    call(changed(experiment, data__root=str(moved)), work)
    assert json.loads((work / "config.json").read_text())["data"]["root"] == str(moved)
    assert sorted(contents(work / "checkpoints").values()) == sorted(state.values())
    if call is not stages.fit:
        results = json.loads((work / "results.json").read_text())
        assert results["config"]["data"]["root"] == str(moved)


def test_a_root_relative_to_another_folder(experiment, work, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    stages.run(changed(experiment, data__root="images"), work)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    other = changed(experiment, data__root="../images")
    assert not workdir.is_finished(work, other)  # until the images there are seen to be the same
    stages.run(other, work)
    assert workdir.is_finished(work, other)


@pytest.mark.parametrize("call", [stages.evaluate_fitted, stages.run, stages.fit])
def test_other_images_elsewhere_are_refused(experiment, work, tmp_path, call):
    stages.fit(experiment, work)
    shutil.copytree(experiment.data.root, tmp_path / "other")
    next((tmp_path / "other" / "train" / "good").iterdir()).unlink()
    before = contents(work)
    with pytest.raises(UserError, match="other training images"):
        call(changed(experiment, data__root=str(tmp_path / "other")), work)
    assert contents(work) == before


@pytest.mark.parametrize("name", ["fit", "evaluate_fitted", "run"])
def test_a_workdir_that_is_a_file(experiment, work, name):
    work.write_text("mine")
    with pytest.raises(UserError, match=f"{work}"):
        getattr(stages, name)(experiment, work)
    assert work.read_text() == "mine"


def test_a_workdir_below_a_file(experiment, work):
    work.write_text("mine")
    with pytest.raises(UserError, match=r"cannot be made|Not a directory"):
        stages.run(experiment, work / "below")


def test_a_read_only_disk(experiment, work, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(type(work), "mkdir", refuse)
    with pytest.raises(UserError, match=r"Read-only file system.*--workdir"):
        stages.run(experiment, work)


def test_a_disk_with_hardly_any_room(experiment, work, monkeypatch):
    monkeypatch.setattr(workdir, "MIN_FREE_BYTES", 2**60)
    with pytest.raises(UserError, match=r"MB are free.*--workdir"):
        stages.run(experiment, work)
    assert not work.exists()


@pytest.mark.parametrize(
    ("place", "named", "kept"),
    [
        ("sparse_ad.fitting.metrics_log.append_lines", "metrics.jsonl|checkpoints", set()),
        ("sparse_ad.fitting.tensorboard.explained", "tensorboard|checkpoints", set()),
        ("sparse_ad.fitting.loop._save", "checkpoint of step", set()),
        ("sparse_ad.evaluation.protocol.calibrate", "calibration.json", {"fit.json"}),
        ("sparse_ad.stages.gather_pictures", "figures/", {"calibration.json"}),
        ("sparse_ad.evaluation.records.write_scores", "scores.csv", {"report.html"}),
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on(
    experiment, small_disk, monkeypatch, place, named, kept
):
    work, calls = small_disk / "work", []
    with monkeypatch.context() as patch:
        module, _, name = place.rpartition(".")
        function = getattr(importlib.import_module(module), name)

        def full(*args, **kwargs):
            calls.append(1)
            if len(calls) == (3 if "fitting" in place else 1):
                fill(small_disk)
            return function(*args, **kwargs)

        patch.setattr(place, full)
        with pytest.raises(UserError, match=named) as caught:
            stages.run(experiment, work)
    assert str(work) in str(caught.value) and "\n" not in str(caught.value)
    assert kept <= {path.name for path in work.iterdir()}
    assert not (work / "results.json").exists()
    assert not [path for path in work.rglob("*") if path.name.endswith(".partial")]
    (small_disk / "filler").unlink()
    stages.run(experiment, work)  # goes on
    assert workdir.is_finished(work, experiment)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_full_disk_at_prediction(experiment, small_disk, tmp_path):
    work, output = tmp_path / "work", small_disk / "out"
    stages.fit(experiment, work)
    fill(small_disk)
    with pytest.raises(UserError, match=f"{output}"):
        predict(experiment, work, [str(tmp_path / "images" / "test" / "good")], output, Request())
    assert not contents(output)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\x00\xff"])
@pytest.mark.parametrize("name", ["config.json", "fit.json", "calibration.json", "results.json"])
def test_damaged_files_are_named(fitted, work, tmp_path, name, content):
    (work / name).write_text(content)
    images = Path(fitted.data.root) / "test" / "good"
    used = {"results.json": stages.run, "calibration.json": stages.fit, "fit.json": None}
    call = used.get(name, stages.run) or stages.evaluate_fitted
    with pytest.raises(UserError, match=f"{name}: .*delete the file"):
        call(fitted, work)
    if name != "results.json":
        with pytest.raises(UserError, match=name):
            predict(fitted, work, [str(images)], tmp_path / "out", Request())
        assert not (tmp_path / "out").exists()


def test_damaged_checkpoints_are_named_and_the_one_before_serves(fitted, work):
    expected = contents(work / "checkpoints" / "3" / "state" / "d")
    damaged = max(
        (work / "checkpoints" / "3" / "state").rglob("d/*"), key=lambda p: p.stat().st_size
    )
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"xyz")
    (work / "calibration.json").unlink()
    for call in (stages.evaluate_fitted, stages.fit):
        with pytest.raises(UserError, match=f"{damaged.name}: is damaged; delete the folder"):
            call(fitted, work)
    shutil.rmtree(work / "checkpoints" / "3")
    with pytest.raises(UserError, match="step 3, the last of the fit, is not there"):
        stages.evaluate_fitted(fitted, work)
    stages.run(fitted, work)
    assert workdir.is_finished(work, fitted)
    assert sorted(contents(work / "checkpoints" / "3" / "state" / "d").values()) == sorted(
        expected.values()
    )


@pytest.mark.parametrize(
    ("call", "more"),
    [
        (stages.evaluate_fitted, ()),
        (stages.evaluate_on, ("images", "out")),
        (predict, (["images"], "out", Request())),
    ],
)
def test_evaluation_and_prediction_need_a_fit(experiment, work, tmp_path, call, more):
    more = [tmp_path / each if isinstance(each, str) else each for each in more]
    with pytest.raises(UserError, match="holds no finished fit; run --mode=fit"):
        call(experiment, work, *more)
    assert not work.exists()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        workdir.read_config(work)


def test_prediction_by_another_config_is_refused(fitted, work, tmp_path):
    other = changed(fitted, method__rate=0.2)
    with pytest.raises(UserError, match=r"method.rate: 0.5 there, 0.2 here"):
        predict(other, work, ["images"], tmp_path / "out", Request())


def test_changed_training_images_are_refused_in_mid_fit(experiment, work, tmp_path):
    stages.fit(experiment, work)
    next((tmp_path / "images" / "train" / "good").iterdir()).unlink()
    (work / "calibration.json").unlink()
    with pytest.raises(UserError, match="other training images"):
        stages.fit(experiment, work)


def test_evaluation_refuses_changed_training_images(experiment, work, tmp_path):
    """Another split would let images that were fitted on set the threshold."""
    stages.fit(experiment, work)
    next((tmp_path / "images" / "train" / "good").iterdir()).unlink()
    with pytest.raises(UserError, match="other training images"):
        stages.evaluate_fitted(experiment, work)
    assert not (work / "results.json").exists()


def test_results_without_their_calibration_are_made_again(experiment, work):
    stages.run(experiment, work)
    before = contents(work)
    (work / "calibration.json").unlink()
    assert not workdir.is_finished(work, experiment)
    leftover = work / ".0123456789abcdef.1.partial"
    leftover.write_text("half a file")
    stages.run(experiment, work)
    assert workdir.is_finished(work, experiment) and not leftover.exists()
    path = work / "scores.csv"
    assert path.read_bytes() == before[path]


def test_a_kill_after_a_new_calibration_leaves_no_older_results(experiment, work, monkeypatch):
    stages.run(experiment, work)
    monkeypatch.setattr(stages, "measure", lambda *_: None)
    stages.evaluate_fitted(changed(experiment, evaluation__false_alarm_rate=0.5), work)
    assert not (work / "results.json").exists()


def test_a_kill_between_a_new_threshold_and_its_calibration(experiment, work):
    """config.json is of the new evaluation by then, calibration.json and results.json are not."""
    stages.run(experiment, work)
    new = changed(experiment, evaluation__false_alarm_rate=0.5)
    workdir.open_workdir(work, new)
    assert not workdir.is_fitted(work, new) and not workdir.is_finished(work, new)
    assert not workdir.is_finished(work, experiment)  # scores.csv may be of the new threshold


def test_a_line_that_does_not_fit_leaves_no_part(small_disk):
    path = small_disk / "metrics.jsonl"
    append_lines(path, [{"step": 1}])
    (small_disk / "room").write_bytes(bytes(4096))
    fill(small_disk)
    (small_disk / "room").unlink()
    with pytest.raises(UserError, match="No space left"):
        append_lines(path, [{"step": 2}, {"step": "x" * 20000}])
    assert path.read_text() == '{"step": 1}\n'
