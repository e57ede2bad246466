"""The protocol from end to end, with a detector simple enough to be checked by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy import SIZE, broken, examples, fit, make_config, make_splits, mean_image, run
from sklearn.metrics import roc_auc_score

from sparse_ad.errors import UserError
from sparse_ad.evaluation import protocol, scoring
from sparse_ad.stages import scoring as scoring_of
from sparse_ad.types import Scores


@pytest.fixture
def config():
    return make_config()


@pytest.fixture
def splits():
    return make_splits()


@pytest.fixture
def fitted(splits):
    return fit(splits)


@pytest.fixture
def score():
    return scoring_of(mean_image())


def by_hand(fitted, some):
    images = np.stack([each.image for each in some]) / np.float32(255)
    return np.abs(images - np.asarray(fitted["mean"])[..., 0])


def test_figures_are_those_of_a_direct_computation(score, fitted, splits, config):
    calibration, results, rows = run(score, fitted, splits, config)
    maps, label = by_hand(fitted, splits.test), np.array([each.label for each in splits.test])
    expected = maps.max((1, 2))
    assert [row["score"] for row in rows] == pytest.approx(expected, rel=1e-5)  # float32 sums
    assert results["image"]["auroc"]["value"] == pytest.approx(roc_auc_score(label, expected))

    held_out = by_hand(fitted, splits.calibration)
    threshold = np.sort(held_out.max((1, 2)))[18]  # ceil((19 + 1) * 0.95) = 19th smallest
    assert calibration["threshold"]["value"] == pytest.approx(threshold, rel=1e-5)
    assert calibration["threshold"]["guaranteed"]
    assert [row["flagged"] for row in rows] == (expected > threshold).tolist()
    assert results["image"]["r1"]["value"] == np.mean(expected[label == 0] <= threshold)
    assert results["image"]["r2"]["value"] == np.mean(expected[label == 1] > threshold)
    assert results["kinds"]["hole"]["count"] == 4
    assert results["kinds"]["cut"]["r2"]["value"] == np.mean(expected[10:17] > threshold)

    masks = np.stack(
        [np.zeros((SIZE, SIZE)) if each.mask is None else each.mask > 0 for each in splits.test]
    )
    pixel = roc_auc_score(masks.ravel(), maps.ravel())
    assert results["pixel"]["auroc"]["value"] == pytest.approx(pixel, abs=1e-3)  # see test_metrics
    assert results["pixel"]["images"] == 11
    assert results["counts"] == {
        "train": 8,
        "calibration": 19,
        "test_normal": 10,
        "test_anomalous": 11,
        "test_skipped": 0,
    }
    assert results["score_info"]["brightness"] == pytest.approx(0.47, abs=0.03)
    assert results["fit"] == {"seconds": 1.5, "steps": 3}


def test_results_are_strict_json(score, fitted, splits, config):
    calibration, results, _ = run(score, fitted, splits, config)
    for content in (calibration, results):
        assert json.loads(json.dumps(content, allow_nan=False))
    assert all(value is None or value >= 0 for value in results["cost"].values())
    assert results["cost"]["params"] == SIZE * SIZE * 4


def test_heat_map_scale_comes_from_normal_images(score, fitted, splits, config):
    calibration = protocol.calibrate(score, fitted, splits.calibration, config)
    scale, maps = calibration["scale"], by_hand(fitted, splits.calibration)
    assert scale["low"] < scale["limit"] < scale["high"]
    assert scale["limit"] == pytest.approx(np.sort(maps.max((1, 2)))[18], rel=1e-5)


def test_batch_size_does_not_matter(score, fitted, splits, config):
    _, _, rows = run(score, fitted, splits, config)
    config.evaluation.batch_size = 24  # a multiple of the devices; the last batch is padded
    _, _, larger = run(score, fitted, splits, config)
    assert [row["score"] for row in rows] == pytest.approx(
        [row["score"] for row in larger], rel=1e-6
    )


def test_anomalous_images_without_masks_are_left_out_of_pixel_figures(
    score, fitted, splits, config
):
    normal, hole = splits.test[:10], splits.test[17:]
    unmarked = examples(7, 1, "cut", 4, masks=False)
    _, results, _ = run(score, fitted, splits._replace(test=normal + unmarked + hole), config)
    _, without, _ = run(score, fitted, splits._replace(test=normal + hole), config)
    assert results["pixel"] == without["pixel"] | {"left_out": 7}
    assert results["pixel"]["images"] == 4
    _, results, _ = run(score, fitted, splits._replace(test=normal + unmarked), config)
    assert results["pixel"]["auroc"]["value"] is None


@pytest.mark.parametrize(("some", "figure"), [(slice(10), "r2"), (slice(10, None), "r1")])
def test_one_class_gives_no_auroc_and_no_crash(score, fitted, splits, config, some, figure):
    _, results, rows = run(score, fitted, splits._replace(test=splits.test[some]), config)
    assert len(rows) == len(splits.test[some])
    assert results["image"]["auroc"]["value"] is None
    assert results["image"][figure]["value"] is None
    assert results["oracle"]["f1"] is None


def test_a_few_unreadable_images_are_skipped_and_listed(score, fitted, splits, config):
    test = (broken(splits.test[0]), *splits.test[1:])
    _, results, rows = run(score, fitted, splits._replace(test=test), config)
    assert [each["path"] for each in results["skipped"]] == ["good/000.png"]
    assert results["skipped"][0]["problem"]
    assert results["counts"]["test_skipped"] == 1 and len(rows) == 20


def test_too_many_unreadable_images_are_an_error(score, fitted, splits, config):
    test = (*map(broken, splits.test[:2]), *splits.test[2:])
    with pytest.raises(UserError, match=r"2 of 21 images .*good/000.*max_unreadable"):
        run(score, fitted, splits._replace(test=test), config)


@pytest.mark.parametrize(
    ("some", "name"), [(slice(10), "10 normal"), (slice(10, None), "11 anomalous")]
)
def test_an_unreadable_class_is_an_error(score, fitted, splits, config, some, name):
    config.evaluation.max_unreadable = 1.0
    test = list(splits.test)
    test[some] = map(broken, test[some])
    with pytest.raises(UserError, match=f"none of the {name} images"):
        run(score, fitted, splits._replace(test=tuple(test)), config)


@pytest.mark.parametrize("field", ["calibration", "test"])
def test_no_images_are_an_error(score, fitted, splits, config, field):
    with pytest.raises(UserError, match=f"{field} images"):
        run(score, fitted, splits._replace(**{field: ()}), config)


@pytest.mark.parametrize("where", ["image", "map"])
def test_scores_that_are_not_finite_name_the_image(fitted, splits, config, where):
    def score(params, images):
        scores = mean_image().score(params, {"pixels": images})
        return scores._replace(**{where: getattr(scores, where).at[2].set(jnp.nan)})

    with pytest.raises(UserError, match=r"good/002\.png"):
        protocol.calibrate(jax.jit(score), fitted, splits.calibration, config)


def test_a_dead_detector_has_a_scale_all_the_same(fitted, splits, config):
    def score(params, images):
        return Scores(jnp.zeros(len(images)), jnp.zeros(images.shape[:3]), {})

    calibration, results, rows = run(score, fitted, splits, config)
    assert calibration["scale"]["high"] > calibration["scale"]["low"]
    assert results["image"]["auroc"]["value"] == 0.5
    assert not any(row["flagged"] for row in rows)


def test_predictions_repeat_the_evaluation(score, fitted, splits, config):
    calibration, _, rows = run(score, fitted, splits, config)
    predictions = list(protocol.predict(score, fitted, splits.test, calibration, config))
    assert [each.row for each in predictions] == rows
    assert predictions[0].map.shape == (SIZE, SIZE)


def test_predictions_take_the_rate_that_they_are_asked_for(score, fitted, splits, config):
    calibration = protocol.calibrate(score, fitted, splits.calibration, config)
    config.evaluation.false_alarm_rate = 0.5
    first, *_ = protocol.predict(score, fitted, splits.test, calibration, config)
    lower = protocol.calibrate(score, fitted, splits.calibration, config)["threshold"]["value"]
    assert first.row["threshold"] == lower < calibration["threshold"]["value"]


def test_unreadable_calibration_images_are_reported(score, fitted, splits, config):
    some = splits._replace(calibration=(broken(splits.calibration[0]), *splits.calibration[1:]))
    config.evaluation.max_unreadable = 0.5
    _, results, _ = run(score, fitted, some, config)
    assert [each["path"] for each in results["skipped"]] == [splits.calibration[0].path]
    assert results["counts"]["calibration"] == len(splits.calibration) - 1
    assert results["counts"]["test_skipped"] == 0


def test_predictions_tell_of_unreadable_images(score, fitted, splits, config):
    calibration = protocol.calibrate(score, fitted, splits.calibration, config)
    some = (broken(splits.test[0]), splits.test[1])
    first, second = protocol.predict(score, fitted, some, calibration, config)
    assert first.row["score"] is None and first.row["flagged"] is None and first.problem
    assert second.row["score"] > 0 and not second.problem
    with pytest.raises(UserError, match="none of 1 images"):
        list(protocol.predict(score, fitted, some[:1], calibration, config))
    with pytest.raises(UserError, match="predict"):
        list(protocol.predict(score, fitted, (), calibration, config))


def test_costs_of_known_calls():
    cost = scoring.measure_costs([2.0, 0.1, 0.1, 0.1, 0.3], 4, {"a": np.zeros(10, np.float32)})
    assert cost["compile_seconds"] == pytest.approx(1.9)
    assert cost["images_per_second"] == pytest.approx(4 / 0.15)
    assert cost["milliseconds_p50"] == pytest.approx(25)
    assert cost["params"] == 40
    assert cost["peak_memory"] > 50e6  # a Python process with JAX
