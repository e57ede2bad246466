"""Mean colour: how far is it from those of training images? A check that no detector may lose to.

Score: Mahalanobis distance of the mean of all pixels. Nothing of shape or texture is seen.

COMMAND  python launch.py --config=configs/mean_colour.py --config.data.name=ham10000
         --config.data.root=DIR
MINUTES  1 for the 10,015 images of HAM10000

Published figure: none. Ours: results/studies, shown in the README.
"""

from configs import base


def get_config():
    """Returns the config."""
    config = base.get_config()
    config.name = "mean_colour"
    config.data.update(size=(128, 128), color="rgb")
    config.method.update(name="mean_colour", whitening=1e-3)
    config.fit.update(batch_size=64, passes=1.0)
    return config
