"""The default detector, image -> score, against its network alone.

  python -m benchmarks.sparse_features [--repeats=5] [--seed=0] [--output=FILE] [--weights=FILE]

Generated carpets of 256x256, one at a time, after a fit to 64 of them. Contenders take turns in one
process; seconds are medians, compilation apart. `network` is one forward pass to the deepest layer,
at full size; `features` adds the pass at half size, the mean filters and the scaling; `score` adds
coding and pooling; the division by units, two operations a position, is left out. The aim of 1.3
times the network is missed: docs/choices.md says what takes the rest.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks import peers
from configs.sparse_features import METHOD, SIZE, VARIANTS
from sparse_ad.data.sources.generated import generate
from sparse_ad.fitting.arrays import fit
from sparse_ad.methods.compiled import compile_score

SHAPE = (SIZE[0], SIZE[0], 3)
IMAGES = 64


def main() -> None:
    parser = peers.arguments(__doc__, "sparse_features")
    parser.add_argument("--weights", default="", help="of ResNet-18, where the cache has none")
    options = parser.parse_args()
    rows = [
        row
        for variant, weights in (("resnet18", options.weights), ("vgg16", ""))
        for row in measure(variant, weights, options.repeats, options.seed)
    ]
    peers.record(options.output, rows, seed=options.seed)


def measure(variant: str, weights: str, repeats: int, seed: int) -> list[dict]:
    """Returns a row for each part of a variant."""
    network, atoms = VARIANTS[variant]
    network = replace(network, weights=weights)
    bare = {"shrink": (), "smooth": 1, "standardise": False, "power": 1.0}
    alone = replace(network, layers=network.layers[1:2], **bare).build(SHAPE[:2])
    method = replace(METHOD, atoms=atoms).build(network.build(SHAPE[:2]), SHAPE)
    made = [generate("carpet", "train", "good", at, SHAPE[:2], seed)[0] for at in range(IMAGES)]
    images = np.stack(made).astype(np.float32) / 255
    params = fit(method, images, epochs=1.0, batch_size=IMAGES)
    score, image = compile_score(method), images[:1]
    calls = {
        "network": partial(alone.extract, image),
        "features": partial(method.features.extract, image),
        "score": partial(score, params, image),
    }
    seconds, _ = peers.take_turns(calls, repeats + 1)
    medians = {part: float(np.median(spent[1:])) for part, spent in seconds.items()}  # 0 compiles
    return [
        {
            "variant": variant,
            "part": part,
            "milliseconds": 1000 * median,
            "by network": median / medians["network"],
        }
        for part, median in medians.items()
    ]


if __name__ == "__main__":
    main()
