"""The protocol from end to end, with a detector simple enough to be checked by hand."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.evaluating import ABOUT, IMAGES, OPTIONS, run
from helpers.toy import SIZE, broken, examples, fit, make_splits, mean_image
from sklearn.metrics import roc_auc_score

from sparse_ad.errors import FieldError, UserError
from sparse_ad.evaluation import protocol
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.evaluation.results import Counts
from sparse_ad.evaluation.scoring import measure_costs, summarise_info
from sparse_ad.methods.compiled import compile_score
from sparse_ad.types import Diagnostics, Scores


@pytest.fixture
def splits():
    return make_splits()


@pytest.fixture
def fitted(splits):
    return fit(splits)


@pytest.fixture(scope="module")
def score():
    return compile_score(mean_image())


def by_hand(fitted, some):
    images = np.stack([each.image for each in some]) / np.float32(255)
    return np.abs(images - np.asarray(fitted["mean"])[..., 0])


def test_metrics_are_those_of_a_direct_computation(score, fitted, splits):
    calibration, results, rows = run(score, fitted, splits)
    maps, label = by_hand(fitted, splits.test), np.array([each.label for each in splits.test])
    expected = maps.max((1, 2))
    assert [row.score for row in rows] == pytest.approx(expected, rel=1e-5)  # float32 sums
    assert results.image.auroc.value == pytest.approx(roc_auc_score(label, expected))

    held_out = by_hand(fitted, splits.calibration)
    threshold = np.sort(held_out.max((1, 2)))[18]  # ceil((19 + 1) * 0.95) = 19th smallest
    assert calibration.threshold.value == pytest.approx(threshold, rel=1e-5)
    assert calibration.threshold.guaranteed
    assert [row.flagged for row in rows] == (expected > threshold).tolist()
    assert results.image.r1.value == np.mean(expected[label == 0] <= threshold)
    assert results.image.r2.value == np.mean(expected[label == 1] > threshold)
    assert results.kinds["hole"].count == 4
    assert results.kinds["cut"].r2.value == np.mean(expected[10:17] > threshold)

    masks = np.stack(
        [np.zeros((SIZE, SIZE)) if each.mask is None else each.mask > 0 for each in splits.test]
    )
    pixel = roc_auc_score(masks.ravel(), maps.ravel())
    assert results.pixel.auroc.value == pytest.approx(pixel, abs=1e-3)  # see test_pixel_metrics
    assert results.pixel.images == 11
    assert results.counts == Counts(8, 19, 10, 11, 0)
    assert results.score_info["brightness"] == pytest.approx(0.47, abs=0.03)
    pixels = np.stack([each.image for each in splits.test]) / 255
    assert results.score_info["largest_pixel"] == pytest.approx(pixels.max())
    assert (results.name, results.fit, results.features) == ("toy", ABOUT.fit, "pixels")


def test_costs_are_those_of_the_detector(score, fitted, splits):
    _, results, _ = run(score, fitted, splits)
    assert all(value is None or value >= 0 for value in results.cost)
    assert results.cost.params == SIZE * SIZE * 4  # one float32 image
    assert results.cost.batches_timed == 2  # of 3 batches of 8, for 21 images


def test_heat_map_scale_comes_from_normal_images(score, fitted, splits):
    calibration = protocol.calibrate(score, fitted, splits.calibration, IMAGES, OPTIONS)
    scale, maps = calibration.scale, by_hand(fitted, splits.calibration)
    assert scale.low < scale.limit < scale.high
    assert scale.limit == pytest.approx(np.sort(maps.max((1, 2)))[18], rel=1e-5)


def test_batch_size_does_not_matter(score, fitted, splits):
    _, _, rows = run(score, fitted, splits)
    options = replace(OPTIONS, batch_size=24)  # a multiple of the devices; the batch is padded
    _, _, larger = run(score, fitted, splits, options)
    assert [row.score for row in rows] == pytest.approx([row.score for row in larger], rel=1e-6)


def test_anomalous_images_without_masks_are_left_out_of_pixel_figures(score, fitted, splits):
    normal, hole = splits.test[:10], splits.test[17:]
    unmarked = examples(7, 1, "cut", 4, masks=False)
    _, results, _ = run(score, fitted, splits._replace(test=normal + unmarked + hole, copies=5))
    _, without, _ = run(score, fitted, splits._replace(test=normal + hole))
    assert results.pixel == without.pixel._replace(left_out=7)
    assert (results.copies, without.copies) == (5, 0)
    assert results.pixel.images == 4
    _, results, _ = run(score, fitted, splits._replace(test=normal + unmarked))
    assert results.pixel.auroc.value is None


@pytest.mark.parametrize(("some", "metric"), [(slice(10), "r2"), (slice(10, None), "r1")])
def test_one_class_gives_no_auroc_and_no_crash(score, fitted, splits, some, metric):
    _, results, rows = run(score, fitted, splits._replace(test=splits.test[some]))
    assert len(rows) == len(splits.test[some])
    assert results.image.auroc.value is None
    assert getattr(results.image, metric).value is None
    assert results.oracle.f1 is None


def test_a_few_unreadable_images_are_skipped_and_listed(score, fitted, splits):
    test = (broken(splits.test[0]), *splits.test[1:])
    _, results, rows = run(score, fitted, splits._replace(test=test))
    assert [each.path for each in results.skipped] == ["good/000.png"]
    assert results.skipped[0].problem
    assert results.counts.test_skipped == 1 and len(rows) == 20


def test_too_many_unreadable_images_are_an_error(score, fitted, splits):
    test = (*map(broken, splits.test[:2]), *splits.test[2:])
    with pytest.raises(UserError, match=r"2 of 21 images .*good/000.*max_unreadable"):
        run(score, fitted, splits._replace(test=test))


@pytest.mark.parametrize(
    ("some", "name"), [(slice(10), "10 normal"), (slice(10, None), "11 anomalous")]
)
def test_an_unreadable_class_is_an_error(score, fitted, splits, some, name):
    test = list(splits.test)
    test[some] = map(broken, test[some])
    with pytest.raises(UserError, match=f"none of the {name} images"):
        run(score, fitted, splits._replace(test=tuple(test)), replace(OPTIONS, max_unreadable=1.0))


def test_no_calibration_images_are_an_error(score, fitted, splits):
    with pytest.raises(UserError, match="no calibration images"):
        run(score, fitted, splits._replace(calibration=()))


def test_without_test_images_nothing_is_measured_and_normal_images_are_shown(score, fitted, splits):
    calibration, results, rows = run(score, fitted, splits._replace(test=()))
    assert [(row.path, row.score) for row in rows] == [each[:2] for each in calibration.scores]
    assert results.counts == Counts(8, 19, 0, 0, 0) and results.kinds == {}
    for metrics in (results.image, results.pixel[:3]):
        assert all(metric.value is None and metric.reason for metric in metrics)


def test_peaks_are_those_of_the_maps(score, fitted, splits):
    calibration = protocol.calibrate(score, fitted, splits.calibration, IMAGES, OPTIONS)
    peaks = [each.peak for each in calibration.scores]
    assert peaks == pytest.approx(by_hand(fitted, splits.calibration).max((1, 2)), rel=1e-5)


@pytest.mark.parametrize("where", ["image", "map"])
def test_scores_that_are_not_finite_name_the_image(score, fitted, splits, where):
    def spoilt(params, images):
        scores = score(params, images)
        return scores._replace(**{where: getattr(scores, where).at[2].set(jnp.nan)})

    with pytest.raises(UserError, match=r"good/002\.png"):
        protocol.calibrate(spoilt, fitted, splits.calibration, IMAGES, OPTIONS)


def test_a_dead_detector_has_a_scale_all_the_same(fitted, splits):
    def score(params, images):
        return Scores(jnp.zeros(len(images)), jnp.zeros(images.shape[:3]))

    calibration, results, rows = run(score, fitted, splits)
    assert calibration.scale.high > calibration.scale.low
    assert results.image.auroc.value == 0.5
    assert not any(row.flagged for row in rows)


def test_unreadable_calibration_images_are_reported(score, fitted, splits):
    some = splits._replace(calibration=(broken(splits.calibration[0]), *splits.calibration[1:]))
    _, results, _ = run(score, fitted, some, replace(OPTIONS, max_unreadable=0.5))
    assert [each.path for each in results.skipped] == [splits.calibration[0].path]
    assert results.counts.calibration == len(splits.calibration) - 1
    assert results.counts.test_skipped == 0


def test_costs_of_known_calls():
    cost = measure_costs([2.0, 0.1, 0.1, 0.1, 0.3], 4, {"a": np.zeros(10, np.float32)})
    assert cost.compile_seconds == pytest.approx(1.9)
    assert cost.images_per_second == pytest.approx(4 / 0.15)
    assert cost.milliseconds_p50 == pytest.approx(25)
    assert cost.params == 40
    assert cost.peak_memory > 50e6  # a Python process with JAX


def test_diagnostics_are_averaged_or_the_largest_is_kept():
    infos = [Diagnostics({"steps": value}, {"gap": value}) for value in (1.0, 2.0, 6.0)]
    assert summarise_info(infos) == {"steps": 3.0, "largest_gap": 6.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("false_alarm_rate", 0.0),
        ("false_alarm_rate", 1.0),
        ("bootstrap", 0),
        ("max_unreadable", -0.1),
        ("max_unreadable", 1.1),
    ],
)
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(FieldError) as error:
        Evaluation(**{field: value})
    assert (error.value.field, error.value.value) == (field, value)


HIDDEN = np.zeros((SIZE, SIZE), bool)
HIDDEN[:, 12:] = True


def test_ignored_pixels_do_not_set_the_scale(score, fitted, splits):
    """As bright as may be, they change neither the maps nor what is read from them."""
    masked = [each._replace(ignore=HIDDEN) for each in splits.calibration]
    calibration = protocol.calibrate(score, fitted, masked, IMAGES, OPTIONS)
    maps = by_hand(fitted, splits.calibration)[:, ~HIDDEN]
    expected = protocol.set_scale(np.median(maps, 1), maps.max(1), OPTIONS.false_alarm_rate)
    assert calibration.scale == pytest.approx(expected, rel=1e-5)
    bright = [each._replace(image=np.where(HIDDEN, 255, each.image)) for each in masked]
    bright = [each._replace(image=each.image.astype(np.uint8)) for each in bright]
    again = protocol.calibrate(score, fitted, bright, IMAGES, OPTIONS)
    assert (again.scale, again.scores) == (calibration.scale, calibration.scores)


def test_defects_on_ignored_pixels_alone_are_a_warning(score, fitted, splits, caplog):
    masked = tuple(each._replace(ignore=each.mask) for each in splits.test)
    _, results, _ = run(score, fitted, splits._replace(test=masked))
    assert "11 anomalous images are marked on ignored pixels alone" in caplog.text
    assert (results.pixel.images, results.pixel.left_out) == (0, 11)


def test_an_image_of_which_nothing_is_left_is_named(fitted, splits):
    def nothing(params, images, ignored):
        return Scores(jnp.full(len(images), jnp.nan), jnp.zeros(images.shape[:3]))

    masked = [each._replace(ignore=HIDDEN) for each in splits.calibration]
    with pytest.raises(UserError, match=r"^good/000\.png: no patch lies on pixels that are not ig"):
        protocol.calibrate(nothing, fitted, masked, IMAGES, OPTIONS)
