"""HAM10000: dermatoscopic images of skin lesions; normal = melanocytic nevi (nv).

Several images show the same lesion: the split is by lesion. No masks.

Source: Tschandl et al., "The HAM10000 dataset", Scientific Data 2018. CC BY-NC 4.0.
"""

from pathlib import Path

from sparse_ad.data.split import split_test
from sparse_ad.data.table import check_complete, read_rows
from sparse_ad.errors import require
from sparse_ad.types import Example

METADATA = "HAM10000_metadata.csv"
FOLDERS = ("images", "HAM10000_images_part_1", "HAM10000_images_part_2")


def load(config, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): nevi; `config.test_fraction` of them, by lesion, and all the rest."""
    require(bool(config.root), "data.root", config.root, f"set it to the folder of {METADATA}")
    return split_test(read(Path(config.root).expanduser()), config.test_fraction, seed)


def read(root: Path) -> tuple[Example, ...]:
    """Returns all images, sorted by image id; kind = `dx` ("good" for nv), group = `lesion_id`.

    The images are in images/, or in the two folders of the official archive. Images that the
    metadata does not name are left out with a warning. Raises UserError when the metadata is
    missing or names images that are not there.
    """
    metadata = root / METADATA
    rows = {row["image_id"]: row for row in read_rows(metadata, ("image_id", "lesion_id", "dx"))}
    files = {path.stem: path for name in FOLDERS for path in (root / name).glob("*.jpg")}
    check_complete(metadata, rows, files, " or ".join(FOLDERS))
    return tuple(_example(files[image], rows[image]) for image in sorted(rows))


def _example(path: Path, row: dict[str, str]) -> Example:
    normal = row["dx"] == "nv"
    return Example(
        image=path,
        label=int(not normal),
        kind="good" if normal else row["dx"],
        mask=None,
        group=row["lesion_id"],
        path=path.name,
    )
