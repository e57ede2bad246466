"""VAE: a variational auto-encoder with a Gaussian prior.

Source: Zhao & Karray, section 3.2: the blocks of configs/cae.py, which says what else is chosen,
with a Gaussian prior; Kingma & Welling, ICLR 2014. The encoder gives mean and log variance of 300
units, the decoder is handed one draw; at scoring it is handed the mean, so that scores are
deterministic, and Eq. (1) is the score.

Mapping: the loss is the sum of squared errors plus `penalty` times the divergence from the prior:
with penalty 1 the negative of the evidence's lower bound, for pixels of Gaussian noise of variance
1/2 in -1..1, up to a constant.

COMMAND  python launch.py --config=configs/vae.py:ham10000 --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.epochs=5

Published AUROC: HAM10000 (Table 3) MEL 0.78, BCC 0.57, AKI 0.68, BKL 0.60, DF 0.56, VAS 0.59, ALL
0.63; driver (Table 4) talking 0.61, texting 0.64, GPS 0.75, ALL 0.67.
Ours: results/studies, shown in the README.
"""

from dataclasses import replace

from configs.cae import CAE, VARIANTS, published

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    method = replace(CAE, code="gaussian", penalty=1.0, error_reduction="sum")
    return published("vae", variant, method)
