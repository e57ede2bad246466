"""The baseline of Zhao & Karray: their auto-encoder, trained by binary cross-entropy.

Source: Zhao & Karray, section 3.2: "the baseline auto-encoder model trained by binary cross entropy
loss". The network of configs/cae.py, which says what else is chosen; images and output are in 0..1
here, the output through a sigmoid, since a cross-entropy needs probabilities. The paper scores all
by Eq. (1): so does this.

COMMAND  python launch.py --config=configs/ae_bce.py:ham10000 --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.epochs=5

Published AUROC: HAM10000 (Table 3) MEL 0.60, BCC 0.57, AKI 0.59, BKL 0.71, DF 0.57, VAS 0.48, ALL
0.59; driver (Table 4) talking 0.56, texting 0.67, GPS 0.63, ALL 0.62.
Ours: results/studies, shown in the README.
"""

from dataclasses import replace

from configs.cae import CAE, VARIANTS, published

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    return published("ae_bce", variant, replace(CAE, loss="bce", output="sigmoid"))
