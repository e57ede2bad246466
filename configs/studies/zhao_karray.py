"""Tables 3 and 4 of Zhao & Karray: does a sparse latent find more than the same network without?

Source: Zhao & Karray, Tables 3 and 4. Rows: a baseline trained by binary cross-entropy, a VAE, the
convolutional auto-encoder (CAE) without and with the L1 penalty on its latent, and three simple
checks that the paper lacks: a detector that does not beat them has learned nothing of note.

ham10000_full     the paper's schedule, 70 epochs at 128x128, three seeds: wants an accelerator
ham10000_reduced  REDUCED below, three seeds, for two CPU cores; one seed takes a third of the time:
                  --config.seeds="(0,)"
ham10000_long     the paper's 70 epochs and rate, at 64x64, one seed, for the CAE with and without
                  the penalty: is it the short schedule that speaks against the penalty?
driver_full, driver_reduced   as for HAM10000, of State Farm's drivers, whose files are 80x60; they
                  stand in for the paper's own set: that one is private, and figures cannot be
                  compared to it

HAM10000 comes in two blocks: the images split as in the paper, where pictures of one lesion may
lie on both sides, and split by lesion. The published figures are of the former.

COMMAND  python launch.py --mode=study --config=configs/studies/zhao_karray.py:ham10000_reduced
         --config.root=DIR --record=results/studies/zhao_karray_ham10000_reduced.json
MINUTES  on 2 cores: 34 for ham10000_reduced (42 runs), 11 for driver_reduced (21 runs), 18 for
         ham10000_long (5 runs), with little other work beside

Published AUROC, ALL: baseline 0.59, VAE 0.63, CAE 0.68, CAE + sparse 0.72 (HAM10000);
0.62, 0.67, 0.70, 0.72 (driving). Ours: results/studies, shown in the README.
"""

from configs.studies import base
from sparse_ad.errors import require_choice
from sparse_ad.studies.grid import Block, Row

DETECTORS = (
    ("baseline", "Baseline", "ae_bce"),
    ("vae", "VAE", "vae"),
    ("cae", "CAE", "cae"),
    ("cae_sparse", "CAE + sparse", "cae_sparse"),
)
CHECKS = (
    ("mean_colour", "mean colour", "mean_colour"),
    ("pca", "pixel PCA", "pca"),
    ("entropy", "entropy", "entropy"),
)
FULL = ()  # the schedule of the configs
# A rate of 1e-4 leaves so short a training unfinished: errors then still fall, all units are on.
REDUCED = ("fit.epochs=10", "method.optimizer.learning_rate=1e-3", "data.size=(64, 64)")
LONG = ("data.size=(64, 64)",)
LONGER = {"ham10000": (), "driver": ("fit.epochs=25",)}  # a fifth of the images: more epochs
BLOCKS = {
    "ham10000": (
        Block("paper", "HAM10000, split as published", ("data.split=paper",)),
        Block("lesion", "HAM10000, no lesion on both sides", ("data.split=lesion",)),
    ),
    "driver": (Block("drivers", "State Farm drivers, no driver on both sides"),),
}
PUBLISHED_OF = {
    "ham10000": "images split as published alone",
    "driver": "the authors' own drivers, a private set: not to be compared with ours",
}


def get_config(variant: str = "ham10000_reduced"):
    """Returns the study of a variant."""
    require_choice("the variant of configs/studies/zhao_karray.py", variant, VARIANTS)
    data, schedule = VARIANTS[variant]
    schedule += LONGER[data] if schedule == REDUCED else ()
    config = base.get_config()
    config.name = f"zhao_karray_{variant}"
    config.blocks = BLOCKS[data]
    config.rows = rows(data, schedule)
    config.common = (f"data.name={data}", "data.root={root}")
    config.seeds = (0, 1, 2)
    if schedule == LONG:
        config.seeds, config.only_blocks = (0,), ("paper",)
        config.only_rows = ("cae", "cae_sparse", *(key for key, *_ in CHECKS))
    config.compare = (("cae_sparse", "cae"),)
    config.published.auroc = f"zhao_karray.image_auroc_{data}"
    config.published_of = PUBLISHED_OF[data]
    return config


def rows(data: str, schedule: tuple[str, ...]) -> tuple[Row, ...]:
    """Returns the detectors, on that schedule, and the checks, which have none."""
    detectors = (
        Row(key, title, f"configs/{file}.py:{data}", schedule) for key, title, file in DETECTORS
    )
    checks = (Row(key, title, f"configs/{file}.py", check=True) for key, title, file in CHECKS)
    return (*detectors, *checks)


VARIANTS = {
    f"{data}_{name}": (data, schedule)
    for data in BLOCKS
    for name, schedule in (("full", FULL), ("reduced", REDUCED))
} | {"ham10000_long": ("ham10000", LONG)}
