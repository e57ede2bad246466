"""The defaults of a study; what its fields mean: sparse_ad/studies/grid.py and docs/configs.md."""

from sparse_ad.options import section
from sparse_ad.studies.grid import Study


def get_config():
    """Returns the defaults."""
    return section(Study())
