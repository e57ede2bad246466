"""Table 1 of the MLF-SC paper: its two methods, MLF-SC calibrated, and ours, on five textures.

Source: Imamura et al., MLF-SC, Table 1. {root} is the folder that holds the categories, each laid
out as MVTec AD is. For some of them: --config.only_blocks=leather (repeat it for more).

COMMAND  python launch.py --mode=study --config=configs/studies/mvtec_textures.py
         --config.root=mvtec_ad --record=results/studies/mvtec_textures.json
MINUTES  not measured: MVTec AD is not redistributed with this project

Published image AUROC, mean: sparse coding 0.85, MLF-SC 0.97. Ours: not measured.
"""

from configs.studies import base
from sparse_ad.studies.grid import Block, Row

CATEGORIES = ("carpet", "grid", "leather", "tile", "wood")


def get_config():
    """Returns the study."""
    config = base.get_config()
    config.name = "mvtec_textures"
    config.columns = "blocks"
    config.blocks = tuple(Block(name, name, ("data.root={root}/" + name,)) for name in CATEGORIES)
    config.rows = (
        Row("sparse_coding", "sparse coding", "configs/sparse_patches.py"),
        Row("mlf_sc", "MLF-SC, as published", "configs/mlf_sc.py:published_code"),
        Row(
            "mlf_sc_calibrated", "MLF-SC, calibrated", "configs/mlf_sc.py:published_code_calibrated"
        ),
        Row("sparse_features", "sparse features", "configs/sparse_features.py"),
    )
    config.common = ("data.name=folder",)
    config.compare = (
        ("mlf_sc", "sparse_coding"),
        ("mlf_sc_calibrated", "mlf_sc"),
        ("sparse_features", "mlf_sc"),
    )
    config.published.update(auroc="imamura_mlf_sc.image_auroc", r1_r2="imamura_mlf_sc.r1_r2")
    return config
