"""CAE + sparse: an auto-encoder whose latent is penalised by its L1 norm.

Source: Zhao & Karray, Eq. (2): the auto-encoder of configs/cae.py, which says what is chosen where
the paper is silent, its loss plus lambda * L1 of the latent; the score is the reconstruction error
alone (Eq. 1). Lambda is 0.002 for HAM10000 and 4e-4 for the drivers.

Mapping: `penalty` is the paper's lambda. Eq. (2) writes sums, the text speaks of mean squared
error. Here, by default, errors are means over pixels and channels and the norm is a sum over units,
the one reading in which lambda weighs anything: 300 units at one half cost 0.3 at first, an image
about as much. With method.error_reduction=sum, as Eq. (2) is written, an image costs some ten
thousand; with method.penalty_reduction=mean the latent costs 0.001.

COMMAND  python launch.py --config=configs/cae_sparse.py:ham10000 --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.epochs=5

Published AUROC: HAM10000 (Table 3) MEL 0.79, BCC 0.74, AKI 0.78, BKL 0.70, DF 0.65, VAS 0.66, ALL
0.72; driver (Table 4) talking 0.64, texting 0.70, GPS 0.83, ALL 0.72.
Ours: results/studies, shown in the README.
"""

from dataclasses import replace

from configs.cae import CAE, VARIANTS, published

__all__ = ["VARIANTS", "get_config"]

PENALTIES = {"ham10000": 0.002, "ham10000_lesion": 0.002, "driver": 4e-4}


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    method = replace(CAE, penalty=PENALTIES.get(variant, 0.0))
    return published("cae_sparse", variant, method)
