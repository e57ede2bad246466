"""State Farm distracted drivers, classes c0 to c5; normal = safe driving (c0). No masks.

Kinds: good (c0), texting (c1, c3), talking (c2, c4: on the phone), gps (c5).

The images are frames of videos, so the split is by driver: the safe images of `training_drivers`
drivers are for training, all images of the other drivers are the test set, and the distracted
images of the training drivers are not used.

Source: State Farm Distracted Driver Detection (Kaggle, 2016); competition terms, research use.
16 training drivers: Zhao & Karray, "Anomaly Detection for Images using Auto-Encoder based Sparse
Representation", Sect. 3.1.
Differs: this is not the paper's set, which is private. That one has 19,831 images of 25 drivers
in a simulator; this one 14,057 of 26 drivers in cars (the copy measured here is at 80x60 pixels),
where operating the radio (c5) stands in for GPS. So metrics cannot be compared one to one.
Some of the training drivers are held out for calibration; the paper trains on all 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_ad.data.images import Images
from sparse_ad.data.sources.listing import check_complete, check_counts, read_table
from sparse_ad.data.split import split_groups
from sparse_ad.errors import require
from sparse_ad.types import Example, Loaded

LIST = "driver_imgs_list.csv"
KINDS = {
    "c0": "good",
    "c1": "texting",
    "c2": "talking",
    "c3": "texting",
    "c4": "talking",
    "c5": "gps",
}
COUNTS = {"c0": 2489, "c1": 2267, "c2": 2317, "c3": 2346, "c4": 2326, "c5": 2312}


@dataclass(frozen=True)
class Driver(Images):
    """State Farm distracted drivers, split by driver."""

    root: str = ""  # folder of driver_imgs_list.csv
    training_drivers: int = 16  # safe images of so many drivers train; the other drivers test

    def __post_init__(self):
        super().__post_init__()
        drivers = self.training_drivers
        require(drivers >= 2, "training_drivers", drivers, "give 2 or more: one is for calibration")

    def load(self, seed: int) -> Loaded:
        """Returns (train, test) of the folder `root`; see `read` and `split`."""
        require(bool(self.root), "root", self.root, f"set it to the folder of {LIST}")
        return Loaded(*split(read(Path(self.root).expanduser()), seed, self.training_drivers))


def split(
    examples: Sequence[Example], seed: int, drivers: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): safe images of `drivers` drivers drawn by seed; all of the others'.

    Raises: FieldError when there are not more drivers than that.
    """
    known = len({example.group for example in examples if example.label == 0})
    require(
        drivers < known,
        "training_drivers",
        drivers,
        f"{LIST} names {known} drivers who drive safely, and one or more are for the test: "
        "give fewer",
    )
    return split_groups(examples, drivers, seed)


def read(root: Path) -> tuple[Example, ...]:
    """Returns the images train/<class>/<name> of classes c0 to c5, sorted; group = `subject`.

    They are in `root`, or in imgs/ as in the official archive. Warns of images that the list does
    not name (they are left out), and of classes with other counts than published.

    Raises: UserError when the list is missing, names images that are not there, or lacks a class.
    """
    listing = root / LIST
    rows = read_table(listing, ("classname", "img"), ("subject",))
    subjects = {name: row[0] for name, row in rows.items() if _class(name) in KINDS}
    check_counts(listing, map(_class, subjects), COUNTS)
    folder = root / "imgs" / "train" if (root / "imgs" / "train").is_dir() else root / "train"
    paths = (path for path in folder.glob("c[0-5]/*.jpg") if path.is_file())
    files = [f"{path.parent.name}/{path.name}" for path in paths]
    check_complete(listing, subjects, files, str(folder))
    return tuple(_example(folder, name, subjects[name]) for name in sorted(subjects))


def _class(name: str) -> str:
    return name.partition("/")[0]


def _example(folder: Path, name: str, subject: str) -> Example:
    kind = KINDS[_class(name)]
    return Example(folder / name, int(kind != "good"), kind, None, group=subject, path=name)
