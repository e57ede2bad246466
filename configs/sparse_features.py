"""The default: layers of a frozen network, coded by a few exemplars, in units of normal images.

Source: ours; it began as MLF-SC (Imamura et al., section 3.2): sparse codes of the maps of a
network, at several depths. All channels of a position are coded together, by normal positions as
they are (sparse/exemplars.py); errors are in units of those of held-out normal images at the same
position (evaluation/error_units.py), and added up over layers. Images keep their aspect.

vgg16               weights from the package index; what comes without a variant
resnet18            needs its weights: --config.features.weights=FILE
efficientnet_lite0  weights from the package index; the first run needs torch to read them

How layers, sizes and numbers were chosen, for resnet18, and which test figures were known then:
docs/choices.md. The other variants take its settings over.

COMMAND  python launch.py --config=configs/sparse_features.py --config.data.root=DIR
MINUTES  on 2 cores, for 300 images: 1 (resnet18), 4 (vgg16)

Published: nothing. Ours: results/sparse_features, and results/quickstart (vgg16 at 128x128), shown
in the README.
"""

from dataclasses import replace

from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import require_choice
from sparse_ad.evaluation.error_units import ErrorUnits
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment
from sparse_ad.features import Network
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.normalisation import Normalise
from sparse_ad.options import section
from sparse_ad.patches import Patches, Pool
from sparse_ad.sparse.exemplars import ExemplarCoder

SIZE = (256,)  # images keep their aspect, at about 256 x 256 pixels
NETWORK = Network(  # the deeper layer twice: of the image, and of the image at half its size
    "vgg16",
    layers=("relu4_3", "relu5_1", "relu5_1"),
    shrink=(1, 1, 2),
    shrink_by="mean",
    power=0.5,
    smooth=3,
    standardise=True,
)
METHOD = ExemplarCoding(
    patches=Patches(size=1, stride=1, per_image=0),
    normalise=Normalise(remove_mean=False, scale="none"),
    coder=ExemplarCoder(nonzeros=4, candidates=16),
    weights=(1.0, 1.0, 0.5),
    whiten=True,
    shrinkage=0.1,
    relative=1.0,
    pool=Pool("top_mean", fraction=0.01),
)
EVALUATION = Evaluation(calibration=ErrorUnits(by="position"))
VARIANTS = {  # name: network, and exemplars of each layer: 12 MB in all at most
    "vgg16": (NETWORK, (1500, 1900, 800)),
    "resnet18": (
        replace(NETWORK, backbone="resnet18", layers=("layer2", "layer3", "layer3")),
        (2000, 6000, 3000),
    ),
    "efficientnet_lite0": (
        replace(
            NETWORK,
            backbone="efficientnet_lite0",
            layers=("stage3", "stage4", "stage4"),
            power=1.0,  # its outputs are not behind a ReLU
        ),
        (2000, 6000, 3000),
    ),
}


def get_config(variant: str = "vgg16"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/sparse_features.py", variant, VARIANTS)
    network, atoms = VARIANTS[variant]
    return section(
        Experiment(
            f"sparse_features_{variant}",
            data=Folder(size=SIZE, color="rgb"),
            features=network,
            method=replace(METHOD, atoms=atoms),
            fit=Fit(batch_size=64, epochs=1.0),  # the first batch sets the whitening
            evaluation=EVALUATION,
        )
    )
