"""New images of any kind are scored, and what is found is written, at the size of each image."""

import csv
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.folders import contents, leftovers
from helpers.launching import fitted_toy
from helpers.made_up import noise, write_image
from PIL import Image

import sparse_ad
from sparse_ad import stages
from sparse_ad.data.decode import decode, resize
from sparse_ad.errors import UserError
from sparse_ad.evaluation.records import read_calibration
from sparse_ad.evaluation.thresholds import set_threshold
from sparse_ad.prediction import outputs, run
from sparse_ad.prediction.run import Request, predict
from sparse_ad.system.lock import locked

ALL = Request(("overlays", "maps", "tiff", "masks", "regions"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fitted run: (experiment, workdir, folder of its images)."""
    folder = tmp_path_factory.mktemp("fitted")
    with fitted_toy(folder) as experiment:
        yield experiment, folder / "work", folder / "images"


def read(output):
    with (output / "scores.csv").open() as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def make_tree(root):
    """A tree of images of several sizes, one of them broken, and a file that is none."""
    for index, name in enumerate(("a.png", "b/c.png", "b/d.jpg", "b/d.png", "e/f/g.png")):
        write_image(root / name, noise(50 + index, (20 + 7 * index, 30, 3)))
    (root / "b" / "broken.png").write_bytes(b"not an image")
    (root / "notes.txt").write_text("no image")
    return root


def test_a_tree_becomes_a_tree(fitted, tmp_path, caplog):
    experiment, work, _ = fitted
    root, output = make_tree(tmp_path / "in"), tmp_path / "out"
    predict(experiment, work, [str(root)], output, ALL)
    rows = read(output)
    names = ["a.png", "b/broken.png", "b/c.png", "b/d.jpg", "b/d.png", "e/f/g.png"]
    assert list(rows) == names
    assert rows["b/broken.png"]["score"] == "" and "broken.png" in rows["b/broken.png"]["problem"]
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    stems = ("a", "b/c", "b/d.jpg", "b/d.png", "e/f/g")  # two images are b/d
    kinds = {kind: suffix for kind, (suffix, _) in outputs.KINDS.items()}
    expected = {f"{kind}/{stem}{suffix}" for kind, suffix in kinds.items() for stem in stems}
    assert files == expected | {"scores.csv", "predictions.json"}
    record = json.loads((output / "predictions.json").read_text())
    assert record["finished"] and (record["count"], record["unreadable"]) == (6, 1)
    assert record["left_out"] == [{"reason": "no image: .txt", "count": 1, "example": "notes.txt"}]
    assert "not used: 1 file(s)" in caplog.text and not leftovers(output)


def test_what_is_written_has_the_size_of_the_image_and_says_the_same(fitted, tmp_path):
    experiment, work, _ = fitted
    pixels = noise(1, (40, 72, 3)) // 8 + 100
    pixels[8:20, 30:50] = 255
    write_image(tmp_path / "x.png", pixels)
    out = tmp_path / "out"
    predict(experiment, work, [str(tmp_path / "x.png")], out, replace(ALL, pixel_threshold=0.3))
    with np.load(out / "maps" / "x.npz") as file:
        anomaly_map = file["map"]
    predictor = sparse_ad.Predictor(work, pixel_threshold=0.3)
    predictions = predictor.predict([pixels])
    assert anomaly_map.shape == (40, 72) and (anomaly_map == predictions.maps[0]).all()
    mask = pixels_of(out / "masks" / "x.png")
    assert (mask == 255 * (anomaly_map > predictions.pixel_threshold)).all() and mask.any()
    record = json.loads((out / "predictions.json").read_text())
    low, high = record["tiff"]
    tiff = pixels_of(out / "tiff" / "x.tiff").astype(float)
    step = (high - low) / 65535
    expected = np.clip(anomaly_map, low, high)
    np.testing.assert_allclose(low + step * tiff, expected, atol=step)
    assert pixels_of(out / "overlays" / "x.png").shape == (40, 72, 3)
    found = json.loads((out / "regions" / "x.json").read_text())
    assert (found["width"], found["height"], found["pixel_threshold"]) == (72, 40, 0.3)
    assert sum(region["area"] for region in found["regions"]) == (mask > 0).sum()
    assert found["regions"][0]["peak"] == anomaly_map.max()


def test_regions_are_boxes_and_closed_lines_around_what_is_marked():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:9] = True
    mask[4, 5] = False  # a hole
    mask[8, 10] = True
    regions = outputs.list_regions(np.where(mask, np.float32(2), np.float32(0)), mask)
    assert [region["box"] for region in regions] == [[3, 2, 6, 5], [10, 8, 1, 1]]
    assert [region["area"] for region in regions] == [29, 1]
    outer, hole = sorted(regions[0]["contours"], key=len, reverse=True)
    for line, box in ((outer, (2.5, 1.5, 8.5, 6.5)), (hole, (4.5, 3.5, 5.5, 4.5))):
        low, high = np.min(line, axis=0), np.max(line, axis=0)
        assert (*low, *high) == box and line[0] == line[-1]
    assert len(outer) <= 9  # corners alone


def test_overlays_of_large_images_are_small(fitted, tmp_path):
    experiment, work, _ = fitted
    write_image(tmp_path / "wide.png", noise(3, (300, 3000, 3)))
    predict(experiment, work, [str(tmp_path)], tmp_path / "out", Request())
    assert pixels_of(tmp_path / "out" / "overlays" / "wide.png").shape == (102, 1024, 3)


def test_arrays_files_and_bytes_have_the_same_scores(fitted, tmp_path):
    experiment, work, _ = fitted
    images = np.stack([noise(index, (16, 16, 3)) for index in range(5)])
    paths = [write_image(tmp_path / f"{index}.png", each) for index, each in enumerate(images)]
    predict(experiment, work, [*map(str, paths)], tmp_path / "out", Request(()))
    rows = read(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] != [] and len(rows) == 5
    assert not (tmp_path / "out" / "overlays").exists()
    predictor = sparse_ad.Predictor(work)
    forms = (images, images.astype(np.float32) / np.float32(255), paths, [*map(str, paths)])
    for form in (*forms, [path.read_bytes() for path in paths]):
        predictions = predictor.predict(form)
        assert [float(rows[f"{i}.png"]["score"]) for i in range(5)] == predictions.score.tolist()
        flags = [rows[f"{i}.png"]["flagged"] == "1" for i in range(5)]
        assert flags == predictions.flagged.tolist()
    one = predictor.predict(images[:1])
    assert one.score[0] == predictions.score[0] and (one.maps[0] == predictions.maps[0]).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are none"),
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\): give \[n h w c\], or a list"),
        ([np.zeros(4)], r"array of shape \(4,\)"),
        (["none.png"], "none.png: no such file"),
        ("none.png", "give a list"),
        ([3.0], "float at 0"),
        (np.array(3), "shape \\(\\): give"),
        (np.zeros((1, 4, 4, 1), complex), "array of complex128"),
        (np.full((1, 4, 4, 1), 7.0), "float values from 7 to 7"),
    ],
)
def test_what_is_no_image_is_named(fitted, images, message):
    with pytest.raises(UserError, match=message):
        sparse_ad.Predictor(fitted[1]).predict(images)


def test_thresholds_are_those_of_the_rate_or_of_the_user(fitted, tmp_path):
    experiment, work, images = fitted
    calibration = read_calibration(work / "calibration.json")
    scores, peaks = (
        np.array([getattr(each, name) for each in calibration.scores]) for name in ("score", "peak")
    )
    predictor = sparse_ad.Predictor(work, false_alarm_rate=0.5)
    assert predictor.limits.image.value == set_threshold(scores, 0.5).value
    assert predictor.limits.pixel.value == set_threshold(peaks, 0.5).value
    test = str(images / "test")
    for own, flagged in ((-1.0, {"1"}), (1e9, {"0"})):
        predict(experiment, work, [test], tmp_path / "out", Request((), threshold=own))
        rows = read(tmp_path / "out").values()
        assert {row["flagged"] for row in rows} == flagged
        assert {float(row["threshold"]) for row in rows} == {own}
        assert sparse_ad.Predictor(work, threshold=own).predict(noise(0)[None]).threshold == own
    with pytest.raises(UserError, match="--threshold = nan: give a finite number"):
        sparse_ad.Predictor(work, threshold=np.nan)
    with pytest.raises(UserError, match="--write = 'heat': choose one of maps, masks, overlays"):
        Request(("heat",))


@pytest.fixture
def stop(monkeypatch):
    """Lets the writing of files stop the program after so many images."""

    def after(count):
        left, write = [count], outputs.write_files

        def interrupted(*args):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            write(*args)

        monkeypatch.setattr(run, "write_files", interrupted)

    return after


def test_what_was_stopped_goes_on_where_it_was(fitted, tmp_path, monkeypatch, stop):
    experiment, work, _ = fitted
    experiment = replace(experiment, data=replace(experiment.data, workers=1))
    root = make_tree(tmp_path / "in")
    predict(experiment, work, [str(root)], tmp_path / "straight", Request())
    out, scored = tmp_path / "out", []
    stop(2)
    with pytest.raises(KeyboardInterrupt):
        predict(experiment, work, [str(root)], out, Request())
    before = read(out)
    assert (
        0 < len(before) < 6 and not json.loads((out / "predictions.json").read_text())["finished"]
    )
    with (out / "scores.csv").open("a") as file:
        file.write("e/f/g.png,0.1")  # a row that a kill cut short
    score_examples = run.score_examples

    def counted(fitted, experiment, examples, *rest):
        scored.extend(example.path for example in examples)
        return score_examples(fitted, experiment, examples, *rest)

    monkeypatch.setattr(run, "score_examples", counted)
    monkeypatch.setattr(run, "write_files", outputs.write_files)
    predict(experiment, work, [str(root)], out, Request())
    done = {path for path, row in before.items() if row["score"]}
    assert len(scored) == 6 - len(done) and not done & set(scored)
    for path, content in contents(tmp_path / "straight").items():
        if path.name != "predictions.json":
            assert (out / path.relative_to(tmp_path / "straight")).read_bytes() == content


@pytest.mark.parametrize("change", ["threshold", "kinds", "images"])
def test_another_prediction_begins_anew(fitted, tmp_path, stop, monkeypatch, change):
    experiment, work, _ = fitted
    root, out = make_tree(tmp_path / "in"), tmp_path / "out"
    stop(3)
    with pytest.raises(KeyboardInterrupt):
        predict(experiment, work, [str(root)], out, Request())
    monkeypatch.setattr(run, "write_files", outputs.write_files)
    requests = {"threshold": Request(threshold=0.25), "kinds": Request(("masks",))}
    if change == "images":
        write_image(root / "a.png", noise(9, (31, 30, 3)))
    predict(experiment, work, [str(root)], out, requests.get(change, Request()))
    predict(experiment, work, [str(root)], tmp_path / "new", requests.get(change, Request()))
    assert (out / "scores.csv").read_bytes() == (tmp_path / "new" / "scores.csv").read_bytes()


def test_a_finished_prediction_is_kept_and_another_one_replaces_its_files(fitted, tmp_path):
    experiment, work, _ = fitted
    root, out = make_tree(tmp_path / "in"), tmp_path / "out"
    predict(experiment, work, [str(root)], out, Request())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    predict(experiment, work, [str(root)], out, Request())
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "overlays" / "mine.txt").write_text("a note")
    predict(experiment, work, [str(root / "e")], out, Request(("masks",)))
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {"scores.csv", "predictions.json", "masks/f/g.png", "overlays/mine.txt"}


def test_masks_among_the_images_are_left_out(fitted, tmp_path):
    experiment, work, _ = fitted
    root, out = make_tree(tmp_path / "in"), tmp_path / "out"
    for mask in ("b/c_mask.png", "Ground_Truth/a.png"):
        write_image(root / mask, noise(0)[..., 0])
    predict(experiment, work, [str(root)], out, Request(()))
    assert not any("mask" in path or "Truth" in path for path in read(out)) and len(read(out)) == 6
    reasons = {
        each["reason"] for each in json.loads((out / "predictions.json").read_text())["left_out"]
    }
    assert {"mask beside its image", "in a folder of masks"} < reasons
    predict(experiment, work, [str(root / "Ground_Truth")], out, Request(()))  # as it is asked for
    assert list(read(out)) == ["a.png"]


def test_no_image_leaves_nothing(fitted, tmp_path):
    experiment, work, _ = fitted
    write_image(tmp_path / "in" / "x.png", noise(0)).write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"none of 1 images can be read .*x\.png"):
        predict(experiment, work, [str(tmp_path / "in")], tmp_path / "out", Request())
    assert not contents(tmp_path / "out")
    for given, message in (([], "--input: is missing"), ([str(tmp_path / "no")], "no such file")):
        with pytest.raises(UserError, match=message):
            predict(experiment, work, given, tmp_path / "out", Request())


def test_results_are_no_input(fitted, tmp_path, stop, monkeypatch):
    """Where the folder of results lies in that of the images, also after a stop."""
    experiment, work, _ = fitted
    root = make_tree(tmp_path)
    stop(3)
    with pytest.raises(KeyboardInterrupt):
        predict(experiment, work, [str(root)], root / "out", Request())
    begun = read(root / "out")
    monkeypatch.setattr(run, "write_files", outputs.write_files)
    predict(experiment, work, [str(root)], root / "out", Request())
    assert len(begun) < len(read(root / "out")) == 6
    for output in (root, root / "b"):
        with pytest.raises(UserError, match="holds the input"):
            predict(experiment, work, [str(root / "b")], output, Request())
    with pytest.raises(UserError, match="is a workdir; choose another"):
        predict(experiment, work, [str(root)], work, Request())


def test_paths_with_dots_stay_below_the_output(fitted, tmp_path, monkeypatch):
    experiment, work, _ = fitted
    root = make_tree(tmp_path / "in")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    predict(experiment, work, ["../in/b", "../in/a.png"], tmp_path / "out", Request(("masks",)))
    assert list(read(tmp_path / "out")) == [
        *("a.png", "b/broken.png", "b/c.png", "b/d.jpg", "b/d.png"),
    ]
    assert (tmp_path / "out" / "masks" / "b" / "c.png").is_file() and root.exists()


def test_names_are_relative_to_what_holds_all(fitted, tmp_path):
    experiment, work, _ = fitted
    root = make_tree(tmp_path / "in")
    given = [str(root / "a.png"), str(root / "e"), str(root / "b" / "c.png"), str(root / "a.png")]
    predict(experiment, work, given, tmp_path / "out", Request(()))
    assert list(read(tmp_path / "out")) == ["a.png", "b/c.png", "e/f/g.png"]


def test_one_prediction_at_a_time_writes_to_a_folder(fitted, tmp_path):
    experiment, work, images = fitted
    with locked("output", tmp_path / "out"), pytest.raises(UserError, match="--output"):
        predict(experiment, work, [str(images)], tmp_path / "out", Request())


def test_maps_are_resized_as_images_are():
    pixels = np.random.default_rng(0).random((16, 16), np.float32)
    expected = decode(pixels, (24, 30), "grey")[..., 0]
    np.testing.assert_array_equal(resize(pixels, (24, 30)), expected)


def test_results_of_another_kind_are_not_replaced(fitted, tmp_path):
    experiment, work, images = fitted
    for name in ("evaluation", "prediction"):
        (tmp_path / name).mkdir()
    (tmp_path / "evaluation" / "results.json").write_text("{}")
    (tmp_path / "prediction" / "predictions.json").write_text("{}")
    with pytest.raises(UserError, match="holds an evaluation; choose another"):
        predict(experiment, work, [str(images)], tmp_path / "evaluation", Request())
    with pytest.raises(UserError, match="holds a prediction; choose another"):
        stages.evaluate_on(experiment, work, images, tmp_path / "prediction")
    with pytest.raises(UserError, match="is a workdir; choose another"):
        stages.evaluate_on(experiment, work, images, work)


def test_images_that_could_not_be_read_are_tried_again(fitted, tmp_path, stop, monkeypatch):
    experiment, work, _ = fitted
    root, out = make_tree(tmp_path / "in"), tmp_path / "out"
    stop(3)
    with pytest.raises(KeyboardInterrupt):
        predict(experiment, work, [str(root)], out, Request())
    assert read(out)["b/broken.png"]["problem"]
    stat = (root / "b" / "broken.png").stat()
    monkeypatch.setattr(run, "hash_images", lambda examples: "")  # as if nothing had changed
    (out / "predictions.json").write_text(
        json.dumps(json.loads((out / "predictions.json").read_text()) | {"images": ""})
    )
    write_image(root / "b" / "broken.png", noise(4))
    monkeypatch.setattr(run, "write_files", outputs.write_files)
    predict(experiment, work, [str(root)], out, Request())
    assert read(out)["b/broken.png"]["score"] and stat.st_size
    assert list(read(out)) == sorted(read(out))  # in the order of the images


def test_images_that_were_replaced_are_scored_again(fitted, tmp_path, stop, monkeypatch):
    """Of the same name and size: the times of the files tell."""
    experiment, work, _ = fitted
    root, out = tmp_path / "in", tmp_path / "out"
    for index in range(6):
        write_image(root / f"{index}.bmp", noise(index))
    stop(3)
    with pytest.raises(KeyboardInterrupt):
        predict(experiment, work, [str(root)], out, Request())
    for index in range(6):
        write_image(root / f"{index}.bmp", noise(10 + index))
    monkeypatch.setattr(run, "write_files", outputs.write_files)
    predict(experiment, work, [str(root)], out, Request())
    predict(experiment, work, [str(root)], tmp_path / "new", Request())
    assert read(out) == read(tmp_path / "new")


def test_odd_names_are_each_one_row(fitted, tmp_path):
    experiment, work, _ = fitted
    names = ["a,b.png", 'q"q.png', "cr\rx.png", "new\nline.png", "l" * 245 + ".png", "\\xff.png"]
    names.append(os.fsdecode(b"\xff.png"))
    try:
        for index, name in enumerate(names):
            write_image(tmp_path / "in" / name, noise(index))
    except OSError:
        pytest.skip("this disk takes no such names")
    predict(experiment, work, [str(tmp_path / "in")], tmp_path / "out", ALL)
    rows = read(tmp_path / "out")
    assert len(rows) == len(names) and all(row["score"] for row in rows.values())
    assert {"cr\\x0dx.png", "new\\x0aline.png", "\\xff.png"} < rows.keys()
    assert len(list((tmp_path / "out" / "masks").iterdir())) == len(names)


def test_a_folder_may_be_called_as_a_file_of_results(fitted, tmp_path):
    experiment, work, _ = fitted
    write_image(tmp_path / "in" / "sub.jpg", noise(0))
    write_image(tmp_path / "in" / "sub.png" / "x.png", noise(1))
    predict(experiment, work, [str(tmp_path / "in")], tmp_path / "out", ALL)
    assert (tmp_path / "out" / "masks" / "sub.jpg.png").is_file()
    assert (tmp_path / "out" / "masks" / "sub.png" / "x.png").is_file()


def test_a_calibration_of_an_older_version_still_serves(fitted, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(fitted[1], work)
    calibration = json.loads((work / "calibration.json").read_text())
    for each in calibration["scores"]:
        del each["peak"]
    (work / "calibration.json").write_text(json.dumps(calibration))
    limits = sparse_ad.Predictor(work).limits
    assert limits.pixel.value == calibration["scale"]["limit"]
    assert "--mode=evaluate" in limits.pixel.origin
