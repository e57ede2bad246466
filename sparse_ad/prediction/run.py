"""The stage that scores new images with the detector of a workdir, and writes what it finds."""

import dataclasses
import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sparse_ad.data import warn_of_unused
from sparse_ad.data.checks import warn_of_orientation
from sparse_ad.data.sizes import warn_of_stretched
from sparse_ad.data.sources.ignored import with_ignored
from sparse_ad.devices import fit_batch
from sparse_ad.errors import UserError, require_choice
from sparse_ad.evaluation.scoring import ScoredImage
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.loop import fingerprint
from sparse_ad.prediction.inputs import Inputs, list_inputs
from sparse_ad.prediction.outputs import KINDS, Drawing, ScoredPicture, stems, write_files
from sparse_ad.prediction.predictor import Limits, choose_limits, score_examples
from sparse_ad.prediction.progress import (
    SCORES,
    Earlier,
    Record,
    Row,
    add_rows,
    hash_fit,
    identity,
    read_earlier,
    write_end,
    write_start,
)
from sparse_ad.stages import Fitted, load_fitted, stage
from sparse_ad.system.lock import locked
from sparse_ad.system.names import printable
from sparse_ad.system.workdir import environment_of, require_fitted, require_free
from sparse_ad.types import Example

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks of a prediction."""

    kinds: tuple[str, ...] = ("overlays",)  # of files for each image, beside scores.csv
    threshold: float | None = None  # of scores; None: that of the calibration
    pixel_threshold: float | None = None  # of anomaly maps; None: that of the calibration

    def __post_init__(self):
        for kind in self.kinds:
            require_choice("--write", kind, KINDS)


class Job(NamedTuple):
    """A prediction that is ready to begin."""

    experiment: Experiment
    fitted: Fitted
    inputs: Inputs
    limits: Limits
    kinds: tuple[str, ...]


def predict(
    experiment: Experiment, workdir: Path, given: Sequence[str], output: Path, request: Request
) -> None:
    """Scores images, and writes scores.csv, predictions.json and what else is asked for.

    An image has its row once its files are there. A prediction that was stopped goes on with the
    first image without a row, where detector, images and request are the same.
    Raises: UserError where nothing is fitted, and for inputs that are not there.
    """
    require_fitted(workdir, experiment)
    require_free(output, "predictions.json")
    inputs = list_inputs(given, output)
    examples = with_ignored(experiment.data, inputs.folder, inputs.examples)
    inputs = inputs._replace(examples=examples)
    warn_of_unused(inputs.left_out)
    warn_of_orientation(inputs.examples, experiment.data)
    fitted = load_fitted(experiment, workdir)
    experiment = experiment.as_fitted(fitted.record)
    stretched = warn_of_stretched("new", inputs.examples, experiment.data)
    limits = choose_limits(fitted.calibration, request.threshold, request.pixel_threshold)
    log.info("threshold %.4g: %s", *limits.image)
    if set(request.kinds) & {"masks", "regions"}:
        log.info("pixel threshold %.4g: %s", *limits.pixel)
    job = Job(experiment, fitted, inputs, limits, request.kinds)
    record = describe_job(job, workdir)._replace(stretched=stretched)
    with locked("output", output), stage("predict"):
        remove_partial(output)
        done = score_all(job, output, record)
    paths = ", ".join(str(output / name) for name in (SCORES, *request.kinds))
    print(printable(f"{done.flagged} of {done.count} images flagged: {paths}"))


def remove_partial(output: Path) -> None:
    """Removes what a kill left of files that were being written."""
    for kind in KINDS:
        for path in (output / kind).rglob(".*.partial"):
            path.unlink(missing_ok=True)


def describe_job(job: Job, workdir: Path) -> Record:
    """Returns what is written of a prediction that is about to begin."""
    scale = job.fitted.calibration.scale
    return Record(
        hash_fit(workdir),
        hash_images(job.inputs.examples),
        len(job.inputs.examples),
        job.limits,
        job.kinds,
        (scale.low, scale.high),
        job.inputs.left_out,
        environment_of(job.experiment),
    )


def score_all(job: Job, output: Path, record: Record) -> Record:
    """Scores the images that have no row yet; returns the record of the finished prediction.

    Raises: UserError, with nothing written, where no image can be read.
    """
    earlier = read_earlier(output)
    same = earlier is not None and identity(earlier.record) == identity(record)
    if earlier is not None and same and earlier.record.finished:
        log.info("%s holds this prediction already; delete it to score again", output)
        return earlier.record
    kept = earlier.rows if earlier is not None and same else []
    done = [row for row in kept if not row.problem]  # others are tried again
    known = {row.path for row in done}
    left = [each for each in job.inputs.examples if each.path not in known]
    if done:
        log.info("%d of %d images are scored already", len(done), record.count)
    elif earlier is not None:
        log.info("%s: an earlier prediction is replaced", output)
        remove_files(output, earlier)
    rows, waiting = list(done), []
    started = False
    for row in new_rows(job, output, left) if left else ():
        waiting.append(row)
        if row.problem:
            log.warning("skipped: %s", row.problem)
        if not started and (row.score is not None or done):
            write_start(output, record, done)
            started = True
        if started:
            add_rows(output, waiting)
            rows += waiting
            waiting = []
    if not (started or done):
        raise UserError(f"none of {record.count} images can be read (first: {waiting[0].problem})")
    order = {example.path: index for index, example in enumerate(job.inputs.examples)}
    return write_end(output, record, sorted(rows, key=lambda row: order[row.path]))


def hash_images(examples: Sequence[Example]) -> str:
    """Returns a hash of the names, sizes and times of images, and of their ignore masks."""
    files = [example.image for example in examples if isinstance(example.image, Path)]
    times = " ".join(str(path.stat().st_mtime_ns) for path in files if path.exists())
    return hashlib.sha256(f"{fingerprint(examples)} {times}".encode()).hexdigest()


def remove_files(output: Path, earlier: Earlier) -> None:
    """Removes what an earlier prediction wrote of its images."""
    for stem in stems(row.path for row in earlier.rows).values():
        for kind in earlier.record.kinds:
            if kind in KINDS:
                (output / kind / f"{stem}{KINDS[kind][0]}").unlink(missing_ok=True)


def new_rows(job: Job, output: Path, left: Sequence[Example]) -> Iterator[Row]:
    """Yields the row of each image, once its files are written, by threads beside the scoring."""
    images, options = job.experiment.data, job.experiment.evaluation
    size = fit_batch(options.batch_size, len(left))
    drawing = Drawing(images, job.fitted.calibration.scale, job.limits.pixel.value)
    stem_of = stems(example.path for example in job.inputs.examples)
    finish = partial(finish_image, job.kinds, output, stem_of, drawing, job.limits.image.value)
    threads = max(1, images.workers)
    waiting: deque[Future[Row]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for image in score_examples(job.fitted, job.experiment, left, size, "predict"):
            waiting.append(pool.submit(finish, image))
            while len(waiting) > 2 * threads or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def finish_image(
    kinds: Sequence[str],
    output: Path,
    stem_of: dict[str, str],
    drawing: Drawing,
    threshold: float,
    image: ScoredImage,
) -> Row:
    """Writes the files of one image; returns its row."""
    path = image.example.path
    if image.problem:
        return Row(path, None, threshold, None, image.problem)
    write_files(output, stem_of[path], kinds, ScoredPicture(image.example, image.map, drawing))
    return Row(path, image.score, threshold, int(image.score > threshold), "")
