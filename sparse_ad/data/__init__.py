"""Data: sources by name, and the splits of the protocol."""

import logging

from sparse_ad.data.checks import warn_of_copies, warn_of_depth, warn_of_orientation
from sparse_ad.data.sources.driver import Driver
from sparse_ad.data.sources.elpv import Elpv
from sparse_ad.data.sources.folder import Folder
from sparse_ad.data.sources.generated import Generated
from sparse_ad.data.sources.ham10000 import Ham10000
from sparse_ad.data.split import draw, hold_out
from sparse_ad.errors import UserError
from sparse_ad.options import name_of
from sparse_ad.types import LeftOut, Splits

log = logging.getLogger(__name__)

SOURCES = {  # name in the section `data` of a config -> its options
    "folder": Folder,
    "elpv": Elpv,
    "generated": Generated,
    "ham10000": Ham10000,
    "driver": Driver,
}

Source = Folder | Elpv | Generated | Ham10000 | Driver


def load(source: Source, seed: int) -> Splits:
    """Returns the splits of a data set: normal images to train and to calibrate, and test images.

    Calibration is `calibration_fraction` of the normal training images (at least one), whole
    groups drawn by seed. `limit` > 0 first draws at most so many training images. What is odd but
    no mistake for certain is a warning: see `checks`.

    Raises: FieldError with the bare name of a field that does not suit the files; UserError for
    data that are missing or malformed.
    """
    train, test, left_out = source.load(seed)
    warn_of_unused(left_out)
    if source.limit:
        train = draw(train, source.limit, seed)
    if not train:
        raise UserError(f"{name_of(source, SOURCES)}: no training images; give normal images")
    train, calibration = hold_out(train, source.calibration_fraction, seed, "calibration")
    warn_of_depth(train, source)
    warn_of_orientation((*train, *calibration, *test), source)
    warn_of_copies("calibration", calibration, train, "the threshold may be too low")
    harm = "their scores are not those of new images"
    copies = warn_of_copies("test", test, (*train, *calibration), harm)
    return Splits(train, calibration, test, left_out, copies)


def warn_of_unused(left_out: tuple[LeftOut, ...]) -> None:
    """Warns of files that are not used, once for all."""
    if left_out:
        log.warning(
            "not used: %d file(s): %s",
            sum(each.count for each in left_out),
            "; ".join(f"{each.count} {each.reason}, such as {each.example}" for each in left_out),
        )
