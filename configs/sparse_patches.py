"""Sparse coding on raw patches: the "Sparse Coding" column of the MLF-SC paper's Table 1.

Source: Imamura et al., MLF-SC, section 4: 16x16 patches, stride 4, 200 atoms, alpha 1; score =
sum of the 5 largest patch errors (section 3.2).

Mapping: `coder.penalty` is the paper's alpha, in the scaling 1/2 ||x - zD||^2 + alpha ||z||_1 of
its Eq. (1). The paper does not say how pixels are scaled, which alpha depends on. Here images are
grey, the mean of each patch is removed, and patches are divided by their common std. The paper
learns with alpha against ||x - zD||^2, without the half, in Eq. (2); here both are Eq. (1).

published    the above: errors as they are.
calibrated   ours: errors in units of those of held-out normal images at their position
             (docs/calibration.md).

COMMAND  python launch.py --config=configs/sparse_patches.py --config.data.root=mvtec_ad/carpet
MINUTES  on 2 cores: 1 for 160 generated images, 4 for the 1,344 of magnetic_tile

Published image AUROC, MVTec AD (Table 1): carpet 0.58, grid 0.89, leather 0.95, tile 0.86,
wood 0.97, mean 0.85; R1 / R2: 0.43 / 0.79, 0.76 / 0.72, 0.84 / 0.96, 0.94 / 0.60, 0.84 / 1.00.
Ours: not measured on MVTec AD, whose images are not redistributed. Measured on other sets:
results/sparse_patches, shown in the README.
"""

from sparse_ad.errors import require_choice
from sparse_ad.evaluation.error_units import ErrorUnits
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment
from sparse_ad.options import section

VARIANTS = {
    "published": Experiment("sparse_patches"),
    "calibrated": Experiment(
        "sparse_patches_calibrated", evaluation=Evaluation(calibration=ErrorUnits("position"))
    ),
}


def get_config(variant: str = "published"):
    """Returns the config of a variant: the defaults, which are the paper's, or ours."""
    require_choice("the variant of configs/sparse_patches.py", variant, VARIANTS)
    return section(VARIANTS[variant])
