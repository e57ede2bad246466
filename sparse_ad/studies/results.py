"""The results of a study: what study.json holds."""

from typing import Any, NamedTuple

from sparse_ad.evaluation.comparison import Comparison
from sparse_ad.evaluation.results import Counts, Interval, PixelMetrics
from sparse_ad.fitting.record import FitRecord


class RowInfo(NamedTuple):
    """A detector of the study."""

    title: str
    config: str  # as after --config=
    check: bool  # a simple check, which detectors have to beat


class Published(NamedTuple):
    """The published metrics that stand beside ours; empty where there are none."""

    auroc: dict[str, dict[str, float]] = {}  # row -> kind or block -> AUROC  # noqa: RUF012
    r1_r2: dict[str, dict[str, tuple[float, float]]] = {}  # row -> block  # noqa: RUF012
    source: str = ""  # the paper and its table


class CellResult(NamedTuple):
    """The metrics of one run of the grid."""

    block: str  # key
    row: str  # key
    seed: int
    path: str  # BLOCK/ROW/seedN: its folder below the study's
    config: str
    overrides: dict[str, str]  # fields that differ from the config file, as text
    auroc: dict[str, Interval]  # by kind of anomaly, and "all"
    ap: Interval
    r1: Interval
    r2: Interval
    pixel: PixelMetrics
    counts: Counts
    fit: FitRecord
    images_per_second: float  # scored
    environment: dict[str, Any]  # commit, device, time
    score_info: dict[str, float] = {}  # noqa: RUF012

    json_names = {"path": "place"}  # noqa: RUF012


class Summary(NamedTuple):
    """One metric of a row in a block, over seeds."""

    value: float  # mean
    std: float | None  # None with one seed
    seeds: int
    low: float | None = None  # with one seed: its interval over test images
    high: float | None = None

    json_names = {"std": "deviation"}  # noqa: RUF012


class Difference(NamedTuple):
    """What one row gains over another in a block."""

    block: str
    row: str
    less: str  # the other row
    purpose: str  # "compare": the study asks for it | "check": against the strongest check
    auroc: dict[str, Comparison]  # by kind of anomaly, and "all"

    json_names = {"purpose": "for"}  # noqa: RUF012


Summaries = dict[str, dict[str, dict[str, Summary]]]
"""block -> row -> column -> metric; columns: kinds of anomaly, "all", "r1", "r2"."""


class StudyRecord(NamedTuple):
    """All of study.json."""

    name: str
    study: dict[str, Any]  # its config
    environment: dict[str, Any]
    rows: dict[str, RowInfo]
    blocks: dict[str, str]  # key -> title
    published: Published
    cells: tuple[CellResult, ...]
    failed: dict[str, str]  # path of a cell -> why
    summary: Summaries
    differences: tuple[Difference, ...]
