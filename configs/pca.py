"""Residual of principal components of pixels: a linear auto-encoder, solved exactly.

Images at 32x32 in colour, 100 components; score: the mean squared residual. What a network that
reconstructs images finds beyond this is what its depth is good for.

COMMAND  python launch.py --config=configs/pca.py --config.data.name=ham10000 --config.data.root=DIR
MINUTES  2 for the 10,015 images of HAM10000

Published figure: none. Ours: results/studies, shown in the README.
"""

from configs.mean_colour import DATA, FIT
from sparse_ad.experiment import Experiment
from sparse_ad.methods.pca import Pca
from sparse_ad.options import section


def get_config():
    """Returns the config."""
    method = Pca(side=32, components=100)
    return section(Experiment("pca", data=DATA, method=method, fit=FIT))
