"""The quickstart: solar-cell images, from nothing to a report.

Source: the data are ELPV's monocrystalline cells (Buerhop-Lutz et al. 2018; Deitsch et al. 2019),
defect probability 0 against 1, CC BY-NC-SA 4.0. The detector is that of sparse_features.py, as it
comes without a variant, on images of 128x128, a quarter of the pixels.

COMMAND  python launch.py
MINUTES  3 on 2 cores, after 90 MB of images and 61 MB of weights are fetched

Published: nothing comparable. Ours: results/quickstart/elpv.json.
"""

from dataclasses import replace

from configs import sparse_features
from sparse_ad.data.sources.elpv import Elpv
from sparse_ad.experiment import read_experiment
from sparse_ad.options import section


def get_config():
    """Returns the default detector on ELPV, on smaller images."""
    default = read_experiment(sparse_features.get_config())
    data = Elpv(size=(128,), color="rgb")
    return section(replace(default, name="quickstart", data=data))
