"""Entropy of the grey histogram: is it that of training images? A check of the simplest kind.

Score: squared distance from the mean entropy of training images, in units of their variance. An
entropy below theirs is as suspicious as one above: which side defects lie on is not known.

COMMAND  python launch.py --config=configs/entropy.py --config.data.name=ham10000
         --config.data.root=DIR
MINUTES  1 for the 10,015 images of HAM10000

Published figure: none. Ours: results/studies, shown in the README.
"""

from configs.mean_colour import DATA, FIT
from sparse_ad.experiment import Experiment
from sparse_ad.methods.entropy import Entropy
from sparse_ad.options import section


def get_config():
    """Returns the config."""
    return section(Experiment("entropy", data=DATA, method=Entropy(1e-3), fit=FIT))
