"""The quickstart: sparse coding of solar-cell images, from nothing to a report.

Source: the data are ELPV's monocrystalline cells (Buerhop-Lutz et al. 2018; Deitsch et al. 2019),
defect probability 0 against 1, CC BY-NC-SA 4.0. The method is that of sparse_patches.py.

COMMAND  python launch.py
MINUTES  on 2 cores: 1 to 2, after 90 MB are fetched

Published: nothing comparable. Ours: results/quickstart/elpv.json, shown in the README; image AUROC
is below one half, and the README says why.
"""

from configs import base


def get_config():
    """Returns the defaults on ELPV."""
    config = base.get_config()
    config.name = "quickstart"
    config.data.name = "elpv"
    return config
