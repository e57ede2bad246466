"""The quickstart: sparse coding of solar-cell images, from nothing to a report."""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "quickstart"
    config.data.name = "elpv"
    return config
