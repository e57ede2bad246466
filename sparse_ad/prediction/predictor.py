"""A fitted detector that scores new images: the model is loaded once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sparse_ad.data.decode import image_shape, resize
from sparse_ad.data.ignored import clear_ignored
from sparse_ad.data.images import Images
from sparse_ad.data.sizes import warn_of_stretched
from sparse_ad.data.sources.ignored import with_ignored
from sparse_ad.devices import fit_batch
from sparse_ad.errors import UserError, require
from sparse_ad.evaluation.results import Calibration
from sparse_ad.evaluation.scoring import ScoredImage, score_images
from sparse_ad.evaluation.thresholds import flag, set_threshold
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.prediction.inputs import examples_of
from sparse_ad.report.summary import describe_threshold
from sparse_ad.stages import Fitted, load_fitted
from sparse_ad.system.workdir import read_config
from sparse_ad.types import Example


class Limit(NamedTuple):
    """A threshold, and where it comes from."""

    value: float
    origin: str  # in words


class Limits(NamedTuple):
    """The thresholds of a prediction."""

    image: Limit  # of scores: images above it are flagged
    pixel: Limit  # of anomaly maps: pixels above it are marked


class Predictions(NamedTuple):
    """The scores of n images in memory."""

    score: Float[np.ndarray, " n"]  # higher = more anomalous
    flagged: Bool[np.ndarray, " n"]  # score > threshold
    maps: tuple[Float[np.ndarray, "_ _"], ...]  # of each image, at its own size [h w]
    threshold: float
    pixel_threshold: float  # maps > pixel_threshold mark what is anomalous


class Predictor:
    """Scores new images by the fitted detector of a workdir.

        predictor = Predictor("runs/sparse_features_vgg16")
        score, flagged, maps, *_ = predictor.predict(images)

    `false_alarm_rate`: of normal images that may be flagged, the default that of the fit.
    `threshold`, `pixel_threshold`: values of one's own for scores and maps, in their units.
    Raises: UserError where the workdir holds no finished fit.
    """

    def __init__(
        self,
        workdir: Path | str,
        *,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
    ):
        experiment = read_experiment(read_config(Path(workdir)))
        if false_alarm_rate is not None:
            options = replace(experiment.evaluation, false_alarm_rate=false_alarm_rate)
            experiment = replace(experiment, evaluation=options)
        self.fitted = load_fitted(experiment, Path(workdir))
        self.experiment = experiment.as_fitted(self.fitted.record)
        self.limits = choose_limits(self.fitted.calibration, threshold, pixel_threshold)

    def predict(self, images: Iterable[Any]) -> Predictions:
        """Returns the scores of images: an array [n h w c], or arrays [h w c], paths or bytes.

        Arrays are floats in 0..1, bytes or 16-bit integers, grey (c = 1) or RGB (c = 3), of any
        size. A score does not depend on the other images.
        Raises: UserError for an image that cannot be read.
        """
        options = self.experiment.evaluation
        examples = with_ignored(self.experiment.data, None, examples_of(images))
        warn_of_stretched("new", examples, self.experiment.data)
        power = 1 << (len(examples) - 1).bit_length()  # so few sizes of batches are compiled
        size = fit_batch(options.batch_size, power)
        scores, maps = [], []
        for image in score_examples(self.fitted, self.experiment, examples, size):
            if image.problem:
                raise UserError(image.problem)
            scores.append(image.score)
            maps.append(own_size(image.example, image.map, self.experiment.data))
        score = np.array(scores)
        image, pixel = (limit.value for limit in self.limits)
        return Predictions(score, flag(score, image), tuple(maps), image, pixel)


def score_examples(
    fitted: Fitted,
    experiment: Experiment,
    examples: Sequence[Example],
    batch_size: int,
    title: str | None = None,
) -> Iterator[ScoredImage]:
    """Yields the scores of new images, one after the other; `title`: of a progress bar."""
    inputs = fitted.params, examples, experiment.data, batch_size
    return score_images(fitted.detector.score, *inputs, title, strict=False)


def choose_limits(
    calibration: Calibration, threshold: float | None, pixel_threshold: float | None
) -> Limits:
    """Returns the thresholds that are given, or else those that the calibration images set.

    The one of pixels is exceeded anywhere on a new normal image with at most the false-alarm rate
    of the other: it is set by the peaks of the maps as that is by the scores.
    """
    own = calibration.threshold
    return Limits(
        given_limit("threshold", threshold) or Limit(own.value, describe_threshold(own)),
        given_limit("pixel_threshold", pixel_threshold) or peak_limit(calibration),
    )


def peak_limit(calibration: Calibration) -> Limit:
    """Returns the threshold of pixels that the peaks of the calibration images' maps set."""
    known = [each.peak for each in calibration.scores if each.peak is not None]
    if len(known) < len(calibration.scores):
        remedy = "an older version set; --mode=evaluate sets the one of the false-alarm rate"
        return Limit(calibration.scale.limit, f"the middle of the colours, which {remedy}")
    peak = set_threshold(np.array(known), calibration.threshold.false_alarm_rate)
    return Limit(peak.value, f"of the peaks of their maps: {describe_threshold(peak)}")


def given_limit(flag: str, value: float | None) -> Limit | None:
    """Returns a threshold of the user's own; None where none is given.

    Raises: FieldError where it is not finite.
    """
    if value is None:
        return None
    finite = isinstance(value, int | float | np.number) and bool(np.isfinite(value))
    require(finite, f"--{flag}", value, "give a finite number")
    return Limit(float(value), "given")


def own_size(
    example: Example, anomaly_map: Float[np.ndarray, "h w"], images: Images
) -> Float[np.ndarray, "_ _"]:
    """Returns an anomaly map at the size of its image, bilinear; 0 where that is ignored."""
    at_size = resize(anomaly_map, image_shape(example.image, example.path, images))
    return clear_ignored(example, at_size, images)
