"""The results of an evaluation: what calibration.json, scores.csv and results.json hold."""

from typing import Any, NamedTuple

from sparse_ad.fitting.record import FitRecord
from sparse_ad.types import LeftOut


class Interval(NamedTuple):
    """A metric with its 95 % interval; all None where it is undefined, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


class Threshold(NamedTuple):
    """A threshold on the image score: images above it are flagged."""

    value: float
    guaranteed: bool  # False: there were too few calibration images for the false-alarm rate
    false_alarm_rate: float  # what it was set for, 0..1
    calibration_images: int
    images_needed: int  # calibration images, at least, for a guarantee


class Scale(NamedTuple):
    """The colour scale of heat maps, in units of the anomaly map."""

    low: float  # a typical normal pixel
    limit: float  # hardly ever reached on a normal image; the middle of the colours
    high: float


class CalibrationScore(NamedTuple):
    """The scores of one calibration image."""

    path: str
    score: float
    peak: float | None = None  # the largest value of its anomaly map; None: an older version


class Skipped(NamedTuple):
    """An image that could not be read."""

    path: str
    kind: str
    problem: str  # it names the file


class ErrorUnitsUsed(NamedTuple):
    """The units that errors were scored in; see `evaluation.error_units`."""

    by: str = "none"  # whose mean and std: none | whole | border | position
    asked: str = "none"  # the option
    images: int = 0  # normal images that the statistics are of
    weight: float = 0.0  # of their own statistics, 0..1, against the wider ones
    note: str = ""  # what they fall short of; "": nothing


class Calibration(NamedTuple):
    """What held-out normal images decide."""

    threshold: Threshold
    scale: Scale
    scores: tuple[CalibrationScore, ...]
    skipped: tuple[Skipped, ...]
    compile_seconds: float  # of the scoring function
    evaluation: dict[str, Any]  # the options it was made with
    error_units: ErrorUnitsUsed = ErrorUnitsUsed()
    normal_errors: str = ""  # SHA-256 of the file of that name; "": there is none


class ScoreRow(NamedTuple):
    """One image: a row of scores.csv."""

    path: str
    kind: str | None  # "good", or the kind of anomaly; None: a new image, as are the next two
    group: str | None  # lesion, driver, item
    label: int | None  # 0 normal, 1 anomalous
    score: float | None  # higher = more anomalous; None: the image could not be read
    threshold: float
    flagged: bool | None  # score > threshold


class Counts(NamedTuple):
    """Numbers of images."""

    train: int
    calibration: int
    test_normal: int
    test_anomalous: int
    test_skipped: int  # that could not be read


class Ranking(NamedTuple):
    """Metrics that depend on the order of the scores alone."""

    auroc: Interval
    ap: Interval  # average precision


class Rates(NamedTuple):
    """Metrics at a threshold."""

    r1: Interval  # fraction of normal images that are not flagged
    r2: Interval  # fraction of anomalous images that are flagged


class ImageMetrics(NamedTuple):
    """Image scores against labels: see `Ranking` and `Rates`."""

    auroc: Interval
    ap: Interval
    r1: Interval
    r2: Interval


class KindMetrics(NamedTuple):
    """One kind of anomaly against all normal images."""

    auroc: Interval
    ap: Interval
    count: int  # anomalous images
    r2: Interval


class PixelMetrics(NamedTuple):
    """Anomaly maps against masks."""

    auroc: Interval
    aupro_30: Interval  # area under the per-region overlap, up to a false-positive rate of 0.3
    aupro_05: Interval  # up to 0.05
    images: int = 0  # with anomalous regions
    regions: int = 0
    left_out: int = 0  # anomalous images without a mask

    json_names = {"aupro_30": "aupro_0.3", "aupro_05": "aupro_0.05"}  # noqa: RUF012


class Choice(NamedTuple):
    """A threshold chosen on the test labels, and what it gives."""

    value: float  # of the criterion that was maximised
    threshold: float
    r1: float
    r2: float


class Oracle(NamedTuple):
    """The best thresholds, chosen on the test labels: upper bounds; None where a class is missing.

    Not results: see `thresholds.find_oracle`.
    """

    f1: Choice | None  # maximises F1
    balanced: Choice | None  # maximises (R1 + R2) / 2


class Cost(NamedTuple):
    """Speed and memory of scoring; decoding is not counted."""

    images_per_second: float
    milliseconds_p50: float  # median over batches of time / batch size
    milliseconds_p95: float
    batch_size: int
    batches_timed: int
    compile_seconds: float
    peak_memory: int  # bytes, of this process since it started
    peak_device_memory: int | None  # bytes; None where the device does not say
    params: int  # bytes of the fitted arrays


class About(NamedTuple):
    """What was evaluated."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]  # seed, commit, versions, device
    fit: FitRecord
    features: str  # identity of the features: weights and preprocessing
    other: str = ""  # the folder of the test images, where they are not those of the config
    stretched: int = 0  # test images that the resize stretches by more than 1.25
    stretched_training: int = 0  # likewise, of at most 1000 training images drawn by seed


class Results(NamedTuple):
    """All of results.json."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    fit: FitRecord
    counts: Counts
    threshold: Threshold
    scale: Scale
    image: ImageMetrics
    kinds: dict[str, KindMetrics]
    oracle: Oracle
    pixel: PixelMetrics
    score_info: dict[str, float]  # the detector's diagnostics over the test images
    cost: Cost
    skipped: tuple[Skipped, ...]  # calibration and test images
    left_out: tuple[LeftOut, ...] = ()  # files of the data set that are not used
    features: str = ""
    other: str = ""  # the folder of the test images, where they are not those of the config
    # test images that are copies of training or calibration images; None: not known
    copies: int | None = 0
    stretched: int = 0  # test images that the resize stretches by more than 1.25
    stretched_training: int = 0  # likewise, of at most 1000 training images drawn by seed
    error_units: ErrorUnitsUsed = ErrorUnitsUsed()
