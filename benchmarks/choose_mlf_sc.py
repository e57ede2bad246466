"""What limits MLF-SC, and how its variants were chosen: on normal images and planted defects only.

  python benchmarks/choose_mlf_sc.py --root=DIR [--limit=200] [--only NAME ...] [--output=FILE]

DIR is a data set in the layout of MVTec AD. Each candidate is fitted to at most `limit` training
images. Its `planted` figure is the image AUROC of held-out normal images against copies of them
with one weak defect each (sparse_ad/data/defects.py, blended in by 10 to 50 %): choices are made by
it. Its `test` figures, from the labelled test images, are written down beside it and decide
nothing. A candidate that is in the output file already is not run again.
"""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from sparse_ad import data, stages  # noqa: E402
from sparse_ad.data.decode import decode  # noqa: E402
from sparse_ad.data.sources.defects import DEFECTS  # noqa: E402
from sparse_ad.evaluation.scoring import score_images  # noqa: E402
from sparse_ad.fitting import loop  # noqa: E402
from sparse_ad.system import environment  # noqa: E402
from sparse_ad.system.command_line import set_up_log  # noqa: E402
from sparse_ad.system.files import read_json, write_json  # noqa: E402
from sparse_ad.types import Example  # noqa: E402

WEAK = (0.1, 0.5)  # how much of a planted defect is blended in

PUBLISHED = {  # variant, then what is changed of it
    "published_code": {},
    "lasso": {"method.solver": "lasso"},
    "lasso, penalty 4": {"method.solver": "lasso", "method.penalty": 4.0},
    "exact l0": {"method.solver": "exact_l0"},
    "1 non-zero": {"method.solver": "exact_l0", "method.nonzeros": 1},
    "3 atoms": {"method.solver": "exact_l0", "method.atoms": 3, "method.nonzeros": 2},
    "8 atoms": {"method.solver": "exact_l0", "method.atoms": 8},
    "patches 4x4": {"method.solver": "exact_l0", "method.patch_size": 4},
    "standardised by training set": {"method.standardise": "training"},
    "channels weighted": {"method.weight_channels": True},
    "both": {"method.standardise": "training", "method.weight_channels": True},
    "positions": {"method.score_of": "positions"},
    "positions, weighted": {
        "method.standardise": "training",
        "method.weight_channels": True,
        "method.score_of": "positions",
    },
    "dictionary_axis patch": {"method.dictionary_axis": "patch"},
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
    "exemplars relu5_1, 1 non-zero": exemplars("vgg16", ("relu5_1",), nonzeros=1),
    "exemplars relu5_1, not whitened": exemplars("vgg16", ("relu5_1",), whitening=0.0),
    "exemplars relu5_1, power 1": exemplars("vgg16", ("relu5_1",), power=1.0),
    "exemplars relu5_1, 1000 atoms": exemplars("vgg16", ("relu5_1",), atoms=1000),
    "exemplars relu5_1, top_sum": exemplars("vgg16", ("relu5_1",), pooling="top_sum"),
    "exemplars relu5_1, border kept": {
        **exemplars("vgg16", ("relu5_1",)),
        "features.crop": 0,
    },
}
RESNET = {
    **{
        f"exemplars {'+'.join(layers)}": exemplars("resnet18", layers, whitening=0.0)
        for layers in (("layer2",), ("layer3",), ("layer2", "layer3"))
    },
    "exemplars layer3, border kept": {
        **exemplars("resnet18", ("layer3",), whitening=0.0),
        "features.crop": 0,
    },
    "exemplars layer3, whitened": exemplars("resnet18", ("layer3",), whitening=0.1),
    "exemplars layer3, power 1": exemplars("resnet18", ("layer3",), whitening=0.0, power=1.0),
    "exemplars layer3, 1 non-zero": exemplars("resnet18", ("layer3",), whitening=0.0, nonzeros=1),
}
EFFICIENTNET = {
    f"exemplars {layer}, whitened" * bool(white) or f"exemplars {layer}": exemplars(
        "efficientnet_lite0", (layer,), whitening=white, power=1.0
    )
    for layer in ("stage2", "stage3", "stage4", "stage5")
    for white in (0.0, 0.1)
}
CANDIDATES = {
    **{name: ("published_code", fields) for name, fields in PUBLISHED.items()},
    "as_described": ("as_described", {}),
    **{name: ("improved", fields) for name, fields in IMPROVED.items()},
    **{name: ("improved_resnet18", fields) for name, fields in RESNET.items()},
    **{name: ("improved_efficientnet", fields) for name, fields in EFFICIENTNET.items()},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = ROOT / "results" / "benchmarks" / "choose_mlf_sc.json"
    parser.add_argument("--root", required=True, help="a data set in the layout of MVTec AD")
    parser.add_argument("--resnet18", default="", help="its weights, where the cache has none")
    parser.add_argument("--limit", type=int, default=200, help="training images [%(default)s]")
    parser.add_argument("--cache", type=float, default=20.0, help="GB of features [%(default)s]")
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), help="candidates' names")
    parser.add_argument("--output", type=Path, default=output, help="result file [%(default)s]")
    options = parser.parse_args()
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


def measure(variant: str, fields: dict, options) -> dict:
    """Fits a candidate; returns its figures."""
    config = importlib.import_module("configs.mlf_sc").get_config(variant)
    config.data.update(root=options.root, limit=options.limit)
    config.features.cache_gb = options.cache
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    if config.features.backbone == "resnet18":
        config.features.weights = options.resnet18
    splits = data.load(config.data, config.seed)
    method, score = stages.build(config)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        params, _ = loop.fit(method, config, splits.train, Path(folder))
        seconds = time.monotonic() - start

    def scores(examples) -> np.ndarray:
        return np.array([each.score for each in score_images(score, params, examples, config, "")])

    normal = scores(splits.calibration)
    planted = scores(
        [plant(example, place, config) for place, example in enumerate(splits.calibration)]
    )
    tested, label = scores(splits.test), np.array([each.label for each in splits.test])
    kinds = {each.kind for each in splits.test if each.label}
    return {
        "variant": variant,
        "fields": fields,
        "planted": auroc(normal, planted),
        "test": auroc(tested[label == 0], tested[label == 1]),
        "fit_seconds": seconds,
        "kinds": {
            kind: auroc(
                tested[label == 0],
                tested[[each.label == 1 and each.kind == kind for each in splits.test]],
            )
            for kind in sorted(kinds)
        },
    }


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    label = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(label, np.concatenate([normal, anomalous])))


def plant(example: Example, place: int, config) -> Example:
    """Returns a copy of a normal image with one weak defect; the kinds take turns."""
    image = decode(example.image, tuple(config.data.size), "rgb", example.path)
    rng = np.random.default_rng([config.seed, place])
    name = list(DEFECTS)[place % len(DEFECTS)]
    damaged, _ = DEFECTS[name](rng, image)
    if np.ptp(image, axis=-1).max() == 0:  # of a grey image: grey
        damaged = np.repeat(damaged.mean(-1, keepdims=True), 3, axis=-1)
    mixed = image + rng.uniform(*WEAK) * (damaged - image)
    return example._replace(image=mixed.clip(0, 1).astype(np.float32), label=1, kind=name)


if __name__ == "__main__":
    main()
