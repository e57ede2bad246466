"""A region to ignore, from the folder of images to scores, metrics, report and predictions."""

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.folders import contents
from helpers.launching import final_state
from helpers.made_up import write_image

from sparse_ad import stages
from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import UserError
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.pca import Pca

SIZE = 32
LABEL = np.s_[2:14, 4:16]  # where the label is that must not count
OUTSIDE = np.s_[20:28, 18:28]


def texture(seed: int, label: int, noise: float) -> np.ndarray:
    """A grey weave with noise; `label` seeds the pixels where the label is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    weave = np.sin(rows) + np.sin(columns)
    image = (128 + 30 * weave + rng.normal(0, noise, weave.shape)).clip(0, 255).astype(np.uint8)
    return scrambled(image, LABEL, [seed, label])


def scrambled(image: np.ndarray, where, seed) -> np.ndarray:
    """The image with random pixels somewhere."""
    pixels = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)
    return np.where(region(where) > 0, pixels, image)


def region(where) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[where] = 255
    return mask


def make_set(root, label: int):
    """Normal images, less noisy ones to test, and defects in the label ("inside") and elsewhere."""
    for index in range(20):
        write_image(root / "train" / "good" / f"{index:03d}.png", texture(index, label, 5.0))
    for index in range(100, 103):
        image = texture(index, label, 3.0)
        pictures = {
            "good": (image, None),
            "inside": (scrambled(image, LABEL, [index, label, 1]), LABEL),
            "outside": (scrambled(image, OUTSIDE, index), OUTSIDE),
        }
        for kind, (pixels, where) in pictures.items():
            write_image(root / "test" / kind / f"{index}.png", pixels)
            if where:
                write_image(root / "ground_truth" / kind / f"{index}.png", region(where))
    write_image(root / "label.png", region(LABEL))
    return root


def experiment(root, **data) -> Experiment:
    return Experiment(
        "pca",
        data=Folder(root=str(root), size=(SIZE, SIZE), calibration_fraction=0.4, **data),
        method=Pca(side=16, components=2),
        fit=Fit(batch_size=8, epochs=6.0),
        evaluation=Evaluation(batch_size=8, bootstrap=10, false_alarm_rate=0.12),
    )


def scores(folder) -> dict[str, dict[str, str]]:
    with (folder / "scores.csv").open() as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on sets that differ in ignored pixels alone."""
    made = []
    for label in (1, 2):
        folder = tmp_path_factory.mktemp("run")
        root = make_set(folder / "set", label)
        stages.run(experiment(root, ignore=str(root / "label.png")), folder / "work")
        made.append(folder)
    return made


def test_ignored_pixels_have_no_influence(runs):
    one, other = runs
    for left, right in zip(final_state(one / "work"), final_state(other / "work"), strict=True):
        assert left.tobytes() == right.tobytes()
    for name in ("calibration.json", "results.json"):
        left, right = (json.loads((run / "work" / name).read_text()) for run in runs)
        for part in ("scores", "threshold", "scale", "image", "pixel", "kinds"):
            assert left.get(part) == right.get(part)
    assert scores(one / "work") == scores(other / "work")


def test_a_defect_counts_unless_it_is_ignored(runs):
    rows = scores(runs[0] / "work").values()
    flagged = {
        kind: [row["flagged"] for row in rows if row["kind"] == kind]
        for kind in ("good", "inside", "outside")
    }
    assert flagged == {"good": ["0"] * 3, "inside": ["0"] * 3, "outside": ["1"] * 3}


def test_pixel_metrics_leave_out_what_is_ignored(runs):
    pixel = json.loads((runs[0] / "work" / "results.json").read_text())["pixel"]
    assert (pixel["images"], pixel["left_out"]) == (3, 3)
    assert pixel["auroc"]["value"] > 0.99


def test_predictions_ignore_the_same_pixels(runs):
    """Images of the test set again; what is below the label is nowhere to be seen in a picture."""
    for run in runs:
        shutil.copy(run / "set" / "label.png", run / "set" / "test" / "label.png")
        options = experiment(run / "set", ignore=str(run / "set" / "test" / "label.png"))
        stages.predict(options, run / "work", run / "set" / "test", run / "new")
    predicted, measured = scores(runs[0] / "new"), scores(runs[0] / "work")
    assert predicted == scores(runs[1] / "new") and len(predicted) == len(measured)  # no label.png
    assert all(measured[f"test/{path}"]["score"] == row["score"] for path, row in predicted.items())
    pictures = [contents(run / "new" / "overlays").values() for run in runs]
    assert list(pictures[0]) == list(pictures[1])


def test_predictions_need_the_masks(runs, tmp_path):
    options = experiment(runs[0] / "set", ignore=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^data\.ignore = '.*none': no such file or folder"):
        stages.predict(options, runs[0] / "work", runs[0] / "set" / "test", tmp_path / "new")


def test_other_masks_are_another_training_set(runs):
    options = experiment(runs[0] / "set")
    with pytest.raises(UserError, match="was made with other training images"):
        stages.evaluate_fitted(options, runs[0] / "work")
