"""The protocol applied to the toy detector, and results to be written."""

from helpers.toy import SIZE

from sparse_ad.data.images import Images
from sparse_ad.evaluation import protocol
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.evaluation.results import About, Calibration, Results, ScoreRow
from sparse_ad.fitting.record import FitRecord

IMAGES = Images(size=(SIZE, SIZE))
OPTIONS = Evaluation(bootstrap=50)
ABOUT = About(
    name="toy",
    config={"data": {"name": "folder"}, "method": {"penalty": 1.0}},
    environment={"seed": 0, "commit": None, "time": "2026-01-02T03:04:05+00:00"},
    fit=FitRecord(steps=3, images=8, seconds=1.5),
    features="pixels",
)


def run(
    score, params, splits, options: Evaluation = OPTIONS, about: About = ABOUT
) -> tuple[Calibration, Results, list[ScoreRow]]:
    """Calibrates and evaluates."""
    calibration = protocol.calibrate(score, params, splits.calibration, IMAGES, options)
    results, rows = protocol.evaluate(
        score, params, splits, calibration, IMAGES, options, seed=0, about=about
    )
    return calibration, results, rows
