"""The stages of a run: fit, calibrate, evaluate, report; and predict."""

import logging
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from sparse_ad import data
from sparse_ad.data.sources.folder import with_ignored
from sparse_ad.data.sources.tree import SUFFIXES, list_images
from sparse_ad.devices import check_batch, mesh
from sparse_ad.errors import UserError, within
from sparse_ad.evaluation import protocol
from sparse_ad.evaluation.records import read_calibration, read_results, write_results, write_scores
from sparse_ad.evaluation.results import About, Calibration
from sparse_ad.experiment import Experiment
from sparse_ad.fitting import loop
from sparse_ad.fitting.record import FitRecord
from sparse_ad.methods.compiled import Score, compile_score
from sparse_ad.options import describe
from sparse_ad.report.page import write_overlay, write_report
from sparse_ad.report.pictures import gather_pictures
from sparse_ad.report.summary import describe_threshold, format_results
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.names import printable
from sparse_ad.system.workdir import (
    check_config,
    environment_of,
    is_finished,
    is_fitted,
    open_workdir,
    plain,
    require_fitted,
)
from sparse_ad.types import Example, Method, Params, Splits

log = logging.getLogger(__name__)

PREDICT = "score images by --mode=predict --workdir=DIR --input=FOLDER"


class Detector(NamedTuple):
    """What is built before any data is read."""

    method: Method
    score: Score  # compiled


def fit(experiment: Experiment, workdir: Path) -> None:
    """Fits the detector and sets its threshold: checkpoints, fit.json, calibration.json."""
    if is_fitted(workdir, experiment):
        log.info("%s is fitted already: --mode=run or evaluate continues from there", workdir)
        return
    detector = build(experiment)
    splits = load_data(experiment)
    check_config(workdir, experiment)
    loop.check_images(workdir, splits.train)  # before config.json says where they lie
    open_workdir(workdir, experiment)
    prepare(detector, experiment, splits, workdir)


def run(experiment: Experiment, workdir: Path) -> None:
    """Fits, evaluates and reports; a workdir that holds all of it is left as it is."""
    if is_finished(workdir, experiment):
        log.info("%s is finished already: see %s", workdir, workdir / "report.html")
        print(format_results(read_results(workdir / "results.json")))
        return
    detector = build(experiment)
    splits = load_data(experiment)
    check_config(workdir, experiment)
    loop.check_images(workdir, splits.train)
    open_workdir(workdir, experiment)
    params, record, calibration = prepare(detector, experiment, splits, workdir)
    if not splits.test:
        print(f"threshold {calibration.threshold.value:.4g}; no test images: {PREDICT}")
        return
    measure(detector, params, experiment, splits, calibration, record, workdir)


def evaluate_fitted(experiment: Experiment, workdir: Path) -> None:
    """Evaluates and reports a fitted workdir, whose threshold may be set again."""
    require_fitted(workdir, experiment)
    detector = build(experiment)
    splits = load_data(experiment)
    if not splits.test:
        raise UserError(f"data: no test images to evaluate; {PREDICT}")
    params = loop.load(experiment.setup(detector.method), workdir, splits.train)
    open_workdir(workdir, experiment)
    record = read_json(workdir / "fit.json", FitRecord)
    calibration = calibrate(detector, params, experiment, splits, workdir)
    measure(detector, params, experiment, splits, calibration, record, workdir)


def predict(experiment: Experiment, workdir: Path, images: Path, output: Path) -> None:
    """Scores a folder of images by a fitted workdir: scores.csv and heat-map overlays."""
    require_fitted(workdir, experiment)
    calibration = read_calibration(workdir / "calibration.json")
    examples = with_ignored(experiment.data, images, list_inputs(images))
    detector = build(experiment)
    params = loop.load(experiment.setup(detector.method), workdir)
    rows, options = [], experiment.evaluation
    with stage("predict"):
        for image in protocol.predict(
            detector.score, params, examples, calibration, experiment.data, options
        ):
            rows.append(image.row)
            if image.problem:
                log.warning("skipped: %s", image.problem)
            else:
                path = output / "overlays" / f"{image.row.path}.png"
                write_overlay(path, image.image, image.map, calibration.scale, image.ignored)
        write_scores(output / "scores.csv", rows)
    flagged = sum(bool(row.flagged) for row in rows)
    places = printable(f"{output / 'scores.csv'}, {output / 'overlays'}")
    print(f"{flagged} of {len(rows)} images flagged: {places}")


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
    for name in ("features", "tiles", "method"):
        options = list(describe(getattr(experiment, name)))
        fields = ", ".join(f"{option.path} {option.default}" for option in options)
        kind = plain(experiment)[name].get("name", "")
        log.info("%s: %s", f"{name} {kind}".strip(), fields or "no options")
    return Detector(method, compile_score(method))


def load_data(experiment: Experiment) -> Splits:
    """Loads the splits, and logs their sizes and the devices."""
    with stage("data"), within("data"):
        splits = data.load(experiment.data, experiment.seed)
    log.info("%d %s device(s): %s", mesh().size, jax.default_backend(), jax.devices()[0])
    log.info(
        "%d training, %d calibration, %d test images at %d x %d, %s",
        *(len(part) for part in (splits.train, splits.calibration, splits.test)),
        *experiment.data.size,
        experiment.data.color,
    )
    return splits


def prepare(
    detector: Detector, experiment: Experiment, splits: Splits, workdir: Path
) -> tuple[Params, FitRecord, Calibration]:
    """Returns fitted parameters, the record of the fit, and the calibration."""
    with stage("fit"):
        params, record = loop.fit(experiment.setup(detector.method), splits.train, workdir)
    log.info("fitted: %s", ", ".join(f"{k} {v:.4g}" for k, v in record.last.items()))
    return params, record, calibrate(detector, params, experiment, splits, workdir)


def calibrate(
    detector: Detector, params: Params, experiment: Experiment, splits: Splits, workdir: Path
) -> Calibration:
    """Sets the threshold on held-out normal images; written to calibration.json."""
    with stage("calibrate"):
        calibration = protocol.calibrate(
            detector.score, params, splits.calibration, experiment.data, experiment.evaluation
        )
    write_json(workdir / "calibration.json", calibration)
    for image in calibration.skipped:
        log.warning("left out of the calibration: %s", image.problem)
    threshold = calibration.threshold
    log.info("threshold %.4g: %s", threshold.value, describe_threshold(threshold))
    return calibration


def measure(
    detector: Detector,
    params: Params,
    experiment: Experiment,
    splits: Splits,
    calibration: Calibration,
    record: FitRecord,
    workdir: Path,
) -> None:
    """Evaluates on the test images and writes results and report."""
    method, score = detector
    images, options = experiment.data, experiment.evaluation
    about = About(
        experiment.name,
        plain(experiment),
        environment_of(experiment),
        record,
        method.features.identity,  # the hash of the weights is in it
    )
    with stage("evaluate"):
        results, rows = protocol.evaluate(
            score, params, splits, calibration, images, options, experiment.seed, about
        )
    if results.score_info:
        info = results.score_info.items()
        log.info("scoring: %s", ", ".join(f"{name} {value:.4g}" for name, value in info))
    with stage("report"):
        pictures = gather_pictures(
            method, score, params, splits.test, rows, images, options.batch_size
        )
        path = write_report(workdir, results, rows, pictures)
    write_results(workdir, results, rows)  # last: their presence says "finished"
    print(format_results(results))
    print(f"report: {printable(path)}")


@contextmanager
def stage(name: str):
    """Logs how long a stage took."""
    start = time.monotonic()
    log.info("%s ...", name)
    yield
    log.info("%s took %.1f s", name, time.monotonic() - start)


def list_inputs(folder: Path) -> list[Example]:
    """Returns the images below a folder, to be scored. Raises: UserError where there is none."""
    paths, others = list_images(folder)
    if not paths:
        raise UserError(f"{folder}: no images; give a folder of {' '.join(SUFFIXES)} files")
    if others:
        log.warning("%d files are no images and are left out", len(others))
    names = [printable(path.relative_to(folder).as_posix()) for path in paths]
    return [Example(path, 0, "", None, name, name) for path, name in zip(paths, names, strict=True)]


def require_directory(flag: str, path: str | None) -> Path:
    """Returns a path that must be an existing folder. Raises: UserError naming the flag."""
    if not path:
        raise UserError(f"--{flag}: is missing; give a folder that holds images")
    if not Path(path).is_dir():
        raise UserError(f"--{flag} = {path!r}: is not a folder; give one that holds images")
    return Path(path)
