"""The quickstart: solar-cell images, from nothing to a report.

Source: the data are ELPV's monocrystalline cells (Buerhop-Lutz et al. 2018; Deitsch et al. 2019),
defect probability 0 against 1, CC BY-NC-SA 4.0. The method is `improved` of mlf_sc.py.

COMMAND  python launch.py
MINUTES  on 2 cores: 2 to 3, after 90 MB of images and 61 MB of weights are fetched

Published: nothing comparable. Ours: results/quickstart/elpv.json, shown in the README.
"""

from configs import mlf_sc
from sparse_ad.data.sources.elpv import Elpv
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.options import section


def get_config():
    """Returns the improved variant on ELPV."""
    features, method = mlf_sc.VARIANTS["improved"]
    data = Elpv(size=(256,), color="rgb")
    experiment = Experiment("quickstart", 0, data, features, method=method, fit=Fit(epochs=1.0))
    return section(experiment)
