"""How the default detector was chosen: on held-out normal images and planted defects, on many sets.

  python -m benchmarks.choose_sparse_features --root=DIR [--weights=FILE] [--only NAME ...]

DIR holds data sets in the layout of MVTec AD, one folder each; ELPV and generated textures are
added. A candidate is fitted to at most `limit` training images of each set. Its `planted` metric is
the image AUROC of held-out normal images against copies of them with one defect each
(sparse_ad/data/planted.py), all in units of the other held-out images: choices are made by its mean
over the sets. The `test` metrics, from labelled test images, are recorded beside it: they say how
far planted defects can be trusted, and decide nothing but what docs/choices.md names. What is in
the output file already is not run again. Candidates that differ in how they score share a fit.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from benchmarks import peers
from sparse_ad import stages
from sparse_ad.data.decode import decode
from sparse_ad.data.planted import KINDS, plant
from sparse_ad.evaluation import calibration as calibrating
from sparse_ad.evaluation import protocol
from sparse_ad.evaluation.results import About
from sparse_ad.experiment import Experiment
from sparse_ad.fitting import loop
from sparse_ad.fitting.record import FitRecord
from sparse_ad.system import environment
from sparse_ad.system.command_line import load_experiment, set_up_log
from sparse_ad.system.files import read_json, write_json
from sparse_ad.types import Example, Params, Splits

Scores = Float[np.ndarray, " n"]

CONFIG = "configs/sparse_features.py:resnet18"
COPIES = 2  # planted defects for each held-out image, at least
PLANTED = 150  # planted defects of a set, at least
SETS = {  # name: what is changed of the config
    "mvtec_grid": {"data.root": "mvtec_grid"},
    "magnetic_tile": {"data.root": "magnetic_tile"},
    "elpv": {"data.name": "elpv"},
    "generated_carpet": {"data.name": "generated"},
}
SCORING = (  # fields that the fit does not depend on
    "method.coder.",
    "method.weights",
    "method.relative",
    "method.pool.",
    "evaluation.calibration.",
)
ONE_SCALE = {"features.shrink": (), "method.weights": (1.0,)}
CANDIDATES: dict[str, dict[str, Any]] = {  # name: what is changed of the config
    "the default": {},
    "one scale": {
        "features.layers": ("layer2", "layer3"),
        "method.atoms": (2000, 6000),
        **ONE_SCALE,
    },
    "scales weigh alike": {"method.weights": (1.0, 1.0, 1.0)},
    "layer2 alone": {"features.layers": ("layer2",), "method.atoms": (2000,), **ONE_SCALE},
    "layer3 alone": {"features.layers": ("layer3",), "method.atoms": (6000,), **ONE_SCALE},
    "layers stacked": {"features.fuse": True, "method.atoms": (3000,), "method.weights": (1.0,)},
    "errors not relative": {"method.relative": 0.0},
    "not standardised": {"features.standardise": False},
    "not smoothed": {"features.smooth": 1},
    "power 1": {"features.power": 1.0},
    "not whitened": {"method.whiten": False},
    "1000 atoms": {"method.atoms": (1000,)},
    "1 non-zero": {"method.coder.nonzeros": 1},
    "64 candidates": {"method.coder.candidates": 64},
    "half scale weighs a quarter": {"method.weights": (1.0, 1.0, 0.25)},
    "size 384": {"data.size": (384,)},
    "pool: maximum": {"method.pool.rule": "max"},
    "units: none": {"evaluation.calibration.by": "none"},
    "units: border": {"evaluation.calibration.by": "border"},
}


def main() -> None:
    options = arguments()
    set_up_log()
    rows = read_json(options.output)["rows"] if options.output.exists() else []
    done = {(row["candidate"], row["set"]) for row in rows}
    for of_set in options.sets:
        left = [name for name in options.only if (name, of_set) not in done]
        for names in by_fit(left):
            for row in measure(names, of_set, options):
                rows.append({"set": of_set, **row})
                print({key: value for key, value in row.items() if key != "fields"}, flush=True)
                about = {"limit": options.limit, "environment": environment.describe()}
                write_json(options.output, {**about, "rows": rows})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = peers.ROOT / "results" / "benchmarks" / "choose_sparse_features.json"
    parser.add_argument("--root", type=Path, required=True, help="a folder of data sets")
    parser.add_argument("--weights", default="", help="of ResNet-18, where the cache has none")
    parser.add_argument("--limit", type=int, default=150, help="training images [%(default)s]")
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), help="candidates' names")
    parser.add_argument("--sets", nargs="*", default=list(SETS), help="names of data sets")
    parser.add_argument("--output", type=Path, default=output, help="result file [%(default)s]")
    return parser.parse_args()


def by_fit(names: Sequence[str]) -> list[list[str]]:
    """Returns the candidates in groups: those of a group differ in how they score alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        fields = {k: v for k, v in CANDIDATES[name].items() if not k.startswith(SCORING)}
        groups.setdefault(str(sorted(fields.items())), []).append(name)
    return list(groups.values())


def load_candidate(name: str, of_set: str, options: argparse.Namespace) -> Experiment:
    """Returns the experiment of a candidate on a set."""
    changes: dict[str, Any] = {"features.weights": options.weights, "data.limit": options.limit}
    changes |= SETS[of_set] | CANDIDATES[name]
    if "data.root" in changes:
        changes["data.root"] = options.root / changes["data.root"]
    kind = changes.pop("data.name", None)
    texts = [f"data.name={kind}"] if kind else []
    return load_experiment(CONFIG, texts + [f"{key}={value}" for key, value in changes.items()])


def measure(
    names: Sequence[str], of_set: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Fits the first of the candidates; yields the metrics of each, by that fit."""
    experiment, splits = stages.load_data(load_candidate(names[0], of_set, options))
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        setup = experiment.setup(stages.build(experiment).method)
        params, record = loop.fit(setup, splits.train, Path(folder))
        seconds = time.monotonic() - start
    for name in names:
        candidate = load_candidate(name, of_set, options).at(experiment.data.pair)
        metrics = judge(candidate, params, record, splits)
        yield {"candidate": name, "fields": CANDIDATES[name], "fit_seconds": seconds, **metrics}


def judge(
    experiment: Experiment, params: Params, record: FitRecord, splits: Splits
) -> dict[str, Any]:
    """Returns the metrics of a fitted candidate on planted defects and on the test images."""
    detector = stages.build(experiment)
    evaluation = replace(stages.options_for(experiment, splits), bootstrap=1)
    calibration, normal = calibrating.calibrate(
        *detector, params, splits.calibration, experiment.data, evaluation
    )
    kinds = score_planted(detector, params, splits, experiment)
    normals = np.array([image.score for image in calibration.scores])
    fitted = stages.in_units(detector, params, normal)
    about = About(experiment.name, {}, {}, record, detector.method.features.identity)
    results, _ = protocol.evaluate(
        fitted[0].score, fitted[1], splits, calibration, experiment.data, evaluation, 0, about
    )
    return {
        "planted": auroc(normals, np.concatenate(list(kinds.values()))),
        "kinds": {kind: auroc(normals, scores) for kind, scores in kinds.items()},
        "test": results.image.auroc.value,
        "aupro": results.pixel.aupro_30.value,
        "r1": results.image.r1.value,
        "r2": results.image.r2.value,
        "milliseconds": results.cost.milliseconds_p50,
        "params": results.cost.params,
    }


def score_planted(
    detector: stages.Detector, params: Params, splits: Splits, experiment: Experiment
) -> dict[str, Scores]:
    """Returns the scores of planted defects by kind, in units of the other held-out images."""
    method, units = detector.method, experiment.evaluation.calibration
    images, size = experiment.data, experiment.evaluation.batch_size
    grid = method.grid
    if grid is None:
        raise SystemExit("a detector without a grid of errors has no such units")
    errors_of = partial(calibrating.measure_errors, method, grid, params)
    own = list(errors_of(splits.calibration, images, size))
    sums = calibrating.add_up(own)
    others = [calibrating.normal_errors_of_others(units, sums, each) for each in own]
    copies = list(plant_all(splits.calibration, experiment))
    scored = errors_of([copy for _, copy in copies], images, size)
    plain = jax.jit(grid.pool)
    in_units = jax.jit(partial(calibrating.score_in_units, grid))
    kinds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for (source, copy), image in zip(copies, scored, strict=True):
        if units.by == "none":
            score = plain(image.errors)
        else:
            score = in_units(others[source], image.errors).image
        kinds[copy.kind].append(float(score))
    return {kind: np.array(scores) for kind, scores in kinds.items() if scores}


def plant_all(examples: Sequence[Example], experiment: Experiment) -> Iterator[tuple[int, Example]]:
    """Yields (index of the image, copy of it with a defect); the kinds take turns."""
    names, copies = list(KINDS), max(COPIES, -(-PLANTED // len(examples)))
    images = experiment.data
    for index, example in enumerate(examples):
        image = decode(example.image, images.pair, "rgb", example.path, images)
        grey = np.ptp(image, axis=-1).max() == 0
        for copy in range(copies):
            kind = names[(copies * index + copy) % len(names)]
            planted, _ = plant(image[..., :1] if grey else image, kind, (index, copy))
            planted = np.repeat(planted, 3, axis=-1) if grey else planted
            path = f"{example.path}, {kind} {copy}"
            yield index, example._replace(image=planted, label=1, kind=kind, path=path)


def auroc(normal: Scores, anomalous: Scores) -> float:
    """Returns the AUROC of scores of normal and anomalous images."""
    label = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(label, np.concatenate([normal, anomalous])))


if __name__ == "__main__":
    main()
