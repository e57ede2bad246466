"""The config that a workdir was fitted with: --config=configs/of_workdir.py:WORKDIR.

--config=WORKDIR/config.json is short for it. --mode=evaluate and --mode=predict use it where no
other config is given.
"""

from pathlib import Path

from sparse_ad.system.workdir import read_config, read_config_file


def get_config(workdir: str):
    """Returns the config of a workdir, or of a config.json, to be overridden by flags."""
    path = Path(workdir)
    return read_config_file(path) if path.is_file() else read_config(path)
