"""The config that a workdir was fitted with: --config=configs/of_workdir.py:WORKDIR.

--mode=evaluate and --mode=predict use it where no other config is given.
"""

from pathlib import Path

from sparse_ad.system.workdir import read_config


def get_config(workdir: str):
    """Returns the config of a workdir, to be overridden by flags."""
    return read_config(Path(workdir))
