"""AE (SSIM): the auto-encoder of configs/ae_l2.py, loss and residual by structural similarity.

Source: Bergmann et al., VISAPP 2019, sections 3.3 and 4: windows of 11 pixels. The constants are
Wang's, 0.01^2 and 0.03^2. Loss: 1 - SSIM, mean over whole windows; the residual of a pixel is
that of the window around it, near the border that of the nearest whole one.
Differs: the output goes through a sigmoid, where the paper's is linear: SSIM is blind to the sign
of both images' product, and a linear output was seen to settle on negatives.

COMMAND  python launch.py --config=configs/ae_ssim.py:generated
MINUTES  on 2 cores: not measured for 200 epochs; shorter: --config.fit.epochs=20

Published image R1 / R2, MVTec AD (Table 1 of Imamura et al.): carpet 0.43 / 0.90, grid
0.38 / 1.00, leather 0.00 / 0.92, tile 1.00 / 0.04, wood 0.84 / 0.82.
Ours, of other images and a reduced schedule: results/studies, shown in the README.
"""

from dataclasses import replace

from configs.ae_l2 import AE_L2, VARIANTS, published

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "generated"):
    """Returns the config of a variant."""
    method = replace(AE_L2, loss="ssim", residual="ssim", output="sigmoid")
    return published("ae_ssim", variant, method)
