"""The stages of a run: fit, calibrate, evaluate, report."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sparse_ad import data
from sparse_ad.data.checks import warn_of_copies, warn_of_orientation
from sparse_ad.data.sizes import find_size, warn_of_stretched
from sparse_ad.data.sources.ignored import check_ignored, ignored_entries_of, with_ignored
from sparse_ad.data.sources.layouts import NORMAL, Rules, read_labelled
from sparse_ad.devices import check_batch, fit_batch, mesh, replicate
from sparse_ad.errors import UserError, within
from sparse_ad.evaluation import calibration as calibrating
from sparse_ad.evaluation import protocol, thresholds
from sparse_ad.evaluation.normal_errors import (
    read_normal_errors,
    remove_unused,
    write_normal_errors,
)
from sparse_ad.evaluation.records import read_calibration, read_results, write_results
from sparse_ad.evaluation.results import About, Calibration
from sparse_ad.experiment import Experiment
from sparse_ad.fitting import loop
from sparse_ad.fitting.metrics_log import read_metrics
from sparse_ad.fitting.positions import check_positions, error_shapes
from sparse_ad.fitting.record import FitRecord
from sparse_ad.methods.compiled import Score, compile_score
from sparse_ad.methods.lifts.calibrated import Calibrated, NormalErrors, calibrated
from sparse_ad.options import describe
from sparse_ad.report.page import write_report
from sparse_ad.report.pictures import gather_pictures
from sparse_ad.report.summary import describe_threshold, format_results
from sparse_ad.system.environment import shorten
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.lock import locked
from sparse_ad.system.memory import enough_memory
from sparse_ad.system.names import printable
from sparse_ad.system.workdir import (
    check_config,
    environment_of,
    is_finished,
    is_fitted,
    plain,
    require_fitted,
    require_free,
    require_same_masks,
    require_same_units,
    working_in,
)
from sparse_ad.types import Example, Method, Params, Splits

log = logging.getLogger(__name__)

PREDICT = "score images by --mode=predict --workdir=DIR --input=FOLDER"
LOWER = {  # what to lower where a stage takes too much memory
    "fit": "fit.batch_size, data.size or the size of the detector",
    "calibrate": "evaluation.batch_size or data.size",
}


class Detector(NamedTuple):
    """What is built before any data is read."""

    method: Method
    score: Score  # compiled


class Ready(NamedTuple):
    """What a fit begins with."""

    experiment: Experiment  # at the exact size of its images
    detector: Detector
    splits: Splits


class Fitted(NamedTuple):
    """A detector that was fitted and calibrated: what it scores by is in its params."""

    detector: Detector
    params: Params
    calibration: Calibration
    record: FitRecord


def fit(experiment: Experiment, workdir: Path) -> None:
    """Fits the detector and sets its threshold: checkpoints, fit.json, calibration.json."""
    if is_fitted(workdir, experiment):
        log.info("%s is fitted already: --mode=run or evaluate continues from there", workdir)
        return
    exact, detector, splits = get_ready(experiment, workdir)
    with working_in(workdir, experiment):
        prepare(detector, exact, splits, workdir)


def run(experiment: Experiment, workdir: Path) -> None:
    """Fits, evaluates and reports; a workdir that holds all of it is left as it is."""
    if is_finished(workdir, experiment):
        log.info("%s is finished already: see %s", workdir, workdir / "report.html")
        print(format_results(read_results(workdir / "results.json")))
        return
    exact, detector, splits = get_ready(experiment, workdir)
    with working_in(workdir, experiment):
        fitted = prepare(detector, exact, splits, workdir)
        measure(fitted, experiment, splits, workdir)


def get_ready(experiment: Experiment, workdir: Path) -> Ready:
    """Returns what a fit begins with, once nothing is in its way.

    The detector comes first, so that its mistakes are told before data are read, unless the size
    of the images depends on these.
    """
    known = experiment.data.exact
    detector = build(experiment.at(known)) if known else None
    exact, splits = load_data(experiment)
    check_config(workdir, experiment)
    loop.check_images(workdir, splits.train)  # before config.json says where they lie
    return Ready(exact, detector or build(exact), splits)


def evaluate_fitted(experiment: Experiment, workdir: Path) -> None:
    """Evaluates and reports a fitted workdir, whose threshold may be set again."""
    require_fitted(workdir, experiment)
    record = read_json(workdir / "fit.json", FitRecord)
    exact = experiment.as_fitted(record)
    detector = build(exact)
    exact, splits = load_data(experiment, exact.data.pair)
    params = loop.load(exact.setup(detector.method), workdir, splits.train)
    with working_in(workdir, experiment):
        fitted = calibrate(detector, params, record, exact, splits, workdir)
        measure(fitted, experiment, splits, workdir)


def evaluate_on(experiment: Experiment, workdir: Path, folder: Path, output: Path) -> None:
    """Evaluates a fitted workdir on other labelled images; results and report go to `output`.

    `folder` holds test/<kind>, or folders of kinds. The threshold is that of the fit, or, for
    another `evaluation.false_alarm_rate`, set again from its calibration scores.
    """
    require_fitted(workdir, experiment)
    require_free(output, "results.json")
    images = experiment.as_fitted(read_json(workdir / "fit.json", FitRecord)).data
    with stage("data"):
        rules = Rules(getattr(images, "normal", NORMAL), images, ignored_entries_of(images))
        _, test, left_out, *_ = read_labelled(folder, rules)
        data.warn_of_unused(left_out)
        warn_of_orientation(test, images)
        stretched = warn_of_stretched("test", test, images)
    test = with_ignored(images, folder, test)
    check_ignored(test, images)
    fitted = load_fitted(experiment, workdir)
    with locked("output", output):
        (output / "results.json").unlink(missing_ok=True)  # it says that all of them is there
        splits = Splits((), (), test, left_out, count_copies(experiment, test), stretched)
        measure(fitted, experiment, splits, workdir, output, folder)


def count_copies(experiment: Experiment, test: Sequence[Example]) -> int | None:
    """Returns how many of other test images the detector may have been trained on.

    None, with a warning, where the training images are no longer at hand.
    """
    try:
        trained = experiment.data.load(experiment.seed).train
    except UserError as error:
        log.warning("the training images are not at hand, to be compared with: %s", error)
        return None
    return warn_of_copies("test", test, trained, "their scores are not those of new images")


def load_fitted(experiment: Experiment, workdir: Path) -> Fitted:
    """Returns the detector of a fitted workdir, with the threshold that the experiment asks for.

    Raises: UserError where the workdir holds no finished fit of this experiment.
    """
    require_fitted(workdir, experiment)
    require_same_masks(workdir, experiment)
    calibration = read_calibration(workdir / "calibration.json")
    require_same_units(workdir, calibration, experiment)
    record = read_json(workdir / "fit.json", FitRecord)
    experiment = experiment.as_fitted(record)
    detector = build(experiment)
    setup, normal = experiment.setup(detector.method), None
    if calibration.error_units.by != "none" and (grid := detector.method.grid):
        like = error_shapes(setup, grid)
        normal = read_normal_errors(workdir, calibration.normal_errors, like)
    detector, params = in_units(detector, loop.load(setup, workdir), normal)
    scores = np.array([each.score for each in calibration.scores])
    threshold = thresholds.set_threshold(scores, experiment.evaluation.false_alarm_rate)
    return Fitted(detector, params, calibration._replace(threshold=threshold), record)


def build(experiment: Experiment) -> Detector:
    """Builds the detector and its compiled scoring function.

    Checks every field first, so that a mistake fails now and not after an hour of fitting.
    Raises: UserError for a field out of range, or a detector that does not fit the images.
    """
    for name in ("fit", "evaluation"):
        with within(name):
            check_batch("batch_size", getattr(experiment, name).batch_size)
    method = experiment.build()
    experiment.setup(method).state_like()
    if getattr(experiment.data, "ignore", "") and method.grid is None:
        log.warning(
            "data.ignore: this detector has no grid of errors: ignored pixels are filled in by the "
            "nearest others, which then count for the image score"
        )
    for name in ("features", "tiles", "method"):
        options = list(describe(getattr(experiment, name)))
        fields = ", ".join(f"{option.path} {option.default}" for option in options)
        kind = plain(experiment)[name].get("name", "")
        log.info("%s: %s", f"{name} {kind}".strip(), fields or "no options")
    return Detector(method, compile_score(method))


def in_units(
    detector: Detector, params: Params, normal: NormalErrors | None
) -> tuple[Detector, Params]:
    """Returns the detector in units of normal images, and its params; None: as it is."""
    if normal is None or (grid := detector.method.grid) is None:
        return detector, params
    method = calibrated(detector.method, grid)
    return Detector(method, compile_score(method)), Calibrated(params, replicate(normal))


def load_data(
    experiment: Experiment, size: tuple[int, int] | None = None
) -> tuple[Experiment, Splits]:
    """Loads the splits, and logs their sizes and the devices.

    Returns the experiment at the size of its images, which is `size` where that is known, and the
    splits.
    """
    with stage("data"), within("data"):
        splits = data.load(experiment.data, experiment.seed)
        stride, seed = experiment.features.stride, experiment.seed
        sized = find_size(experiment.data, stride, splits.train, seed, size)
    exact = experiment.at(sized.size)
    if experiment.data.exact is None:  # else the source has checked them at their size
        check_ignored((*splits.train, *splits.calibration, *splits.test), exact.data)
    stretched = warn_of_stretched("test", splits.test, exact.data)
    splits = splits._replace(stretched=stretched, stretched_training=sized.stretched)
    log.info("%d %s device(s): %s", mesh().size, jax.default_backend(), jax.devices()[0])
    log.info(
        "%d training, %d calibration, %d test images at %d x %d, %s",
        *(len(part) for part in (splits.train, splits.calibration, splits.test)),
        *sized.size,
        experiment.data.color,
    )
    return exact, splits


def prepare(detector: Detector, experiment: Experiment, splits: Splits, workdir: Path) -> Fitted:
    """Returns the detector, fitted and calibrated."""
    setup = experiment.setup(detector.method)
    with stage("fit"):
        check_positions(setup, (*splits.train, *splits.calibration, *splits.test))
        params, record = loop.fit(setup, splits.train, workdir)
    log.info("fitted: %s", ", ".join(f"{k} {v:.4g}" for k, v in record.last.items()))
    return calibrate(detector, params, record, experiment, splits, workdir)


def calibrate(
    detector: Detector,
    params: Params,
    record: FitRecord,
    experiment: Experiment,
    splits: Splits,
    workdir: Path,
) -> Fitted:
    """Sets units and threshold on held-out normal images.

    Written to normal_errors.npz, if there are units, and then to calibration.json.
    """
    with stage("calibrate"):
        options = options_for(experiment, splits)
        calibration, normal = calibrating.calibrate(
            *detector, params, splits.calibration, experiment.data, options
        )
    (workdir / "results.json").unlink(missing_ok=True)  # it belongs to the calibration before
    sha256 = write_normal_errors(workdir, normal)
    calibration = calibration._replace(normal_errors=sha256)
    write_json(workdir / "calibration.json", calibration)
    remove_unused(workdir, sha256)
    for image in calibration.skipped:
        log.warning("left out of the calibration: %s", image.problem)
    threshold = calibration.threshold
    log.info("threshold %.4g: %s", threshold.value, describe_threshold(threshold))
    return Fitted(*in_units(detector, params, normal), calibration, record)


def measure(
    fitted: Fitted,
    experiment: Experiment,
    splits: Splits,
    workdir: Path,
    output: Path | None = None,
    other: Path | None = None,
) -> None:
    """Evaluates on the test images; writes results and report to `output`, the default the workdir.

    `experiment`: as it was given; images are read at the size of the fit.
    `other`: the folder of the test images, where they are not those of the experiment.
    """
    (method, score), params, calibration, record = fitted
    images = experiment.as_fitted(record).data
    options = options_for(experiment, splits)
    about = About(
        experiment.name,
        plain(experiment),
        environment_of(experiment),
        record,
        method.features.identity,  # the hash of the weights is in it
        shorten(str(other)) if other else "",
        splits.stretched,
        splits.stretched_training,
    )
    with stage("evaluate"):
        results, rows = protocol.evaluate(
            score, params, splits, calibration, images, options, experiment.seed, about
        )
    if results.score_info:
        info = results.score_info.items()
        log.info("scoring: %s", ", ".join(f"{name} {value:.4g}" for name, value in info))
    with stage("report"):
        shown = protocol.measured_images(splits)
        pictures = gather_pictures(method, score, params, shown, rows, images, options.batch_size)
        metrics = read_metrics(workdir / "metrics.jsonl")
        path = write_report(output or workdir, results, rows, pictures, metrics)
    write_results(output or workdir, results, rows)  # last: their presence says "finished"
    print(format_results(results))
    if not splits.test:
        print(f"no test images: {PREDICT}")
    print(f"report: {printable(path)}")


def options_for(experiment: Experiment, splits: Splits) -> protocol.Evaluation:
    """Returns the options of the evaluation, with batches no larger than the parts of the data."""
    options, most = experiment.evaluation, max(len(splits.calibration), len(splits.test))
    return replace(options, batch_size=fit_batch(options.batch_size, most))


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Logs how long a stage took. Raises: UserError that says what to lower, without memory."""
    start = time.monotonic()
    log.info("%s ...", name)
    with enough_memory(name, LOWER.get(name, LOWER["calibrate"])):
        yield
    log.info("%s took %.1f s", name, time.monotonic() - start)
