"""What a launch does, stage by stage: fit, evaluate, predict."""

import logging
import time
from contextlib import contextmanager
from pathlib import Path

import jax

from sparse_ad import data, methods
from sparse_ad.data.sources.folder import list_images
from sparse_ad.devices import by_image, mesh
from sparse_ad.errors import UserError
from sparse_ad.evaluation import protocol
from sparse_ad.fitting import loop
from sparse_ad.report import page
from sparse_ad.report.pictures import gather_pictures
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.workdir import (
    CALIBRATION,
    is_finished,
    is_fitted,
    open_workdir,
    plain,
    require_fitted,
)
from sparse_ad.types import Example, Method, Splits

log = logging.getLogger(__name__)
UNKNOWN = dict.fromkeys(("kind", "group", "label"))  # of new images


def fit(config, workdir: Path) -> None:
    """Fits the detector and sets its threshold: checkpoints, fit.json, calibration.json."""
    if is_fitted(workdir, config):
        log.info("%s is fitted already: --mode=run or evaluate goes on from there", workdir)
        return
    method, score = build(config)
    splits = load_data(config)
    open_workdir(workdir, config)
    prepare(method, score, config, splits, workdir)


def run(config, workdir: Path) -> None:
    """Fits, evaluates and reports; a workdir that holds all of it is left as it is."""
    if is_finished(workdir, config):
        log.info("%s is finished already: see %s", workdir, workdir / "report.html")
        print(page.format_results(read_json(workdir / "results.json")))
        return
    method, score = build(config)
    splits = load_data(config)
    open_workdir(workdir, config)
    params, record, calibration = prepare(method, score, config, splits, workdir)
    measure(method, score, params, config, splits, calibration, record, workdir)


def evaluate_fitted(config, workdir: Path) -> None:
    """Evaluates and reports a fitted workdir, whose threshold may be set anew."""
    require_fitted(workdir, config)
    method, score = build(config)
    splits = load_data(config)
    params = loop.load(method, config, workdir, splits.train)
    open_workdir(workdir, config)
    record = read_json(workdir / "fit.json")
    calibration = calibrate(score, params, config, splits, workdir)
    measure(method, score, params, config, splits, calibration, record, workdir)


def predict(config, workdir: Path, images: Path, output: Path) -> None:
    """Scores a folder of images by a fitted workdir: scores.csv and heat-map overlays."""
    require_fitted(workdir, config)
    calibration = read_json(workdir / "calibration.json", CALIBRATION)
    examples = [Example(path, 0, "", None, path.name, path.name) for path in list_images(images)]
    method, score = build(config)
    params = loop.load(method, config, workdir)
    rows = []
    with stage("predict"):
        for found in protocol.predict(score, params, examples, calibration, config):
            rows.append(found.row | UNKNOWN)
            if found.problem:
                log.warning("skipped: %s", found.problem)
            else:
                name = f"{found.row['path']}.png"
                page.write_overlay(
                    output / "overlays" / name, found.image, found.map, calibration["scale"]
                )
        page.write_scores(output / "scores.csv", rows)
    flagged = sum(bool(row["flagged"]) for row in rows)
    print(
        f"{flagged} of {len(rows)} images flagged: {output / 'scores.csv'}, {output / 'overlays'}"
    )


def build(config):
    """Returns the detector and its compiled score, after a look at what could fail only later.

    Raises: UserError for a field out of range, or a method that does not fit the images.
    """
    data.check(config.data, config.seed)
    loop.check(config)
    protocol.check(config.evaluation)
    method = methods.build(config)
    loop.state_like(method, config)
    for section in ("features", "method"):
        fields = ", ".join(f"{name} {value}" for name, value in config[section].items())
        log.info("%s: %s", section, fields)
    return method, scoring(method)


def scoring(method: Method):
    """Returns the compiled `score(params, images)`: features first, then the detector."""
    score = by_image(method.score)
    return lambda params, images: score(params, method.features.extract(images))


def load_data(config) -> Splits:
    """Loads the splits, and logs what there is and where it will be worked on."""
    with stage("data"):
        splits = data.load(config.data, config.seed)
    log.info("%d %s device(s): %s", mesh().size, jax.default_backend(), jax.devices()[0])
    log.info(
        "%d training, %d calibration, %d test images at %d x %d, %s",
        *(len(part) for part in splits),
        *config.data.size,
        config.data.color,
    )
    return splits


def prepare(method, score, config, splits: Splits, workdir: Path):
    """Returns fitted parameters, the record of the fit, and the calibration."""
    with stage("fit"):
        params, record = loop.fit(method, config, splits.train, workdir)
    log.info("fitted: %s", ", ".join(f"{k} {v:.4g}" for k, v in record["last"].items()))
    return params, record, calibrate(score, params, config, splits, workdir)


def calibrate(score, params, config, splits: Splits, workdir: Path) -> dict:
    """Sets the threshold on held-out normal images; written to calibration.json."""
    with stage("calibrate"):
        calibration = protocol.calibrate(score, params, splits.calibration, config)
    calibration["evaluation"] = plain(config)["evaluation"]
    write_json(workdir / "calibration.json", calibration)
    for each in calibration["skipped"]:
        log.warning("left out of the calibration: %s", each["problem"])
    threshold = calibration["threshold"]
    log.info("threshold %.4g: %s", threshold["value"], page.describe_threshold(threshold))
    return calibration


def measure(method, score, params, config, splits, calibration, record, workdir: Path) -> None:
    """Evaluates on the test images and writes results and report."""
    with stage("evaluate"):
        results, rows = protocol.evaluate(score, params, splits, calibration, config, record)
        results["features"] = method.features.identity  # the hash of the weights is in it
    info = results["score_info"].items()
    log.info("scoring: %s", ", ".join(f"{name} {value:.4g}" for name, value in info))
    with stage("report"):
        pictures = gather_pictures(method, score, params, splits.test, rows, config)
        path = page.write_report(workdir, results, rows, pictures)
    page.write_results(workdir, results, rows)  # last: their presence says "finished"
    print(page.format_results(results))
    print(f"report: {path}")


@contextmanager
def stage(name: str):
    """Logs how long a stage took."""
    start = time.monotonic()
    log.info("%s ...", name)
    yield
    log.info("%s took %.1f s", name, time.monotonic() - start)


def require_directory(flag: str, path: str | None) -> Path:
    """Returns a path that must be an existing folder. Raises: UserError naming the flag."""
    if not path:
        raise UserError(f"--{flag}: is missing; give a folder that holds images")
    if not Path(path).is_dir():
        raise UserError(f"--{flag} = {path!r}: is not a folder; give one that holds images")
    return Path(path)
