"""HAM10000: dermatoscopic images of skin lesions; normal = melanocytic nevi (nv). No masks.

Kinds: good (nv), akiec, bcc, bkl, df, mel, vasc. 7,470 lesions show in 10,015 images, so that a
split has to say what it does with pictures of one lesion:

- "lesion": no lesion on both sides; a quarter (test_fraction) of the nevi is in the test set.
- "paper": 100 nevi drawn image by image, the other 6,605 to train: pictures of one lesion lie on
  both sides, as published.

Either way the test set has at most `anomalous_per_class` images of each other class: with
100 of each, the AUROC over all classes is the mean of theirs, as in the paper.

Source: Tschandl et al., "The HAM10000 dataset", Scientific Data 2018, CC BY-NC 4.0; counts and
"paper": Zhao & Karray, "Anomaly Detection for Images using Auto-Encoder based Sparse
Representation", Table 1 and Sect. 3.1.
Differs: of the 6,605 nevi to train of "paper", the fraction `calibration_fraction` is held out by
lesion to set the threshold. The paper sets none and trains on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_ad.data.images import Images, require_fraction
from sparse_ad.data.sources.listing import check_complete, check_counts, read_table
from sparse_ad.data.split import draw_anomalous, split_images, split_test
from sparse_ad.errors import require, require_choice
from sparse_ad.system.names import printable
from sparse_ad.types import Example, Loaded

METADATA = (  # from Kaggle; the original; the Dataverse's own table
    "HAM10000_metadata.csv",
    "HAM10000_metadata",
    "HAM10000_metadata.tab",
)
COUNTS = {"nv": 6705, "akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "vasc": 142}
PAPER_TEST = 100  # nevi in the test set of the paper


@dataclass(frozen=True)
class Ham10000(Images):
    """Skin lesions, split by lesion or as published."""

    root: str = ""  # folder of HAM10000_metadata.csv
    split: str = "lesion"  # lesion: each lesion on one side only | paper
    test_fraction: float = 0.25  # by lesion: of the nevi, in the test set
    anomalous_per_class: int = 100  # at most so many test images of each class but nv; 0: all

    def __post_init__(self):
        super().__post_init__()
        require_choice("split", self.split, SPLITS)
        require_fraction("test_fraction", self.test_fraction)
        count = self.anomalous_per_class
        require(count >= 0, "anomalous_per_class", count, "give 0 or more")

    def load(self, seed: int) -> Loaded:
        """Returns (train, test) of the folder `root`, drawn by seed."""
        require(bool(self.root), "root", self.root, f"set it to the folder of {METADATA[0]}")
        examples = read(Path(self.root).expanduser())
        train, test = SPLITS[self.split](examples, self.test_fraction, seed)
        return Loaded(train, draw_anomalous(test, self.anomalous_per_class, seed))


def _split_as_published(
    examples: Sequence[Example], test_fraction: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): 100 nevi for the test, whatever fraction of all these are."""
    return split_images(examples, PAPER_TEST, seed)


SPLITS = {  # name: split(examples, test_fraction, seed) -> (train, test)
    "lesion": split_test,
    "paper": _split_as_published,
}


def read(root: Path) -> tuple[Example, ...]:
    """Returns all images, sorted by image id; kind = `dx` ("good" for nv), group = `lesion_id`.

    The images are in `root` or in folders of it, such as the two of the official archive; of two
    files of one name the first is taken. Warns of images that the metadata does not name (they
    are left out), and of classes with other counts than published.

    Raises: UserError when the metadata is missing, names images that are not there, or lacks a
    class.
    """
    metadata = next((root / name for name in METADATA if (root / name).is_file()), None)
    metadata = metadata or root / METADATA[0]
    rows = read_table(metadata, ("image_id",), ("lesion_id", "dx"))
    check_counts(metadata, (dx for _, dx in rows.values()), COUNTS)
    paths = sorted([*root.glob("*.jpg"), *root.glob("*/*.jpg")], reverse=True)
    files = {path.stem: path for path in paths if path.is_file()}
    check_complete(metadata, rows, files, f"{root} or its folders")
    return tuple(_example(files[image], *rows[image]) for image in sorted(rows))


def _example(path: Path, lesion: str, dx: str) -> Example:
    kind = "good" if dx == "nv" else dx
    return Example(path, int(dx != "nv"), kind, None, group=lesion, path=printable(path.name))
