"""What limits MLF-SC, and how its variants were chosen: on normal images and planted defects only.

  python -m benchmarks.choose_mlf_sc --root=DIR [--limit=200] [--only NAME ...] [--output=FILE]

DIR is a data set in the layout of MVTec AD. Each candidate is fitted to at most `limit` training
images. Its `planted` metric is the image AUROC of held-out normal images against copies of them
with one weak defect each (sparse_ad/data/defects.py, blended in by 10 to 50 %): choices are made by
it. Its `test` metrics, from the labelled test images, are recorded beside it and decide
nothing. A candidate that is in the output file already is not run again.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import peers
from sparse_ad import stages
from sparse_ad.data.decode import decode
from sparse_ad.data.sources.defects import DEFECTS
from sparse_ad.evaluation.scoring import score_images
from sparse_ad.experiment import Experiment
from sparse_ad.fitting import loop
from sparse_ad.system import environment
from sparse_ad.system.command_line import load_experiment, set_up_log
from sparse_ad.system.files import read_json, write_json
from sparse_ad.types import Example, Params

WEAK = (0.1, 0.5)  # how much of a planted defect is blended in

PUBLISHED = {  # variant, then what is changed of it
    "published_code": {},
    "lasso": {"method.coder.name": "lasso"},
    "lasso, penalty 4": {"method.coder.name": "lasso", "method.coder.penalty": 4.0},
    "exact l0": {"method.coder.name": "exact_l0"},
    "1 non-zero": {"method.coder.name": "exact_l0", "method.coder.nonzeros": 1},
    "3 atoms": {"method.coder.name": "exact_l0", "method.atoms": 3, "method.coder.nonzeros": 2},
    "8 atoms": {"method.coder.name": "exact_l0", "method.atoms": 8},
    "patches 4x4": {"method.coder.name": "exact_l0", "method.patches.size": 4},
    "standardised by training set": {"method.standardise": "training"},
    "channels weighted": {"method.weight_channels": True},
    "both": {"method.standardise": "training", "method.weight_channels": True},
    "positions": {"method.score_of": "positions"},
    "positions, weighted": {
        "method.standardise": "training",
        "method.weight_channels": True,
        "method.score_of": "positions",
    },
    "no shrinking": {"features.shrink": ()},
    "conv2_2 alone": {"features.layers": ("conv2_2",), "features.shrink": (4,)},
    "conv3_3 alone": {"features.layers": ("conv3_3",), "features.shrink": (2,)},
    "conv4_3 alone": {"features.layers": ("conv4_3",), "features.shrink": (1,)},
}


def exemplars(backbone: str, layers: tuple[str, ...], **method) -> dict:
    power = method.pop("power", 0.5)
    fields = {"backbone": backbone, "layers": layers, "power": power}
    return {f"features.{name}": value for name, value in fields.items()} | {
        f"method.{name}": value for name, value in method.items()
    }


IMPROVED = {
    **{
        f"exemplars {layer}": exemplars("vgg16", (layer,))
        for layer in ("relu3_3", "relu4_3", "relu5_1", "relu5_3")
    },
    "exemplars relu4_3+relu5_1": exemplars("vgg16", ("relu4_3", "relu5_1")),
    "exemplars relu5_1, 1 non-zero": exemplars("vgg16", ("relu5_1",), **{"coder.nonzeros": 1}),
    "exemplars relu5_1, not whitened": exemplars("vgg16", ("relu5_1",), whiten=False),
    "exemplars relu5_1, power 1": exemplars("vgg16", ("relu5_1",), power=1.0),
    "exemplars relu5_1, 1000 atoms": exemplars("vgg16", ("relu5_1",), atoms=1000),
    "exemplars relu5_1, top_sum": exemplars("vgg16", ("relu5_1",), **{"pool.rule": "top_sum"}),
    "exemplars relu5_1, border kept": {
        **exemplars("vgg16", ("relu5_1",)),
        "features.crop": 0,
    },
}
RESNET = {
    **{
        f"exemplars {'+'.join(layers)}": exemplars("resnet18", layers, whiten=False)
        for layers in (("layer2",), ("layer3",), ("layer2", "layer3"))
    },
    "exemplars layer3, border kept": {
        **exemplars("resnet18", ("layer3",), whiten=False),
        "features.crop": 0,
    },
    "exemplars layer3, whitened": exemplars("resnet18", ("layer3",), whiten=True),
    "exemplars layer3, power 1": exemplars("resnet18", ("layer3",), whiten=False, power=1.0),
    "exemplars layer3, 1 non-zero": exemplars(
        "resnet18", ("layer3",), whiten=False, **{"coder.nonzeros": 1}
    ),
}
EFFICIENTNET = {
    f"exemplars {layer}, whitened" * bool(white) or f"exemplars {layer}": exemplars(
        "efficientnet_lite0", (layer,), whiten=white, power=1.0
    )
    for layer in ("stage2", "stage3", "stage4", "stage5")
    for white in (False, True)
}
CANDIDATES = {
    **{name: ("published_code", fields) for name, fields in PUBLISHED.items()},
    "indexing of 2020": ("published_code_2020", {}),
    "as_described": ("as_described", {}),
    **{name: ("improved", fields) for name, fields in IMPROVED.items()},
    **{name: ("improved_resnet18", fields) for name, fields in RESNET.items()},
    **{name: ("improved_efficientnet", fields) for name, fields in EFFICIENTNET.items()},
}


def main() -> None:
    options = arguments()
    set_up_log()
    rows = read_json(options.output)["rows"] if options.output.exists() else []
    for name in options.only:
        if name in {row["candidate"] for row in rows}:
            continue
        row = {"candidate": name, **measure(*CANDIDATES[name], options)}
        rows.append(row)
        print(name, {key: value for key, value in row.items() if key != "fields"}, flush=True)
        record = {"limit": options.limit, "rows": rows, "environment": environment.describe()}
        write_json(options.output, record)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = peers.ROOT / "results" / "benchmarks" / "choose_mlf_sc.json"
    parser.add_argument("--root", required=True, help="a data set in the layout of MVTec AD")
    parser.add_argument("--resnet18", default="", help="its weights, where the cache has none")
    parser.add_argument("--limit", type=int, default=200, help="training images [%(default)s]")
    parser.add_argument("--cache", type=float, default=20.0, help="GB of features [%(default)s]")
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), help="candidates' names")
    parser.add_argument("--output", type=Path, default=output, help="result file [%(default)s]")
    return parser.parse_args()


def measure(variant: str, fields: dict, options: argparse.Namespace) -> dict:
    """Fits a candidate; returns its metrics."""
    experiment, splits = stages.load_data(load_candidate(variant, fields, options))
    detector = stages.build(experiment)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        setup = experiment.setup(detector.method)
        params, _ = loop.fit(setup, splits.train, Path(folder))
        seconds = time.monotonic() - start
    copies = [plant(image, index, experiment) for index, image in enumerate(splits.calibration)]
    normal, planted, tested = (
        scores(detector, params, images, experiment)
        for images in (splits.calibration, copies, splits.test)
    )
    kind = np.array([example.kind if example.label else "" for example in splits.test])
    return {
        "variant": variant,
        "fields": fields,
        "planted": auroc(normal, planted),
        "test": auroc(tested[kind == ""], tested[kind != ""]),
        "fit_seconds": seconds,
        "kinds": {
            name: auroc(tested[kind == ""], tested[kind == name])
            for name in sorted(set(kind) - {""})
        },
    }


def load_candidate(variant: str, fields: dict, options: argparse.Namespace) -> Experiment:
    """Returns the experiment of a candidate."""
    changes = {"data.root": options.root, "data.limit": options.limit}
    changes |= {"features.cache_gb": options.cache} | fields
    if fields.get("features.backbone") == "resnet18" or variant.endswith("resnet18"):
        changes["features.weights"] = options.resnet18
    texts = [f"{name}={value}" for name, value in changes.items()]
    return load_experiment(f"configs/mlf_sc.py:{variant}", texts)


def scores(
    detector: stages.Detector, params: Params, examples: Sequence[Example], experiment: Experiment
) -> np.ndarray:
    """Returns the image scores of examples."""
    size = experiment.evaluation.batch_size
    images = score_images(detector.score, params, examples, experiment.data, size, "")
    return np.array([image.score for image in images])


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    label = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(label, np.concatenate([normal, anomalous])))


def plant(example: Example, index: int, experiment: Experiment) -> Example:
    """Returns a copy of a normal image with one weak defect; the kinds take turns."""
    image = decode(example.image, experiment.data.pair, "rgb", example.path)
    rng = np.random.default_rng([experiment.seed, index])
    name = list(DEFECTS)[index % len(DEFECTS)]
    damaged, _ = DEFECTS[name](rng, image)
    if np.ptp(image, axis=-1).max() == 0:  # of a grey image: grey
        damaged = np.repeat(damaged.mean(-1, keepdims=True), 3, axis=-1)
    mixed = image + rng.uniform(*WEAK) * (damaged - image)
    return example._replace(image=mixed.clip(0, 1).astype(np.float32), label=1, kind=name)


if __name__ == "__main__":
    main()
