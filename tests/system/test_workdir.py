"""What a workdir refuses: another config, damaged files, and disks that are full or read-only."""

import importlib
import json
import os
import shutil
import subprocess

import pytest
from helpers.launching import contents, learning_toy, toy_config

from sparse_ad import methods, stages
from sparse_ad.errors import UserError
from sparse_ad.system import workdir
from sparse_ad.system.files import append_lines


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", lambda *_: learning_toy())
    return toy_config(tmp_path)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


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


def test_other_config_is_named_field_by_field(config, work):
    stages.fit(config, work)
    before = contents(work)
    config.method.penalty = 2.0
    config.data.size = (16, 12)
    with pytest.raises(UserError) as caught:
        stages.run(config, work)
    for text in ("method.penalty: 1.0 there, 2.0 here", "data.size: [16, 16] there, [16, 12] here"):
        assert text in str(caught.value)
    assert "evaluation" not in str(caught.value) and contents(work) == before


def test_added_and_removed_fields_are_named(config, work):
    stages.fit(config, work)
    with config.unlocked():
        del config.method.solver
        config.method.fresh = 3
    with pytest.raises(UserError, match=r"solver: .* there, no such field here") as caught:
        stages.run(config, work)
    assert "method.fresh: no such field there, 3 here" in str(caught.value)


def test_evaluation_may_change_after_the_fit(config, work):
    stages.run(config, work)
    state = contents(work / "checkpoints")
    config.evaluation.false_alarm_rate = 0.5
    assert not workdir.is_fitted(work, config) and not workdir.is_finished(work, config)
    stages.run(config, work)
    assert json.loads((work / "calibration.json").read_text())["evaluation"]["bootstrap"] == 10
    results = json.loads((work / "results.json").read_text())
    assert results["threshold"]["false_alarm_rate"] == 0.5
    assert results["fit"]["last"].keys() == {"mean"} and contents(work / "checkpoints") == state
    config.fit.checkpoint_seconds = 5.0
    assert workdir.is_finished(work, config)
    config.evaluation.false_alarm_rate = 0.05  # results are of another threshold by now
    assert not workdir.is_finished(work, config)


def test_a_changed_section_name_is_not_taken_for_evaluation():
    found = workdir.differences({"evaluation_x": 1}, {"evaluation_x": 2}, workdir.FREE)
    assert found == ["evaluation_x: 1 there, 2 here"]


def test_config_comes_back_as_it_went(config, work):
    stages.fit(config, work)
    assert workdir.read_config(work).to_dict() == config.to_dict()


@pytest.mark.parametrize("name", ["fit", "evaluate_fitted", "run"])
def test_a_workdir_that_is_a_file(config, work, name):
    work.write_text("mine")
    with pytest.raises(UserError, match=f"{work}"):
        getattr(stages, name)(config, work)
    assert work.read_text() == "mine"


def test_a_workdir_below_a_file(config, work):
    work.write_text("mine")
    with pytest.raises(UserError, match=r"cannot be made|Not a directory"):
        stages.run(config, work / "below")


def test_a_read_only_disk(config, work, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(type(work), "mkdir", refuse)
    with pytest.raises(UserError, match=r"Read-only file system.*--workdir"):
        stages.run(config, work)


def test_a_disk_with_hardly_any_room(config, work, monkeypatch):
    monkeypatch.setattr(workdir, "MIN_FREE_BYTES", 2**60)
    with pytest.raises(UserError, match=r"MB are free.*--workdir"):
        stages.run(config, work)
    assert not work.exists()


@pytest.mark.parametrize(
    ("place", "named", "kept"),
    [
        ("sparse_ad.fitting.metrics_log.append_lines", "metrics.jsonl|checkpoints", set()),
        ("sparse_ad.fitting.tensorboard.explained", "tensorboard|checkpoints", set()),
        ("sparse_ad.fitting.loop._position", "checkpoint of step", set()),
        ("sparse_ad.evaluation.protocol.calibrate", "calibration.json", {"fit.json"}),
        ("sparse_ad.stages.gather_pictures", "figures/", {"calibration.json"}),
        ("sparse_ad.report.page.write_scores", "scores.csv", {"report.html"}),
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on(
    config, small_disk, monkeypatch, place, named, kept
):
    work, calls = small_disk / "work", []
    with monkeypatch.context() as patch:
        module, _, name = place.rpartition(".")
        function = getattr(importlib.import_module(module), name)

        def full(*args, **kwargs):
            calls.append(1)
            if len(calls) == (3 if "train" in place or "log" in place else 1):
                fill(small_disk)
            return function(*args, **kwargs)

        patch.setattr(place, full)
        with pytest.raises(UserError, match=named) as caught:
            stages.run(config, work)
    assert str(work) in str(caught.value) and "\n" not in str(caught.value)
    assert kept <= {path.name for path in work.iterdir()}
    assert not (work / "results.json").exists()
    assert not [path for path in work.rglob("*") if path.name.endswith(".partial")]
    (small_disk / "filler").unlink()
    stages.run(config, work)  # goes on
    assert workdir.is_finished(work, config)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_full_disk_at_prediction(config, small_disk, tmp_path):
    work, output = tmp_path / "work", small_disk / "out"
    stages.fit(config, work)
    fill(small_disk)
    with pytest.raises(UserError, match=f"{output}"):
        stages.predict(config, work, tmp_path / "images" / "test" / "good", output)
    assert not contents(output)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\x00\xff"])
@pytest.mark.parametrize("name", ["config.json", "fit.json", "calibration.json", "results.json"])
def test_damaged_files_are_named(config, work, tmp_path, name, content):
    stages.fit(config, work)
    (work / name).write_text(content)
    images = tmp_path / "images" / "test" / "good"
    used = {"results.json": stages.run, "calibration.json": stages.fit, "fit.json": None}
    call = used.get(name, stages.run) or stages.evaluate_fitted
    with pytest.raises(UserError, match=f"{name}: .*delete it"):
        call(config, work)
    if name != "results.json":
        with pytest.raises(UserError, match=name):
            stages.predict(config, work, images, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_damaged_checkpoints_are_named_and_the_one_before_serves(config, work):
    stages.fit(config, work)
    expected = contents(work / "checkpoints" / "3" / "state" / "d")
    damaged = max(
        (work / "checkpoints" / "3" / "state").rglob("d/*"), key=lambda p: p.stat().st_size
    )
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"xyz")
    (work / "calibration.json").unlink()
    for call in (stages.evaluate_fitted, stages.fit):
        with pytest.raises(UserError, match=f"{damaged.name}: is damaged; delete the folder"):
            call(config, work)
    shutil.rmtree(work / "checkpoints" / "3")
    with pytest.raises(UserError, match="step 3, the last of the fit, is not there"):
        stages.evaluate_fitted(config, work)
    stages.run(config, work)
    assert workdir.is_finished(work, config)
    assert sorted(contents(work / "checkpoints" / "3" / "state" / "d").values()) == sorted(
        expected.values()
    )


@pytest.mark.parametrize("call", ["evaluate_fitted", "predict"])
def test_evaluation_and_prediction_need_a_fit(config, work, tmp_path, call):
    more = (tmp_path / "images" / "test" / "good", tmp_path / "out") if call == "predict" else ()
    with pytest.raises(UserError, match="holds no finished fit; run --mode=fit"):
        getattr(stages, call)(config, work, *more)
    assert not work.exists()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        workdir.read_config(work)


def test_prediction_by_another_config_is_refused(config, work, tmp_path):
    stages.fit(config, work)
    config.method.stride = 2
    with pytest.raises(UserError, match=r"method.stride: 4 there, 2 here"):
        stages.predict(config, work, tmp_path / "images" / "test" / "good", tmp_path / "out")


def test_changed_training_images_are_refused_in_mid_fit(config, work, tmp_path):
    stages.fit(config, work)
    next((tmp_path / "images" / "train" / "good").iterdir()).unlink()
    (work / "calibration.json").unlink()
    with pytest.raises(UserError, match="other training images"):
        stages.fit(config, work)


def test_evaluation_refuses_changed_training_images(config, work, tmp_path):
    """Another split would let images that were fitted on set the threshold."""
    stages.fit(config, work)
    next((tmp_path / "images" / "train" / "good").iterdir()).unlink()
    with pytest.raises(UserError, match="other training images"):
        stages.evaluate_fitted(config, work)
    assert not (work / "results.json").exists()


def test_a_kill_between_a_new_threshold_and_its_calibration(config, work):
    """config.json is of the new evaluation by then, calibration.json and results.json are not."""
    stages.run(config, work)
    old = config.copy_and_resolve_references()
    config.evaluation.false_alarm_rate = 0.5
    workdir.open_workdir(work, config)
    assert not workdir.is_fitted(work, config) and not workdir.is_finished(work, config)
    assert not workdir.is_finished(work, old)  # scores.csv may be of the new threshold


def test_a_line_that_does_not_fit_leaves_no_part(small_disk):
    path = small_disk / "metrics.jsonl"
    append_lines(path, [{"step": 1}])
    (small_disk / "room").write_bytes(bytes(4096))
    fill(small_disk)
    (small_disk / "room").unlink()
    with pytest.raises(UserError, match="No space left"):
        append_lines(path, [{"step": 2}, {"step": "x" * 20000}])
    assert path.read_text() == '{"step": 1}\n'
