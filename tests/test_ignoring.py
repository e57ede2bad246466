"""A region to ignore, from the folder of images to scores, metrics, report and predictions."""

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.launching import final_state
from helpers.made_up import write_image
from helpers.undrawn import undrawn as undrawn  # a fixture

from sparse_ad import stages
from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import UserError
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.pca import Pca
from sparse_ad.prediction.predictor import Predictor
from sparse_ad.prediction.run import Request, predict

SIZE = 24
LABEL = np.s_[2:12, 4:14]  # where the label is that must not count
OUTSIDE = np.s_[14:24, 14:24]


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
        method=Pca(side=12, components=2),
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


def scores_and_files(run, given, output, kinds=("overlays", "maps", "masks")):
    options = experiment(run / "set", ignore=str(run / "set" / "label.png"))
    predict(options, run / "work", [str(given)], output, Request(kinds))
    files = [path for path in sorted(output.rglob("*")) if path.parent != output and path.is_file()]
    return scores(output), [path.read_bytes() for path in files]


def test_predictions_ignore_the_same_pixels(runs):
    """Images of the test set again; what is below the label is nowhere to be seen in a file."""
    for run in runs:
        shutil.copytree(run / "set" / "test", run / "new")
    one, other = (scores_and_files(run, run / "new", run / "out") for run in runs)
    assert one == other and len(one[1]) == 3 * 9
    measured = scores(runs[0] / "work")
    for path, row in one[0].items():
        assert row["score"] == measured[f"test/{path}"]["score"]
    maps = np.load(runs[0] / "out" / "maps" / "outside" / "100.npz")["map"]
    assert maps[OUTSIDE].min() > 0 and not maps[LABEL].any()


def test_the_mask_is_not_scored(runs, tmp_path):
    rows, _ = scores_and_files(runs[0], runs[0] / "set", tmp_path / "out", ())
    assert "test/good/100.png" in rows and "label.png" not in rows
    with pytest.raises(UserError, match=r"label\.png: is all that is given \(data\.ignore\); give"):
        scores_and_files(runs[0], runs[0] / "set" / "label.png", tmp_path / "none")


def test_predictions_in_memory_ignore_the_same_pixels(runs):
    predictors = [Predictor(run / "work") for run in runs]
    images = [[texture(100, label, 3.0)] * 2 for label in (1, 2)]
    one, other = (each.predict(some) for each, some in zip(predictors, images, strict=True))
    expected = float(scores(runs[0] / "work")["test/good/100.png"]["score"])
    assert one.score.tolist() == other.score.tolist() == [expected] * 2
    np.testing.assert_array_equal(one.maps[0], other.maps[0])
    assert not one.maps[0][LABEL].any()
    with pytest.raises(
        UserError, match=r"image 0: .*label\.png: mask is 24x24 and its image is 8x8"
    ):
        predictors[0].predict([np.zeros((8, 8), np.uint8)])


def test_other_labelled_images_are_evaluated_without_ignored_pixels(runs, tmp_path):
    options = experiment(runs[0] / "set", ignore=str(runs[0] / "set" / "label.png"))
    stages.evaluate_on(options, runs[0] / "work", runs[0] / "set" / "test", tmp_path / "out")
    measured = scores(runs[0] / "work")
    for path, row in scores(tmp_path / "out").items():
        assert row["score"] == measured[f"test/{path}"]["score"]
    write_image(tmp_path / "kinds" / "good" / "0.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"^good/0\.png: .*label\.png: mask is 24x24"):
        stages.evaluate_on(options, runs[0] / "work", tmp_path / "kinds", tmp_path / "no")


def test_predictions_need_the_masks(runs, tmp_path):
    options = experiment(runs[0] / "set", ignore=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^data\.ignore = '.*none': no such file or folder"):
        given = [str(runs[0] / "set" / "test")]
        predict(options, runs[0] / "work", given, tmp_path / "new", Request())


def test_other_masks_are_another_training_set(runs):
    options = experiment(runs[0] / "set")
    with pytest.raises(UserError, match="was made with other training images"):
        stages.evaluate_fitted(options, runs[0] / "work")


def test_a_mask_that_leaves_no_patch_is_named_before_the_fit(tmp_path):
    make_set(tmp_path / "set", 0)
    mask = 255 - region(np.s_[:, :3])  # narrower than what the small image of PCA sees of it
    write_image(tmp_path / "mask.png", mask)
    options = Folder(
        root=str(tmp_path / "set"), size=(SIZE, SIZE), ignore=str(tmp_path / "mask.png")
    )
    experiment = Experiment(data=options, method=Pca(side=4, components=3), fit=Fit(batch_size=8))
    with pytest.raises(UserError, match=r"train/good/\d+\.png: no patch lies on .*\(data.ignore\)"):
        stages.run(experiment, tmp_path / "work")
    assert not (tmp_path / "work" / "fit.json").exists()


def test_predictions_ignore_what_the_fit_ignored(runs, tmp_path):
    given = [str(runs[0] / "set" / "test")]
    write_image(tmp_path / "other.png", region(OUTSIDE))
    for ignore in ("", str(tmp_path / "other.png")):
        with pytest.raises(UserError, match=r"data.ignore = '.*': the detector was fitted with"):
            options = experiment(runs[0] / "set", ignore=ignore)
            predict(options, runs[0] / "work", given, tmp_path / "new", Request())
