"""State Farm distracted drivers, classes c0 to c5; normal = safe driving (c0).

The images are frames of videos, so the split is by driver: images of held-out drivers are the
test set, and the distracted images of the training drivers are not used. No masks.

Source: State Farm Distracted Driver Detection (Kaggle, 2016); competition terms, research use.
Differs: the paper's own set (normal, talking, texting, GPS) is not public; operating the radio
(c5) stands in for GPS.
"""

from pathlib import Path

from sparse_ad.data.split import split_test
from sparse_ad.data.table import check_complete, read_rows
from sparse_ad.errors import require
from sparse_ad.types import Example

LIST = "driver_imgs_list.csv"
KINDS = {
    "c0": "good",
    "c1": "texting",
    "c2": "talking",
    "c3": "texting",
    "c4": "talking",
    "c5": "gps",
}


def load(config, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test) with `config.test_fraction` of the safe images, by driver, in test."""
    require(bool(config.root), "data.root", config.root, f"set it to the folder of {LIST}")
    return split_test(read(Path(config.root).expanduser()), config.test_fraction, seed)


def read(root: Path) -> tuple[Example, ...]:
    """Returns the images train/<class>/<name> of classes c0 to c5, sorted; group = `subject`.

    Images that the list does not name are left out with a warning. Raises UserError when the
    list is missing or names images that are not there.
    """
    listing = root / LIST
    subjects = {
        f"{row['classname']}/{row['img']}": row["subject"]
        for row in read_rows(listing, ("classname", "img", "subject"))
        if row["classname"] in KINDS
    }
    files = [f"{path.parent.name}/{path.name}" for path in (root / "train").glob("c[0-5]/*.jpg")]
    check_complete(listing, subjects, files, str(root / "train"))
    return tuple(_example(root, name, subjects[name]) for name in sorted(subjects))


def _example(root: Path, name: str, subject: str) -> Example:
    folder = name.partition("/")[0]
    return Example(
        image=root / "train" / name,
        label=int(folder != "c0"),
        kind=KINDS[folder],
        mask=None,
        group=subject,
        path=name,
    )
