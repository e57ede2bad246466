"""Bad fields and bad images are told before anything is written; fits resume bit for bit."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import LearningToy, changed, contents, learning_toy, toy_experiment
from helpers.made_up import noise, write_image
from helpers.undrawn import undrawn as undrawn  # a fixture
from PIL import Image

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.experiment import read_experiment
from sparse_ad.fitting import loop
from sparse_ad.methods import METHODS
from sparse_ad.system.command_line import load_config
from sparse_ad.types import Example


@pytest.fixture
def experiment(tmp_path, monkeypatch, request):
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    return changed(toy_experiment(tmp_path), fit__resident_gb=getattr(request, "param", 2.0))


# Images that stay on the devices, or are streamed.
BOTH = pytest.mark.parametrize(
    "experiment", [2.0, 0.0], ids=("resident", "streamed"), indirect=True
)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method.coder.penalty", 0.0, "method.coder.penalty = 0.0"),
        ("method.coder.penalty", -1.0, "method.coder.penalty = -1.0"),
        ("method.coder.penalty", float("nan"), "method.coder.penalty = nan"),
        ("method.patches.stride", 0, "method.patches.stride = 0"),
        ("method.atoms", 0, "method.atoms = 0"),
        ("method.name", "sparse", "method.name = 'sparse'.*sparse_coding"),
        ("method.patches.size", 17, "method.patches.size = 17: exceeds the image side of 16"),
        ("tiles.size", (17, 4), r"tiles.size = \(17, 4\): exceeds the images"),
        ("tiles.overlap", 0.95, "tiles.overlap = 0.95"),
        ("fit.epochs", 0.0, "fit.epochs = 0.0"),
        ("fit.epochs", float("inf"), "fit.epochs = inf"),
        ("fit.batch_size", 12, "fit.batch_size = 12.* not divisible by the 8 devices"),
        ("fit.batch_size", 0, "fit.batch_size = 0"),
        ("fit.checkpoint_seconds", -1.0, "fit.checkpoint_seconds = -1.0"),
        ("fit.resident_gb", -1.0, "fit.resident_gb = -1.0"),
        ("evaluation.batch_size", 12, "evaluation.batch_size = 12.* not divisible"),
        ("evaluation.false_alarm_rate", 1.0, "evaluation.false_alarm_rate = 1.0"),
        ("evaluation.max_unreadable", -0.1, "evaluation.max_unreadable = -0.1"),
        ("evaluation.bootstrap", 0, "evaluation.bootstrap = 0"),
        ("data.name", "folders", "data.name = 'folders'.*folder"),
        ("data.size", (16, 16, 3), "data.size = "),
        ("data.size", (16.5, 16), "data.size = "),
        ("data.size", ("a", "b"), "data.size = "),
        ("data.calibration_fraction", 0.0, "data.calibration_fraction = 0.0"),
        ("seed", -1, "seed = -1"),
    ],
)
def test_a_field_out_of_range(work, field, value, message):
    config = load_config("configs/sparse_patches.py", ["data.root=none", "data.size=(16,16)"])
    section, _, name = field.rpartition(".")
    part = config
    for step in filter(None, section.split(".")):
        part = part[step]
    part[name] = value
    with pytest.raises(UserError, match=f"^{message}") as caught:
        stages.run(read_experiment(config), work)
    assert "\n" not in str(caught.value) and not work.exists()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def break_folder(images, how):
    """Breaks one thing; returns the path that the message must name."""
    crack = images / "test" / "crack"
    if how == "empty class":
        (images / "test" / "empty").mkdir()
        return images / "test" / "empty"
    if how == "no training image":
        for path in (images / "train" / "good").iterdir():
            path.unlink()
        return images / "train" / "good"
    if how == "mask of another size":
        return write_image(images / "ground_truth" / "crack" / "001_mask.png", noise(0, (5, 5)))
    if how == "truncated mask":
        return cut(images / "ground_truth" / "crack" / "000_mask.png")
    if how == "too many broken":
        return cut(crack / "000.png")
    raise ValueError(how)


@pytest.mark.parametrize(
    "how",
    [
        *("empty class", "no training image", "mask of another size"),
        *("truncated mask", "too many broken"),
    ],
)
def test_a_bad_folder(experiment, work, tmp_path, how):
    named = break_folder(tmp_path / "images", how)
    with pytest.raises(UserError) as caught:
        stages.run(experiment, work)
    assert str(named) in str(caught.value) and "\n" not in str(caught.value)
    assert not (work / "results.json").exists()


def nan_image(path):
    pixels = np.full((12, 10), 0.5, np.float32)
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(path.with_suffix(".tif"))
    path.unlink()
    return path.with_suffix(".tif")


def one_pixel(path):
    return write_image(path, noise(0, (1, 1)))


@pytest.mark.parametrize("break_image", [cut, nan_image, one_pixel])
def test_a_bad_training_image_ends_the_fit_and_names_it(experiment, work, tmp_path, break_image):
    for path in sorted((tmp_path / "images" / "train" / "good").iterdir())[1:]:
        named = break_image(path)
    with pytest.raises(UserError, match=str(named.parent)) as caught:
        stages.run(experiment, work)
    assert "\n" not in str(caught.value) and not (work / "fit.json").exists()


@pytest.mark.parametrize("break_image", [cut, nan_image, one_pixel])
def test_a_few_bad_test_images_are_skipped_and_listed(experiment, work, tmp_path, break_image):
    experiment = changed(experiment, evaluation__max_unreadable=0.25)
    named = break_image(tmp_path / "images" / "test" / "crack" / "001.png")
    stages.run(experiment, work)
    results = json.loads((work / "results.json").read_text())
    assert [each["path"] for each in results["skipped"]] == [f"test/crack/{named.name}"]
    assert str(named) in results["skipped"][0]["problem"]
    assert len((work / "scores.csv").read_text().splitlines()) == 4


def test_masks_that_mark_nothing_are_left_out(experiment, work, tmp_path):
    """As if unknown: the same pixel figures as without the mask file."""
    empty = tmp_path / "images" / "ground_truth" / "crack" / "001_mask.png"
    stages.run(experiment, work)
    without = json.loads((work / "results.json").read_text())["pixel"]
    write_image(empty, np.zeros((12, 10), np.uint8))
    stages.run(experiment, tmp_path / "with")
    assert json.loads((tmp_path / "with" / "results.json").read_text())["pixel"] == without
    assert without["left_out"] == 1 and without["images"] == 1


@dataclass(frozen=True)
class Doubling(LearningToy):
    """A detector whose state grows beyond all numbers, which its metrics show, or do not."""

    shown: bool = True  # whether the metrics show it

    def build(self, features, shape):
        def update(key, state, maps):
            state = state * 1e15
            return state, {"loss": state.sum() if self.shown else jnp.zeros(())}

        return learning_toy()._replace(update=update)


@BOTH
@pytest.mark.parametrize("between", [0.0, 1000.0])
def test_a_value_that_is_not_finite_names_the_first_step(experiment, work, monkeypatch, between):
    monkeypatch.setitem(METHODS, "toy", Doubling)
    schedule = {"fit__epochs": 40.0, "fit__checkpoint_seconds": between}
    experiment = changed(replace(experiment, method=Doubling()), **schedule)
    remedy = r"step 3: loss is inf; lower method\.optimizer\.learning_rate"
    with pytest.raises(UserError, match=remedy):
        stages.fit(experiment, work)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in (work / "checkpoints").iterdir()} <= {"1", "2"}
    with pytest.raises(UserError, match="step 3: loss is inf"):  # and again
        stages.fit(experiment, work)


@BOTH
def test_a_state_that_is_not_finite_is_not_saved(experiment, work, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", Doubling)
    experiment = replace(experiment, method=Doubling(shown=False))
    with pytest.raises(UserError, match="step 3: state is no longer finite; lower"):
        stages.fit(experiment, work)
    assert {path.name for path in (work / "checkpoints").iterdir()} == {"1", "2"}


def failing(make_steps, *args):
    """Steps of which the third call fails."""
    source, calls = make_steps(*args), []

    def advance(*progress):
        calls.append(1)
        if len(calls) == 3:
            raise UserError("stop here")
        return source.advance(*progress)

    return source._replace(advance=advance)


@BOTH
def test_a_resumed_fit_ends_with_the_same_bits(experiment, work, tmp_path, monkeypatch):
    experiment = changed(experiment, fit__epochs=12.0)
    stages.fit(experiment, tmp_path / "straight")
    monkeypatch.setattr(loop, "make_steps", partial(failing, loop.make_steps))
    with pytest.raises(UserError, match="stop here"):
        stages.fit(experiment, work)
    assert (work / "checkpoints" / "2").is_dir() and not (work / "fit.json").exists()
    monkeypatch.undo()
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    experiment = changed(experiment, fit__checkpoint_seconds=1000.0)  # many steps a call from here
    stages.fit(experiment, work)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 6
    one, other = (folder / "metrics.jsonl" for folder in (work, tmp_path / "straight"))
    assert one.read_bytes() == other.read_bytes()
    setup = experiment.setup(experiment.build())
    one, other = (loop.load(setup, folder) for folder in (work, tmp_path / "straight"))
    assert one["mean"].tobytes() == other["mean"].tobytes()


def test_checkpoints_are_closed_also_when_something_is_wrong(experiment, work, monkeypatch):
    opened, closed = [], []

    class Noting(loop.Checkpoints):
        def __init__(self, folder):
            super().__init__(folder)
            opened.append(folder)

        def close(self):
            super().close()
            closed.append(self.folder)

    monkeypatch.setattr(loop, "Checkpoints", Noting)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_steps", partial(failing, loop.make_steps))
        with pytest.raises(UserError, match="stop here"):
            stages.fit(experiment, work)
    assert closed == opened and len(opened) == 1
    stages.fit(experiment, work)
    setup = experiment.setup(experiment.build())
    with pytest.raises(UserError, match="other training images"):
        loop.load(setup, work, [])
    assert closed == opened and len(opened) > 1


def test_a_finished_fit_is_left_alone(experiment, work):
    stages.fit(experiment, work)
    before = contents(work)
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    stages.fit(experiment, work)
    assert contents(work) == before
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == times


def test_both_ways_fit_alike(experiment, work, tmp_path):
    """Another program, so to the rounding of float32."""
    stages.fit(experiment, work)
    stages.fit(changed(experiment, fit__resident_gb=0.0), tmp_path / "streamed")
    setup = experiment.setup(experiment.build())
    one, other = (loop.load(setup, folder) for folder in (work, tmp_path / "streamed"))
    np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-6, atol=1e-6)


def test_masks_of_what_to_ignore_are_part_of_the_training_images(tmp_path):
    image = write_image(tmp_path / "a.png", noise(0))
    mask = write_image(tmp_path / "mask.png", np.zeros((12, 10), np.uint8))
    plain = Example(image, 0, "good", None, "a", "a")
    masked = plain._replace(ignore=mask)
    expected = f"a {image.stat().st_size}\na {image.stat().st_size}"
    assert loop.fingerprint([plain] * 2) == hashlib.sha256(expected.encode()).hexdigest()
    (tmp_path / "moved").mkdir()
    moved = masked._replace(ignore=shutil.copy(mask, tmp_path / "moved" / "mask.png"))
    assert loop.fingerprint([masked]) == loop.fingerprint([moved])
    renamed = masked._replace(ignore=shutil.copy(mask, tmp_path / "other.png"))
    larger = masked._replace(ignore=write_image(tmp_path / "moved" / "mask.png", noise(1)))
    second = masked._replace(path="b"), plain._replace(path="b")
    others = [plain], [masked, second[1]], [plain, second[0]], [renamed], [larger], [masked]
    assert len({loop.fingerprint(each) for each in others}) == len(others)
