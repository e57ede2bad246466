"""Data: sources by name, and the splits of the protocol."""

from sparse_ad.data.decode import CHANNELS
from sparse_ad.data.sources import driver, elpv, folder, generated, ham10000
from sparse_ad.data.split import draw, hold_out
from sparse_ad.errors import UserError, require, require_choice
from sparse_ad.types import Splits

LOADERS = {  # name: load(config.data, seed) -> (normal training examples, test examples)
    "folder": folder.load,
    "elpv": elpv.load,
    "generated": generated.load,
    "ham10000": ham10000.load,
    "driver": driver.load,
}


def load(config, seed: int) -> Splits:
    """Returns the splits of the set that `config` (the `data` part of a config) names.

    Calibration is `config.calibration_fraction` of the normal training images (at least one),
    whole groups drawn by seed. `config.limit` > 0 first draws at most so many training images.
    Raises UserError for a field out of range and for data that is missing or malformed.
    """
    check(config, seed)
    train, test = LOADERS[config.name](config, seed)
    if config.limit:
        train = draw(train, config.limit, seed)
    if not (train and test):
        raise UserError(
            f"data.name = {config.name!r}: {len(train)} training and {len(test)} test images: "
            "both are needed"
        )
    train, calibration = hold_out(train, config.calibration_fraction, seed, "calibration")
    return Splits(train, calibration, test)


def check(config, seed: int) -> None:
    """Raises UserError for a field of the `data` part of a config that is out of range."""
    require_choice("data.name", config.name, LOADERS)
    require_choice("data.color", config.color, CHANNELS)
    require_choice("data.split", config.split, ham10000.SPLITS)
    size = tuple(config.size)
    whole = all(isinstance(side, int) for side in size)
    require(
        whole and len(size) == 2 and min(size) >= 1,
        "data.size",
        size,
        "give (height, width), each >= 1",
    )
    for field in ("calibration_fraction", "test_fraction"):
        value = config[field]
        require(0 < value < 1, f"data.{field}", value, "give a fraction between 0 and 1")
    for field in ("limit", "workers", "anomalous_per_class"):
        require(config[field] >= 0, f"data.{field}", config[field], "give 0 or more")
    drivers = config.training_drivers
    require(
        drivers >= 2, "data.training_drivers", drivers, "give 2 or more: one is for calibration"
    )
    require(seed >= 0, "seed", seed, "give 0 or more")
