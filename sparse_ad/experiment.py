"""An experiment: every option of one run, and the detector that they describe."""

from dataclasses import dataclass, field, replace
from typing import Any

from sparse_ad import methods
from sparse_ad.data import SOURCES, Source
from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import require, within
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.features import FEATURES, Network, Pixels
from sparse_ad.fitting.record import FitRecord
from sparse_ad.fitting.setup import Fit, Setup
from sparse_ad.methods import METHODS
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.methods.sparse_coding import SparseCoding
from sparse_ad.options import Values, choice, read
from sparse_ad.types import Method


@dataclass(frozen=True)
class Experiment:
    """Every option of one run: a config is this, as a section."""

    name: str = "run"  # of the run; its results go to runs/NAME
    seed: int = 0  # of splits, initial values and draws
    data: Source = choice(SOURCES, Folder())
    features: Pixels | Network = choice(FEATURES, Pixels())
    tiles: Tiles = field(default_factory=Tiles)
    method: Any = choice(METHODS, SparseCoding())
    fit: Fit = field(default_factory=Fit)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self):
        require(0 <= self.seed < 2**32, "seed", self.seed, "give 0 to 4294967295")
        require(bool(self.name), "name", self.name, "give a name: results go to runs/NAME")
        if self.data.exact:
            with within("fit.augmentation"):
                self.fit.augmentation.check(self.data.exact)

    def at(self, size: tuple[int, int]) -> "Experiment":
        """Returns the experiment with images of an exact size (height, width).

        Raises: UserError for augmentation that does not go with it.
        """
        with within("data"):
            data = replace(self.data, size=size)
        return replace(self, data=data)

    def as_fitted(self, record: FitRecord) -> "Experiment":
        """Returns the experiment at the size of the images of its fit; needs no images.

        Raises: FieldError where that depended on images, and the record does not say what it was.
        """
        with within("data"):
            height, width = record.size or self.data.pair
        return self.at((height, width))

    def build(self) -> Method:
        """Returns the detector. Raises: UserError for what does not go with the images' size."""
        with within("data"):
            shape = self.data.shape
        with within("tiles"):
            height, width, _ = self.tiles.part(shape)
        with within("tiles" if self.tiles.size else "data"):
            features = self.features.build((height, width))
        with within("method"):
            method = methods.build(self.method, features, shape, self.tiles)
        by = self.evaluation.calibration.by
        remedy = "this detector has no grid of errors; set it to 'none'" + of_positions(self.method)
        with within("evaluation.calibration"):
            require(by == "none" or method.grid is not None, "by", by, remedy)
        return method

    def setup(self, method: Method) -> Setup:
        """Returns what fitting the detector needs to know."""
        return Setup(method, self.data, self.fit, self.seed)


def of_positions(method: Any) -> str:
    """Returns which field of a detector would give it a grid of errors, as the end of a remedy."""
    fields = {"score_of": "positions", "score": "error"}
    own = (name for name in fields if hasattr(method, name))
    return "".join(f", or method.{name} to {fields[name]!r}" for name in own)


def read_experiment(config: Values) -> Experiment:
    """Returns the experiment that a config describes.

    Raises: FieldError with the whole path of a field that is unknown or has a wrong value.
    """
    return read(Experiment, config)
