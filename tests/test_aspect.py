"""Images keep their aspect from data.size = (n,) to the report, and predict without their set."""

import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
from helpers.launching import changed, toy_experiment
from helpers.made_up import noise, write_image
from helpers.toy import ToyDetector
from helpers.undrawn import undrawn as undrawn  # a fixture
from PIL import Image

from sparse_ad import Predictor, stages
from sparse_ad.data import sizes
from sparse_ad.data.sources.generated import Generated
from sparse_ad.errors import UserError
from sparse_ad.evaluation.results import Scale, ScoreRow
from sparse_ad.methods import METHODS
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.prediction.run import Request, predict
from sparse_ad.report.figures import draw_examples, draw_reconstructions, render
from sparse_ad.report.pictures import gather_pictures
from sparse_ad.system import workdir

WIDE = (20, 80)  # of the images of the set
EXACT = (16, 64)  # at about 32 x 32 pixels


def make_wide(images, suffix="png"):
    """Every image and mask of the set becomes WIDE."""
    for path in [path for path in images.rglob("*.*") if path.is_file()]:
        path.unlink()
        mask = np.zeros(WIDE, np.uint8)
        mask[4:9, 10:30] = 255
        pixels = mask if "ground_truth" in path.parts else noise(len(path.name), (*WIDE, 3))
        write_image(path.with_suffix(f".{suffix}"), pixels)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of wide images, one test image of which is tall: (experiment, workdir, log)."""
    folder, log = tmp_path_factory.mktemp("wide"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "toy", ToyDetector)
        patch.setattr(sizes.log, "warning", lambda message, *parts: log.append(message % parts))
        made = replace(toy_experiment(folder), method=ToyDetector(rate=0.25))
        make_wide(folder / "images")
        write_image(folder / "images/test/crack/tall.png", noise(7, WIDE[::-1]))
        marked = np.full(WIDE[::-1], 255, np.uint8)
        write_image(folder / "images/ground_truth/crack/tall_mask.png", marked)
        experiment = changed(made, data__size=(32,))
        stages.run(experiment, folder / "work")
        yield experiment, folder / "work", log


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", ToyDetector)
    made = toy_experiment(tmp_path)
    make_wide(tmp_path / "images")
    return changed(replace(made, method=ToyDetector(rate=0.25)), data__size=(32,))


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_size_is_recorded_beside_what_was_given(fitted):
    experiment, work, log = fitted
    assert workdir.is_finished(work, experiment)
    assert read(work, "config.json")["data"]["size"] == [32]
    assert read(work, "fit.json")["size"] == list(EXACT)
    results = read(work, "results.json")
    assert results["config"]["data"]["size"] == [32] and results["fit"]["size"] == list(EXACT)
    assert results["stretched"] == 1 and results["pixel"]["images"] == 2
    assert [message.partition(" images")[0] for message in log] == ["1 of 5 test"]


def test_predictions_need_no_image_of_the_set(fitted, tmp_path):
    experiment, work, _ = fitted
    new = str(work.parent / "images" / "test")
    gone = changed(experiment, data__root=str(tmp_path / "gone"))
    out = tmp_path / "out"
    predict(gone, work, [new], out, Request(("maps", "overlays", "masks")))
    assert read(out, "predictions.json")["stretched"] == 1
    for name, shape in (("crack/tall", WIDE[::-1]), ("good/000", WIDE)):
        assert np.load(out / "maps" / f"{name}.npz")["map"].shape == shape
        for kind in ("masks", "overlays"):
            with Image.open(out / kind / f"{name}.png") as image:
                assert image.size == shape[::-1]
    predictor = Predictor(work)
    assert predictor.experiment.data.size == EXACT
    assert predictor.predict([noise(3, (*WIDE, 3))]).maps[0].shape == WIDE


def test_a_fitted_run_is_evaluated_at_its_size(fitted, tmp_path, monkeypatch):
    experiment, work, _ = fitted
    monkeypatch.setattr(sizes, "choose_size", None)  # it is known
    shutil.copytree(work, tmp_path / "work")
    stages.evaluate_fitted(experiment, tmp_path / "work")
    assert (tmp_path / "work/scores.csv").read_bytes() == (work / "scores.csv").read_bytes()
    stages.evaluate_on(experiment, work, work.parent / "images/test", tmp_path / "out")
    assert read(tmp_path / "out", "results.json")["stretched"] == 1


def test_a_fit_of_an_older_version_has_the_size_of_its_config(fitted, tmp_path):
    experiment, work, _ = fitted
    old = tmp_path / "old"
    shutil.copytree(work, old)
    record = read(work, "fit.json")
    del record["size"]
    (old / "fit.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"^data\.size = \(32,\): depends on training images"):
        stages.load_fitted(experiment, old)
    exact = changed(experiment, data__size=EXACT)
    (old / "config.json").write_text(json.dumps(workdir.plain(exact)))
    assert stages.load_fitted(exact, old).record.size == ()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ToyDetector(), "not a checkpoint of this config"),
        (MeanColour(), "was made with images at 16 x 64, those of now are at 64 x 16"),
    ],
)
def test_images_turned_since_are_refused(experiment, tmp_path, method, message):
    """Files of the same names and lengths: only their headers differ."""
    experiment = replace(experiment, method=method)
    make_wide(tmp_path / "images", "bmp")
    work = tmp_path / "work"
    stages.fit(experiment, work)
    (work / "calibration.json").unlink()
    stages.fit(experiment, work)  # the same images: it goes on
    for path in (tmp_path / "images").rglob("*.bmp"):
        content = bytearray(path.read_bytes())
        content[18:26] = struct.pack("<ii", *WIDE)
        path.write_bytes(content)
    (work / "calibration.json").unlink()
    with pytest.raises(UserError, match=f"checkpoints/3: {message}") as caught:
        stages.fit(experiment, work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tiles__size": (16, 80)},
            r"^tiles\.size = \(16, 80\): exceeds the images, 16 x 64; make it",
        ),
        (
            {"fit__augmentation__rotate": True},
            r"^fit\.augmentation\.rotate = True: images of 16 x 64 are not square",
        ),
    ],
)
def test_what_does_not_go_with_the_size_is_told_before_the_fit(
    experiment, tmp_path, fields, message
):
    with pytest.raises(UserError, match=message):
        stages.run(changed(experiment, **fields), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_an_exact_size_needs_no_images_for_the_detector(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "load_data", None)
    exact = changed(experiment, data__size=(16, 64), tiles__size=(16, 80))
    with pytest.raises(UserError, match="exceeds the images, 16 x 64"):
        stages.run(exact, tmp_path / "work")


def test_generated_images_are_those_of_a_square(experiment):
    data = Generated(size=(40,), count=(9, 2, 2))
    exact, splits = stages.load_data(replace(experiment, data=data))
    assert exact.data.size == (40, 40) and len(splits.test) == 4


def test_pictures_are_shown_at_the_aspect_of_their_image(experiment, tmp_path):
    """Also where the size squashes them; so are maps and reconstructions."""
    squashed = changed(experiment, data__size=(32, 32))
    _, test, _ = squashed.data.load(0)
    method, score = stages.build(squashed)
    params = np.zeros((32, 32, 1), np.float32)
    rows = [ScoreRow(each.path, "", "", each.label, 1.0, 2.0, False) for each in test]
    pictures = gather_pictures(method, score, params, test, rows, squashed.data, 8)
    shown = pictures.highest_normal + pictures.highest_anomalous
    assert len(shown) == 2 and {picture.shape for picture in shown} == {WIDE}
    for figure in (draw_examples(shown, Scale(0.0, 0.5, 1.0)), draw_reconstructions(shown)):
        assert figure is not None
        render(figure)
        for axes in [axes for axes in figure.axes if axes.images]:
            box = axes.get_window_extent()
            assert box.height / box.width == pytest.approx(WIDE[0] / WIDE[1], rel=0.01)
