"""AE (L2): an auto-encoder of textures, the residual of each pixel its squared error.

Source: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural
Similarity to Autoencoders", VISAPP 2019, table 1 and section 4: nine convolutions of 32, 32, 32,
64, 64, 128, 64, 32 and d channels, kernels 4, 4, 3, 4, 3, 4, 3, 3, 8, strides 2, 2, 1, 2, 1, 2, 1,
1, 1, mirrored by the decoder, leaky ReLU of slope 0.2 except at both outputs, no batch norm, d =
100 for textures; 128x128 crops, Adam at 2e-4 with weight decay 1e-5, 200 epochs. The same network
is "AE (L2)" in "MVTec AD", CVPR 2019, and in the tables of the MLF-SC paper.

The ninth convolution covers the whole grid of 8x8: here it is the dense layer to the latent.
Differs: crops are not drawn at random but cut at fixed positions (see methods/lifts/tiles.py), 9
of each 256x256 image, and an epoch sees each once; 16 images, 144 crops, make a batch where the
paper has 128 crops. Images are in 0..1. The image score is the largest pixel residual, since a
defect is small; the paper segments only. For whole images, --config.data.size="(128,128)" and
--config.tiles.size="()".

magnetic_tile     a folder, its root to be given
elpv              solar cells
generated         carpet

COMMAND  python launch.py --config=configs/ae_l2.py:generated
MINUTES  on 2 cores: not measured for 200 epochs; shorter: --config.fit.epochs=20

Published image R1 / R2, MVTec AD (Table 1 of Imamura et al.): carpet 0.57 / 0.42, grid
0.57 / 0.98, leather 0.06 / 0.82, tile 1.00 / 0.54, wood 1.00 / 0.47.
Ours, of other images and a reduced schedule: results/studies, shown in the README.
"""

from sparse_ad.data.sources.elpv import Elpv
from sparse_ad.data.sources.folder import Folder
from sparse_ad.data.sources.generated import Generated
from sparse_ad.errors import require_choice
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.nets.blocks import Blocks
from sparse_ad.nets.optimizer import Adam
from sparse_ad.options import section
from sparse_ad.patches import Pool

VARIANTS = {  # name: data
    "magnetic_tile": Folder(),
    "elpv": Elpv(),
    "generated": Generated(category="carpet", color="rgb"),
}
AE_L2 = Reconstruction(
    net=Blocks(
        widths=(32, 32, 32, 64, 64, 128, 64, 32),
        kernels=(4, 4, 3, 4, 3, 4, 3, 3),
        strides=(2, 2, 1, 2, 1, 2, 1, 1),
        norm=False,
        latent=100,
    ),
    code="linear",
    output="linear",
    pool=Pool("max"),
    optimizer=Adam(learning_rate=2e-4),
)


def get_config(variant: str = "generated"):
    """Returns the config of a variant."""
    return published("ae_l2", variant, AE_L2)


def published(name: str, variant: str, method: Reconstruction):
    """Returns the config of AE (L2) or AE (SSIM), on the data of a variant."""
    require_choice(f"the variant of configs/{name}.py", variant, VARIANTS)
    return section(
        Experiment(
            f"{name}_{variant}",
            data=VARIANTS[variant],
            tiles=Tiles((128, 128)),
            method=method,
            fit=Fit(batch_size=16, epochs=200.0),
        )
    )
