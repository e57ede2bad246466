"""Folders laid out as MVTec AD: train/good, test/<kind>, ground_truth/<kind>/<stem>_mask.png.

Source: Bergmann et al., "MVTec AD", CVPR 2019 (layout and image counts).
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from sparse_ad.data.decode import check_mask_shape, image_shape
from sparse_ad.data.images import Images
from sparse_ad.errors import UserError, require
from sparse_ad.types import Example

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

MVTEC_COUNTS = {  # category: (normal training images, test images)
    "carpet": (280, 117),
    "grid": (264, 78),
    "leather": (245, 124),
    "tile": (230, 117),
    "wood": (247, 79),
    "bottle": (209, 83),
    "cable": (224, 150),
    "capsule": (219, 132),
    "hazelnut": (391, 110),
    "metal_nut": (220, 115),
    "pill": (267, 167),
    "screw": (320, 160),
    "toothbrush": (60, 42),
    "transistor": (213, 100),
    "zipper": (240, 151),
}


@dataclass(frozen=True)
class Folder(Images):
    """A folder laid out as MVTec AD; the split into train and test is the folder's own."""

    root: str = ""  # the folder: train/good, test/<kind>, ground_truth/<kind>

    def load(self, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Returns (train, test) of the folder `root`; see `read`. The seed changes nothing."""
        require(bool(self.root), "root", self.root, "set it to the folder of the data set")
        return read(Path(self.root).expanduser())


def read(root: Path) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test) of the folder, sorted by path; each image is a group of its own.

    Kind "good" is normal. An anomalous image without a mask file has mask None.
    Where the folder has the name of an MVTec AD category, other counts than the official ones
    are a warning.

    Raises: UserError that names the folder or file that is missing or wrong.
    """
    for folder in (root, root / "train" / "good", root / "test"):
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; expected train/good and test/<kind> in {root}"
            )
    train = tuple(_example(root, path, None) for path in list_images(root / "train" / "good"))
    masks = _list_masks(root / "ground_truth")
    kinds = sorted(path for path in (root / "test").iterdir() if _is_visible_folder(path))
    if not kinds:
        raise UserError(f"{root / 'test'}: no test images; put them in test/good and test/<kind>")
    test = tuple(
        _example(root, path, masks.pop((kind.name, path.stem), None))
        for kind in kinds
        for path in list_images(kind)
    )
    if masks:
        (kind, stem), mask = min(masks.items())
        raise UserError(f"{mask}: mask without its image; add test/{kind}/{stem}.png or delete it")
    _check_mask_shapes(test)
    _check_counts(root.resolve().name, len(train), len(test))
    return train, test


def list_images(folder: Path) -> list[Path]:
    """Returns the image files of a folder, sorted by name.

    Raises: UserError when there is none.
    """
    images = [path for path in folder.iterdir() if _is_image(path)]
    if not images:
        raise UserError(f"{folder}: no images; add {' '.join(SUFFIXES)} files or delete the folder")
    return sorted(images)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _list_masks(folder: Path) -> dict[tuple[str, str], Path]:
    """Returns {(kind, stem of the image): mask file}."""
    if not folder.is_dir():
        return {}
    return {
        (kind.name, path.stem.removesuffix("_mask")): path
        for kind in sorted(folder.iterdir())
        if _is_visible_folder(kind)
        for path in sorted(kind.iterdir())
        if _is_image(path)
    }


def _example(root: Path, path: Path, mask: Path | None) -> Example:
    kind, name = path.parent.name, path.relative_to(root).as_posix()
    return Example(path, int(kind != "good"), kind, mask, group=name, path=name)


def _check_mask_shapes(examples: tuple[Example, ...]) -> None:
    """Reads the headers only, so that a wrong mask is found before an hour of fitting."""
    for example in examples:
        if example.mask is None:
            continue
        try:
            shape = image_shape(example.image)
        except UserError:  # an unreadable image is skipped, and reported, when it is scored
            continue
        check_mask_shape(image_shape(example.mask), shape, str(example.mask))


def _check_counts(category: str, train: int, test: int) -> None:
    expected = MVTEC_COUNTS.get(category)
    if expected and expected != (train, test):
        log.warning(
            "%s: %d training and %d test images; MVTec AD's %s has %d and %d",
            *(category, train, test, category, *expected),
        )
