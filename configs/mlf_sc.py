"""MLF-SC: sparse coding of the maps of a frozen network, at several depths.

Source: Imamura et al., MLF-SC, sections 3.2 and 4, and the code published with it.

as_described      the paper's text: outputs of the 4th, 7th and 10th convolution of VGG16
                  (conv2_2, conv3_3, conv4_3), 8x8 patches, stride 2, 5 atoms for each channel,
                  alpha 1; score = the 5 largest of all patch errors. The text does not say whether
                  maps are scaled: here they are not.
published_code    the code's way: the image is max-pooled by 4, 2, 1, so that all maps are 32x32; 2
                  positions cut from each side; each channel of each image to mean 0, std 1;
                  OMP with 3 non-zeros; score = sum over channels of the 5 largest patch errors.
                  What comes without a variant.
published_code_2020   the same with the indexing of the code until April 2020, with which the
                  paper's table was made.
as_described_calibrated, published_code_calibrated   ours: the same features and dictionaries;
                  errors are summed over channels, in units of those of held-out normal images at
                  their position (docs/calibration.md); score = sum over layers of the mean of the
                  largest 1 %.

Mapping: `coder.penalty` is the paper's alpha in the scaling of its Eq. (1); `coder.nonzeros` the
code's n_nonzero_coefs. Differs: dictionaries are learned online (Mairal et al. 2010) from batches
of 16 images, where the code fits scikit-learn's mini-batch learner on all patches at once.

COMMAND  python launch.py --config=configs/mlf_sc.py:published_code --config.data.root=DIR
MINUTES  on 2 cores: 4 to 6 for the 1,344 images of magnetic_tile

Published image AUROC, MVTec AD (Table 1): carpet 0.99, grid 0.97, leather 0.99, tile 0.92,
wood 0.99, mean 0.97; R1 / R2: 1.00 / 0.98, 1.00 / 0.88, 0.97 / 0.97, 0.94 / 0.76, 0.95 / 0.98.
Ours: results/mlf_sc, shown in the README.
"""

from dataclasses import replace

from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import require_choice
from sparse_ad.evaluation.error_units import ErrorUnits
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment
from sparse_ad.features import Network
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.mlf_sc import ChannelPatches, MlfSc
from sparse_ad.methods.mlf_sc_2020 import MlfSc2020
from sparse_ad.options import section
from sparse_ad.patches import Pool
from sparse_ad.sparse.channels import ChannelLasso, ChannelOmp

LAYERS = ("conv2_2", "conv3_3", "conv4_3")
AS_DESCRIBED = (
    Network("vgg16", layers=LAYERS),
    MlfSc(
        patches=ChannelPatches(size=8, stride=2),
        coder=ChannelLasso(penalty=1.0, max_steps=200),
        atoms=5,
        score_of="all_patches",
        pool=Pool(top=5),
    ),
)
PUBLISHED_CODE = (
    Network("vgg16", layers=LAYERS, shrink=(4, 2, 1), crop=2),
    replace(
        AS_DESCRIBED[1],
        coder=ChannelOmp(nonzeros=3),
        standardise="image",
        score_of="channels",
    ),
)
BY_POSITION = {"score_of": "positions", "pool": Pool("top_mean", fraction=0.01)}
CALIBRATED = {
    "as_described_calibrated": (AS_DESCRIBED[0], replace(AS_DESCRIBED[1], **BY_POSITION)),
    "published_code_calibrated": (PUBLISHED_CODE[0], replace(PUBLISHED_CODE[1], **BY_POSITION)),
}
VARIANTS = {  # name: features and method
    "as_described": AS_DESCRIBED,
    "published_code": PUBLISHED_CODE,
    "published_code_2020": (PUBLISHED_CODE[0], MlfSc2020(**vars(PUBLISHED_CODE[1]))),
} | CALIBRATED


def get_config(variant: str = "published_code"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/mlf_sc.py", variant, VARIANTS)
    features, method = VARIANTS[variant]
    units = ErrorUnits("position" if variant in CALIBRATED else "none")
    return section(
        Experiment(
            f"mlf_sc_{variant}",
            data=Folder(color="rgb"),
            features=features,
            method=method,
            fit=Fit(epochs=1.0),
            evaluation=Evaluation(calibration=units),
        )
    )
