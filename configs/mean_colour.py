"""Mean colour: how far is it from those of training images? A check that no detector may lose to.

Score: Mahalanobis distance of the mean of all pixels. Nothing of shape or texture is seen.

COMMAND  python launch.py --config=configs/mean_colour.py --config.data.name=ham10000
         --config.data.root=DIR
MINUTES  1 for the 10,015 images of HAM10000

Published figure: none. Ours: results/studies, shown in the README.
"""

from sparse_ad.data.sources.folder import Folder
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.options import section

DATA = Folder(size=(128, 128), color="rgb")
FIT = Fit(batch_size=64, epochs=1.0)


def get_config():
    """Returns the config."""
    return section(Experiment("mean_colour", data=DATA, method=MeanColour(1e-3), fit=FIT))
