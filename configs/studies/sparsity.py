"""What does sparsity add, and which kind? Penalties of several sizes and forms, and sparse coders.

Source: ours, after Zhao & Karray. All on HAM10000 with no lesion on both sides, on the reduced
schedule of zhao_karray.py, but 16 epochs of at most 2,000 images.

none, mean, sum    the CAE, its latent's L1 norm unpenalised, penalised as a mean over units (the
                   paper's 0.002 is then next to nothing), as a sum (configs/cae_sparse.py)
strong             as a sum, five times as strong
linear             as a sum, of units without the sigmoid, which keeps them all positive
spatial, lista     the sparse maps of configs/sparse_maps.py
lista_objective    LISTA scored by error and penalty together
pca                a linear code of as many numbers, which is the check that all have to beat

COMMAND  python launch.py --mode=study --config=configs/studies/sparsity.py
         --config.root=DIR --record=results/studies/sparsity.json
MINUTES  on 2 cores: 20 for three seeds (27 runs)

Published: CAE 0.68, CAE + sparse 0.72, on another split.
Ours: results/studies, shown in the README.
"""

from configs.studies import base
from configs.studies.zhao_karray import REDUCED
from sparse_ad.studies.grid import Block, Row

SCHEDULE = (*REDUCED, "fit.epochs=16")
MEAN = "method.penalty_reduction=mean"
DETECTORS = (
    ("none", "CAE", "cae:ham10000_lesion", ()),
    ("mean", "CAE + sparse, mean", "cae_sparse:ham10000_lesion", (MEAN,)),
    ("sum", "CAE + sparse", "cae_sparse:ham10000_lesion", ()),
    ("strong", "CAE + sparse, 5 x", "cae_sparse:ham10000_lesion", ("method.penalty=0.01",)),
    ("linear", "CAE + sparse, no sigmoid", "cae_sparse:ham10000_lesion", ("method.code=linear",)),
    ("spatial", "sparse maps", "sparse_maps:spatial", ()),
    ("lista", "LISTA", "sparse_maps:lista", ()),
    (
        "lista_objective",
        "LISTA, by its objective",
        "sparse_maps:lista",
        ("method.score=objective",),
    ),
)


def get_config():
    """Returns the study."""
    config = base.get_config()
    config.name = "sparsity"
    config.blocks = (Block("lesion", "HAM10000, no lesion on both sides", ("data.split=lesion",)),)
    detectors = (
        Row(key, title, f"configs/{name.replace(':', '.py:')}", SCHEDULE + changed)
        for key, title, name, changed in DETECTORS
    )
    more = ("method.components=300",)
    check = Row("pca", "pixel PCA, 300 components", "configs/pca.py", more, check=True)
    config.rows = (*detectors, check)
    config.common = ("data.name=ham10000", "data.root={root}", "data.limit=2000")
    config.seeds = (0, 1, 2)
    config.compare = tuple((key, "none") for key, *_ in DETECTORS[1:])
    return config
