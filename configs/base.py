"""The defaults of every section. Which options there are: docs/configs.md.

An experiment's sections: data, features, tiles, method, fit, evaluation. The source of the data,
the features and the method are chosen by their names, and have the options of that kind alone.

COMMAND  python launch.py --config=configs/base.py --config.data.root=DIR
         python launch.py --config=configs/base.py --help
"""

from sparse_ad.experiment import Experiment
from sparse_ad.options import section


def get_config():
    """Returns the defaults: sparse coding of raw patches, of images in a folder."""
    return section(Experiment(name="base"))
