"""launch.py as a user runs it, each run a process of its own."""

import csv
import json
import os
import shutil
from itertools import islice
from pathlib import Path
from signal import SIGKILL

import pytest
from helpers import launching
from helpers.launching import (
    ROOT,
    assert_same_outcome,
    assert_user_error,
    launch,
    launch_each,
    tiny,
)
from helpers.made_up import make_folder, noise, write_image

from sparse_ad.system.command_line import load_config

PATCHES, PCA = ("--config=configs/sparse_patches.py",), ("--config=configs/pca.py",)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of images and the workdir of a finished run on it, started from elsewhere."""
    base = tmp_path_factory.mktemp("launch")
    root = make_folder(base / "images")
    (root / "test" / "good" / "000.JPG").write_bytes(b"not an image")
    extra = ("--config.evaluation.max_unreadable=0.3", "--workdir=work", "--record=copies/r.json")
    process = launch(*tiny(root), *extra, cwd=base)
    assert process.returncode == 0, process.stderr
    return base, process


def test_a_run_leaves_all_that_it_should(finished):
    base, process = finished
    work = base / "work"
    names = {path.name for path in work.iterdir()}
    assert names == {
        *("config.json", "environment.json", "checkpoints", "metrics.jsonl", "fit.json"),
        "tensorboard",
        *("calibration.json", "results.json", "scores.csv", "figures", "report.html"),
    }
    results = json.loads((work / "results.json").read_text())
    environment = json.loads((work / "environment.json").read_text())
    for told in (environment, results["environment"]):
        assert told["seed"] == 0 and {"commit", "versions", "device"} <= told.keys()
    assert [each["path"] for each in results["skipped"]] == ["test/good/000.JPG"]
    assert results["counts"]["test_skipped"] == 1
    assert (base / "copies" / "r.json").read_bytes() == (work / "results.json").read_bytes()
    assert len((work / "metrics.jsonl").read_text().splitlines()) == results["fit"]["steps"] == 8
    assert "image AUROC" in process.stdout and "work/report.html" in process.stdout


def test_the_log_tells_what_is_done_and_nothing_else(finished):
    log = finished[1].stderr
    for text in ("cpu device(s)", "4 training, 1 calibration, 4 test images", "coder.penalty 1.0"):
        assert text in log
    for stage in ("data", "fit", "calibrate", "evaluate", "report"):
        assert f"{stage} took" in log
    assert "scoring: converged" in log and "fitted: converged" in log
    for unwanted in ("orbax", "Warning", "WARNING", "absl"):
        assert unwanted not in log


@pytest.mark.slow
def test_a_finished_run_is_left_alone(finished):
    base, _ = finished
    work = base / "work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    flags = [*tiny(base / "images"), "--config.evaluation.max_unreadable=0.3", "--workdir=work"]
    flags += ["--config.fit.checkpoint_seconds=9", "--config.data.workers=1"]  # change nothing
    again = launch(*flags, cwd=base)
    assert again.returncode == 0 and "is finished already" in again.stderr
    assert "image AUROC" in again.stdout
    fit = launch(*flags, "--mode=fit", cwd=base)
    assert fit.returncode == 0 and "is fitted already" in fit.stderr
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


@pytest.mark.slow
def test_predictions_are_those_of_the_evaluation_bit_for_bit(finished):
    base, _ = finished
    images = base / "all"
    for path in (base / "images" / "test").rglob("*.*"):
        images.mkdir(exist_ok=True)
        shutil.copy(path, images / f"{path.parent.name}_{path.name}")
    process = launch(
        *("--mode=predict", "--workdir=work", f"--input={images}"),
        *("--output=out", "--config.evaluation.batch_size=3"),
        cwd=base,
    )
    assert process.returncode == 0, process.stderr
    assert "good_000.JPG" in process.stderr and "skipped" in process.stderr
    with (base / "out" / "scores.csv").open() as file:
        predicted = {row["path"]: row for row in csv.DictReader(file)}
    with (base / "work" / "scores.csv").open() as file:
        evaluated = list(csv.DictReader(file))
    assert len(predicted) == 4 and len(evaluated) == 3
    for row in evaluated:
        found = predicted["_".join(row["path"].split("/")[1:])]
        assert (found["score"], found["flagged"]) == (row["score"], row["flagged"])
        stem = found["path"].rpartition(".")[0]
        assert (base / "out" / "overlays" / f"{stem}.png").stat().st_size > 0
    assert predicted["good_000.JPG"]["score"] == ""


def test_a_run_that_is_killed_ends_with_the_bits_of_one_that_is_not(finished):
    """In a checkpoint, which is there without its checksums; other places: test_resume."""
    base, _ = finished
    flags = [*tiny(base / "images"), "--config.evaluation.max_unreadable=0.3", "--workdir=killed"]
    place = ("sparse_ad.fitting.checkpoint.write_checksums", 3)
    assert launch(*flags, cwd=base, strike=(*place, SIGKILL)).returncode == -SIGKILL
    assert (base / "killed" / "checkpoints").exists()
    assert not (base / "killed" / "fit.json").exists()
    process = launch(*flags, cwd=base)
    assert process.returncode == 0, process.stderr
    assert_same_outcome(base / "killed", base / "work")


def test_the_config_of_a_finished_run_is_a_config(finished):
    base, _ = finished
    loaded = load_config(str(base / "work" / "config.json"), ["fit.epochs=7"]).to_dict()
    known = json.loads((base / "work" / "config.json").read_text())
    assert loaded["fit"]["epochs"] == 7 and loaded["method"]["atoms"] == 4
    assert loaded["data"]["root"] == known["data"]["root"]


def test_devices_that_there_are_not_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "environment", lambda: os.environ | {"JAX_PLATFORMS": "tpu"})
    process = launch(*tiny(tmp_path), f"--workdir={tmp_path / 'work'}")
    assert_user_error(process, "JAX_PLATFORMS = 'tpu'", "device(s)")
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_help_names_modes_and_an_example():
    process = launch("--help")
    for text in ("run|fit|evaluate|predict", "--config.method.coder.penalty=0.5", "--workdir"):
        assert text in process.stdout


WRONG = [  # flags, and parts of what is said
    ([*PATCHES, "--config.method.coder.penalti=1"], ["--config.method.coder.penalty?"]),
    ([*PATCHES, "--config.penalty=1"], ["--config.penalty", "method.coder.penalty"]),
    ([*PATCHES, "--config.metod.atoms=1"], ["--config.metod.atoms", "method.atoms"]),
    ([*PATCHES, "--config.zzzz=1"], ["--config.zzzz", "--help lists them all"]),
    ([*PATCHES, "--config.method.coder.penalty=abc"], ["config.method.coder.penalty=abc"]),
    ([*PATCHES, "--config.method.coder.penalty=-1"], ["method.coder.penalty = -1.0: must"]),
    ([*PATCHES, "--config.method.normalise.remove_mean=perhaps"], ["remove_mean=perhaps"]),
    ([*PCA, "--config.method.coder.penalty=1"], ["a field of method.name = sparse_coding"]),
    ([*PCA, "--config.data.category=carpet"], ["a field of data.name = generated"]),
    ([*PCA, "--config.data.name=elpw"], ["data.name = 'elpw'", "elpv"]),
    ([*PCA, "--config.method.name=pcs"], ["method.name = 'pcs'", "sparse_coding"]),
    (["--config=configs/none.py"], ["configs/none.py", "configs/quickstart.py"]),
    (["--config=configs/mlf_sc.py:best"], ["mlf_sc.py = 'best'", "published_code"]),
    (["--mode=guess"], ["--mode=guess", "predict"]),
    (["--wrkdir=x"], ["wrkdir"]),
    (["--mode=predict", "--workdir=/nowhere"], ["/nowhere", "--mode=fit"]),
    (["predict", "--workdir=W"], ["'predict'", "give: launch.py --mode=predict --workdir=W"]),
    (["--input", "a.png", "b.png"], ["'b.png'", "launch.py --mode=predict --input a.png b.png"]),
    (["--input=a"], ["--input", "is for --mode=predict or evaluate, not for --mode=run"]),
    (["--mode=fit", "--threshold=3"], ["--threshold", "is for --mode=predict"]),
    (["--mode=evaluate"], ["--workdir: is missing"]),
    (["--mode=fit", "--workdir=W", "x"], ["'x'", "give: launch.py --mode=fit --workdir=W"]),
    ([f"--config={ROOT / 'README.md'}"], ["README.md", "is no config; give"]),
    ([f"--config={ROOT / 'sparse_ad' / 'errors.py'}"], ["errors.py", "is no config; give"]),
]


FIELDS = ("name", "data", "method")


@pytest.fixture(scope="module")
def refused(finished, tmp_path_factory):
    """What launch.py says to many mistakes, in one process, and the folder it was called in."""
    folder, other = (tmp_path_factory.mktemp(name) for name in ("wrong", "other"))
    work = finished[0] / "work"
    config = json.loads((work / "config.json").read_text())
    mistakes = {"flags": [flags for flags, _ in WRONG], "fields": []}
    for field in FIELDS:
        path = other / field / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps({name: config[name] for name in config if name != field}))
        mistakes["fields"] += [
            [f"--config={path}"],
            ["--mode=evaluate", f"--workdir={path.parent}"],
        ]
    (other / "empty").mkdir()
    broken = write_image(other / "broken" / "x.png", noise(0))
    broken.write_bytes(broken.read_bytes()[:70])
    predict = ["--mode=predict", f"--workdir={work}"]
    mistakes["predict"] = [predict, [*predict, f"--input={other / 'empty'}"]]
    mistakes["predict"] += [[*predict, f"--input={broken.parent}", "--output=never"]]
    mistakes["folder"] = [[*tiny(Path("none")), "--workdir=work"]]
    said = iter(launch_each([flags for each in mistakes.values() for flags in each], folder))
    return {name: list(islice(said, len(each))) for name, each in mistakes.items()}, folder


@pytest.mark.parametrize("index", range(len(WRONG)), ids=lambda index: WRONG[index][0][-1])
def test_a_wrong_flag_is_one_line(refused, index):
    process = refused[0]["flags"][index]
    assert_user_error(process, *WRONG[index][1])
    assert len(process.stderr.strip().splitlines()) == 1


def test_a_config_with_a_field_missing_is_one_line(refused):
    for index, process in enumerate(refused[0]["fields"]):
        assert_user_error(process, "config.json", f"{FIELDS[index // 2]} is missing")


def test_a_bad_folder_is_one_line(refused):
    assert_user_error(refused[0]["folder"][0], "none", "train/good")


def test_predict_says_what_is_missing(refused):
    no_input, no_images, none_readable = refused[0]["predict"]
    assert_user_error(no_input, "--input", "folder")
    assert_user_error(no_images, "empty", "no images")
    assert_user_error(none_readable, "none of 1 images", "x.png")


def test_what_is_refused_leaves_nothing(refused):
    assert not list(refused[1].iterdir())


@pytest.mark.slow
def test_an_unreadable_training_image_is_one_line(tmp_path):
    root = make_folder(tmp_path / "images")
    for path in (root / "train" / "good").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    process = launch(*tiny(root), f"--workdir={tmp_path / 'work'}")
    assert_user_error(process, str(root / "train" / "good"), "replace or delete")
    assert not (tmp_path / "work" / "fit.json").exists()


def test_help_lists_every_option_of_the_config():
    process = launch("--config=configs/pca.py", "--config.data.name=elpv", "--help")
    assert process.returncode == 0, process.stderr
    for text in (
        "--config.method.components=100",
        "--config.data.test_fraction=0.25",
        "folder, elpv",
    ):
        assert text in process.stdout
    for text in ("coder.solver", "data.root=''", "Traceback"):
        assert text not in process.stdout + process.stderr


@pytest.mark.slow
def test_another_source_by_its_name(tmp_path):
    flags = ("--config=configs/mean_colour.py", "--config.data.name=generated")
    flags += ("--config.data.category=wood", "--config.data.count=(10,4,4)", "--mode=fit")
    process = launch(*flags, "--config.data.size=(32,32)", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    data = json.loads((tmp_path / "config.json").read_text())["data"]
    assert data["name"] == "generated" and "root" not in data and data["color"] == "rgb"


@pytest.mark.slow
def test_normal_images_alone_are_fitted_and_predict(tmp_path):
    """From a flat folder; predictions of a tree of folders are a tree."""
    root = make_folder(tmp_path / "images")
    flags = (*tiny(root / "train" / "good"), f"--workdir={tmp_path / 'work'}")
    process = launch(*flags)
    assert process.returncode == 0, process.stderr
    assert "threshold" in process.stdout and "--mode=predict" in process.stdout
    process = launch("--mode=predict", f"--workdir={tmp_path / 'work'}", f"--input={root / 'test'}")
    assert process.returncode == 0, process.stderr
    overlays = tmp_path / "work" / "predictions" / "overlays"
    assert (overlays / "crack" / "000.png").is_file()


@pytest.mark.slow
def test_names_that_are_not_utf_8(tmp_path):
    """From fit to report and predict: training, test and unreadable images, masks, folders."""
    root, odd = make_folder(tmp_path / "images"), os.fsdecode(b"bl\xe4ue")
    try:
        (root / "train" / "good" / "000.png").rename(root / "train" / "good" / f"{odd}.png")
    except OSError:
        pytest.skip("this disk takes no such names")
    for kind in ("good", "crack"):
        write_image(root / "test" / kind / f"{odd}.png", noise(30))
    write_image(root / "ground_truth" / "crack" / f"{odd}_mask.png", noise(31)[..., 0] // 128 * 255)
    write_image(root / "test" / odd / f"{odd}.png", noise(32))
    (root / "test" / "good" / f"{odd}.jpg").write_bytes(b"not an image")
    (root / "train" / "good" / f"{odd}.{odd}").write_bytes(b"no image")
    run = (*tiny(root), "--config.evaluation.max_unreadable=0.5", "--workdir=work")
    process = launch(*run, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "skipped: " in process.stdout and "bl\\xe4ue.jpg" in process.stdout
    with (tmp_path / "work" / "scores.csv").open(encoding="utf-8") as file:
        rows = {row["path"]: row["kind"] for row in csv.DictReader(file)}
    shown = "bl\\xe4ue"
    assert rows[f"test/crack/{shown}.png"] == "crack" and rows[f"test/{shown}/{shown}.png"] == shown
    for name in ("results.json", "calibration.json", "report.html"):
        assert "\\udc" not in (tmp_path / "work" / name).read_text("utf-8"), name
    process = launch(
        *("--mode=predict", "--workdir=work", f"--input={root / 'test'}", "--output=out"),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    overlays = tmp_path / "out" / "overlays"
    assert (overlays / "crack" / f"{shown}.png").stat().st_size
    assert (overlays / "good" / f"{shown}.png.png").stat().st_size  # there is a .jpg, too
    assert f"crack/{shown}.png" in (tmp_path / "out" / "scores.csv").read_text("utf-8")
