"""Bad fields and bad images are told before anything is written; fits resume bit for bit."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.launching import contents, learning_toy, toy_config
from helpers.made_up import noise, write_image
from PIL import Image

from sparse_ad import methods, stages
from sparse_ad.errors import UserError
from sparse_ad.fitting import loop


@pytest.fixture
def config(tmp_path, monkeypatch, request):
    monkeypatch.setitem(methods.METHODS, "toy", lambda *_: learning_toy())
    config = toy_config(tmp_path)
    config.fit.resident_gb = getattr(request, "param", 2.0)
    return config


# Images that stay on the devices, or are streamed.
BOTH = pytest.mark.parametrize("config", [2.0, 0.0], ids=("resident", "streamed"), indirect=True)


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method.penalty", 0.0, "method.penalty = 0.0"),
        ("method.penalty", -1.0, "method.penalty = -1.0"),
        ("method.penalty", float("nan"), "method.penalty = nan"),
        ("method.stride", 0, "method.stride = 0"),
        ("method.atoms", 0, "method.atoms = 0"),
        ("method.name", "sparse", "method.name = 'sparse'.*sparse_coding"),
        ("method.patch_size", 17, "method.patch_size = 17: exceeds the image side of 16"),
        ("fit.passes", 0.0, "fit.passes = 0.0"),
        ("fit.passes", float("inf"), "fit.passes = inf"),
        ("fit.batch_size", 12, "fit.batch_size = 12.* not divisible by the 8 devices"),
        ("fit.batch_size", 0, "fit.batch_size = 0"),
        ("fit.checkpoint_seconds", -1.0, "fit.checkpoint_seconds = -1.0"),
        ("fit.resident_gb", -1.0, "fit.resident_gb = -1.0"),
        ("evaluation.batch_size", 12, "evaluation.batch_size = 12.* not divisible"),
        ("evaluation.false_alarm_rate", 1.0, "evaluation.false_alarm_rate = 1.0"),
        ("evaluation.max_unreadable", -0.1, "evaluation.max_unreadable = -0.1"),
        ("evaluation.bootstrap", 0, "evaluation.bootstrap = 0"),
        ("data.name", "folders", "data.name = 'folders'.*folder"),
        ("data.size", (16,), "data.size = "),
        ("data.size", (16.5, 16), "data.size = "),
        ("data.size", ("a", "b"), "data.size = "),
        ("data.calibration_fraction", 0.0, "data.calibration_fraction = 0.0"),
        ("seed", -1, "seed = -1"),
    ],
)
def test_a_field_out_of_range(config, work, field, value, message):
    config.method.name = "sparse_coding"
    section, _, name = field.rpartition(".")
    (config[section] if section else config)[name] = value
    with pytest.raises(UserError, match=message) as caught:
        stages.run(config, work)
    assert "\n" not in str(caught.value) and not work.exists()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def break_folder(images, how):
    """Breaks one thing; returns the path that the message must name."""
    crack = images / "test" / "crack"
    if how == "no test folder":
        (images / "test").rename(images / "tests")
        return images / "test"
    if how == "empty class":
        (images / "test" / "empty").mkdir()
        return images / "test" / "empty"
    if how == "no training image":
        for path in (images / "train" / "good").iterdir():
            path.unlink()
        return images / "train" / "good"
    if how == "mask of another size":
        return write_image(images / "ground_truth" / "crack" / "001_mask.png", noise(0, (5, 5)))
    if how == "mask without image":
        return write_image(images / "ground_truth" / "crack" / "009_mask.png", noise(0, (12, 10)))
    if how == "truncated mask":
        return cut(images / "ground_truth" / "crack" / "000_mask.png")
    if how == "too many broken":
        return cut(crack / "000.png")
    raise ValueError(how)


@pytest.mark.parametrize(
    "how",
    [
        *("no test folder", "empty class", "no training image", "mask of another size"),
        *("mask without image", "truncated mask", "too many broken"),
    ],
)
def test_a_bad_folder(config, work, tmp_path, how):
    named = break_folder(tmp_path / "images", how)
    with pytest.raises(UserError) as caught:
        stages.run(config, work)
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
def test_a_bad_training_image_ends_the_fit_and_names_it(config, work, tmp_path, break_image):
    for path in sorted((tmp_path / "images" / "train" / "good").iterdir())[1:]:
        named = break_image(path)
    with pytest.raises(UserError, match=str(named.parent)) as caught:
        stages.run(config, work)
    assert "\n" not in str(caught.value) and not (work / "fit.json").exists()


@pytest.mark.parametrize("break_image", [cut, nan_image, one_pixel])
def test_a_few_bad_test_images_are_skipped_and_listed(config, work, tmp_path, break_image):
    config.evaluation.max_unreadable = 0.25
    named = break_image(tmp_path / "images" / "test" / "crack" / "001.png")
    stages.run(config, work)
    results = json.loads((work / "results.json").read_text())
    assert [each["path"] for each in results["skipped"]] == [f"test/crack/{named.name}"]
    assert str(named) in results["skipped"][0]["problem"]
    assert len((work / "scores.csv").read_text().splitlines()) == 4


def test_masks_that_mark_nothing_are_left_out(config, work, tmp_path):
    """As if unknown: the same pixel figures as without the mask file."""
    empty = tmp_path / "images" / "ground_truth" / "crack" / "001_mask.png"
    stages.run(config, work)
    without = json.loads((work / "results.json").read_text())["pixel"]
    write_image(empty, np.zeros((12, 10), np.uint8))
    stages.run(config, tmp_path / "with")
    assert json.loads((tmp_path / "with" / "results.json").read_text())["pixel"] == without
    assert without["left_out"] == 1 and without["images"] == 1


def doubling(told: bool):
    """A detector whose state grows beyond all numbers, of which it tells, or does not."""

    def update(key, state, maps):
        state = state * 1e15
        return state, {"loss": state.sum() if told else jnp.zeros(())}

    return lambda *_: learning_toy()._replace(update=update)


@BOTH
@pytest.mark.parametrize("between", [0.0, 1000.0])
def test_a_value_that_is_not_finite_names_the_first_step(config, work, monkeypatch, between):
    monkeypatch.setitem(methods.METHODS, "toy", doubling(told=True))
    config.fit.update(passes=40.0, checkpoint_seconds=between)
    with pytest.raises(UserError, match=r"step 3: loss is inf; lower fit\.learning_rate"):
        stages.fit(config, work)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in (work / "checkpoints").iterdir()} <= {"1", "2"}
    with pytest.raises(UserError, match="step 3: loss is inf"):  # and again
        stages.fit(config, work)


@BOTH
def test_a_state_that_is_not_finite_is_not_saved(config, work, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", doubling(told=False))
    with pytest.raises(UserError, match="step 3: state is no longer finite; lower"):
        stages.fit(config, work)
    assert {path.name for path in (work / "checkpoints").iterdir()} == {"1", "2"}


@BOTH
def test_a_resumed_fit_ends_with_the_same_bits(config, work, tmp_path, monkeypatch):
    config.fit.passes = 12.0
    stages.fit(config, tmp_path / "straight")
    real, calls = loop.steps_of, []

    def failing(*args):
        source = real(*args)

        def advance(*place):
            calls.append(1)
            if len(calls) == 3:
                raise UserError("stop here")
            return source.advance(*place)

        return source._replace(advance=advance)

    monkeypatch.setattr(loop, "steps_of", failing)
    with pytest.raises(UserError, match="stop here"):
        stages.fit(config, work)
    assert (work / "checkpoints" / "2").is_dir() and not (work / "fit.json").exists()
    config.fit.checkpoint_seconds = 1000.0  # from here on many steps a call
    stages.fit(config, work)
    assert len((work / "metrics.jsonl").read_text().splitlines()) == 6
    one, other = (each / "metrics.jsonl" for each in (work, tmp_path / "straight"))
    assert one.read_bytes() == other.read_bytes()
    method = learning_toy()
    one, other = (loop.load(method, config, each) for each in (work, tmp_path / "straight"))
    assert one["mean"].tobytes() == other["mean"].tobytes()


def test_a_finished_fit_is_left_alone(config, work):
    stages.fit(config, work)
    before = contents(work)
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    stages.fit(config, work)
    assert contents(work) == before
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == times


def test_both_ways_fit_alike(config, work, tmp_path):
    """Another program, so to the rounding of float32."""
    stages.fit(config, work)
    config.fit.resident_gb = 0.0
    stages.fit(config, tmp_path / "streamed")
    one, other = (loop.load(learning_toy(), config, each) for each in (work, tmp_path / "streamed"))
    np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-6, atol=1e-6)
