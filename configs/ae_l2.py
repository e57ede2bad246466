"""AE (L2): an auto-encoder of textures, the residual of each pixel its squared error.

Source: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural
Similarity to Autoencoders", VISAPP 2019, table 1 and section 4: nine convolutions of 32, 32, 32,
64, 64, 128, 64, 32 and d channels, kernels 4, 4, 3, 4, 3, 4, 3, 3, 8, strides 2, 2, 1, 2, 1, 2, 1,
1, 1, mirrored by the decoder, leaky ReLU of slope 0.2 except at both outputs, no batch norm, d =
100 for textures; 128x128 crops, Adam at 2e-4 with weight decay 1e-5, 200 epochs. The same network
is "AE (L2)" in "MVTec AD", CVPR 2019, and in the tables of the MLF-SC paper.

The ninth convolution covers the whole grid of 8x8: here it is the dense layer to the latent.
Differs: crops are not drawn at random but cut at fixed places (see methods/tiled.py), 9 of each
256x256 image, and an epoch sees each once; 16 images, 144 crops, make a batch where the paper has
128 crops. Images are in 0..1. The image score is the largest pixel residual, since a defect is
small; the paper segments only. For whole images, --config.data.size="(128,128)" and
--config.method.tile="()".

magnetic_tile     a folder, its root to be given
elpv              solar cells
generated         carpet

COMMAND  python launch.py --config=configs/ae_l2.py:generated
MINUTES  on 2 cores: not measured for 200 epochs; shorter: --config.fit.passes=20

Published image R1 / R2, MVTec AD (Table 1 of Imamura et al.): carpet 0.57 / 0.42, grid
0.57 / 0.98, leather 0.06 / 0.82, tile 1.00 / 0.54, wood 1.00 / 0.47.
Ours, of other images and a reduced schedule: results/studies, shown in the README.
"""

from configs import base
from sparse_ad.errors import require_choice


def get_config(variant: str = "generated"):
    """Returns the config of a variant."""
    return published("ae_l2", variant)


def published(name: str, variant: str):
    """Returns what AE (L2) and AE (SSIM) share, on the data of a variant."""
    require_choice(f"the variant of configs/{name}.py", variant, VARIANTS)
    config = base.get_config()
    config.name = f"{name}_{variant}"
    config.method.update(name="reconstruction", pooling="max", tile=(128, 128))
    config.net.update(
        widths=(32, 32, 32, 64, 64, 128, 64, 32),
        kernels=(4, 4, 3, 4, 3, 4, 3, 3),
        strides=(2, 2, 1, 2, 1, 2, 1, 1),
        norm=False,
        latent=100,
        code="linear",
        output="linear",
    )
    config.fit.update(batch_size=16, passes=200.0, learning_rate=2e-4)
    VARIANTS[variant](config)
    return config


def magnetic_tile(config):
    """Magnetic tiles, in the folder data.root."""


def elpv(config):
    """Solar cells."""
    config.data.name = "elpv"


def generated(config):
    """Carpets."""
    config.data.update(name="generated", category="carpet", color="rgb")


VARIANTS = {each.__name__: each for each in (magnetic_tile, elpv, generated)}
