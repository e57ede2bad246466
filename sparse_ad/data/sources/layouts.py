"""The layouts of folders of images: which images are to train, which to test, and what they show.

MVTec AD's, train/good, test/<kind> and ground_truth/<kind>/<stem>_mask.png, and others like it.

Source: Bergmann et al., "MVTec AD", CVPR 2019 (layout and image counts).
"""

import logging
from pathlib import Path
from typing import NamedTuple

from sparse_ad.data.reading import Decoding
from sparse_ad.data.sources import tree
from sparse_ad.data.sources.masks import ENDINGS, check_masks, find_beside, match_masks
from sparse_ad.errors import UserError
from sparse_ad.system.names import file_name, printable
from sparse_ad.types import Example, Loaded

log = logging.getLogger(__name__)

TRAIN, TEST = ("train", "training"), ("test", "testing")
MASKS = ("groundtruth", "gt", "mask", "masks")

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

NORMAL = ("good", "ok", "okay", "normal", "nominal", "healthy", "no_defect")


class Rules(NamedTuple):
    """How a folder is read."""

    normal: tuple[str, ...] = NORMAL  # names of folders of normal images
    decoding: Decoding = Decoding()
    skip: tree.Skip = ()  # what is there is as good as not there

    def is_normal(self, folder: str) -> bool:
        """Returns whether a folder of this name holds normal images."""
        return tree.simple(folder) in map(tree.simple, self.normal)


def read(root: Path, rules: Rules = Rules()) -> Loaded:
    """Returns what a folder holds, sorted by path; each image is a group of its own.

    Folders are read with all folders below them. An image is normal where the folder in test/ that
    holds it has one of the names of `rules`. An anomalous image without a mask file has mask None.
    Every file that is not used is counted in `left_out`, with one warning. Where the folder has the
    name of an MVTec AD category, other counts than the official ones are a warning.

    Raises: UserError that names the folder or file that is missing or wrong.
    """
    if not root.is_dir():
        problem = "is a file" if root.is_file() else "no such folder"
        raise UserError(f"{root}: {problem}; give a folder with train/good, or of normal images")
    skip = rules.skip
    train_folder, test_folder = (tree.find_folder(root, part, skip) for part in (TRAIN, TEST))
    if not (train_folder and test_folder):
        return read_undivided(root, train_folder, test_folder, rules)
    mask_folder = tree.find_folder(root, MASKS, skip)
    train, left_out = list_training(train_folder, rules)
    test, others = list_kinds(root, test_folder, mask_folder, rules)
    left_out += others
    used = {train_folder, test_folder, mask_folder}
    left_out += beside_data(root, used, skip)
    _check_normal(test_folder, test, rules.normal)
    _check_counts(root.resolve().name, len(train), len(test))
    return Loaded(normals(root, train), test, tree.summarise(root, left_out))


def read_undivided(
    root: Path, train_folder: Path | None, test_folder: Path | None, rules: Rules
) -> Loaded:
    """Returns what a folder holds that lacks train/, test/ or both.

    train/ alone, or images alone: normal images, none to test. Folders of kinds (OK, NG): all of
    their images as `test`, of which the source draws those to train.
    Raises: UserError where that is not what the folder holds.
    """
    skip = rules.skip
    expected = f"expected train/good and test/<kind> in {root}, or normal images alone"
    if test_folder:
        raise UserError(f"{root / 'train'}: no such folder; {expected}")
    if not train_folder and any(map(tree.is_image, tree.visible_files(root, skip))):
        log.warning("%s: has no folder train: all images in it are taken to be normal", root)
        images, left_out = tree.list_images(root, skip)
        return Loaded(normals(root, images), (), tree.summarise(root, left_out))
    mask_folder = tree.find_folder(root, MASKS, skip)
    kinds = [path.name for path in tree.visible_folders(root, skip) if path != mask_folder]
    if not train_folder and kinds and all(map(rules.is_normal, kinds)):
        log.warning("%s: holds folders of normal images alone: none is for the test", root)
        images, left_out = tree.list_images(root, skip)
        return Loaded(normals(root, images), (), tree.summarise(root, left_out))
    if not train_folder and any(map(rules.is_normal, kinds)):
        test, left_out = list_kinds(root, root, mask_folder, rules)
        return Loaded((), test, tree.summarise(root, left_out))
    if not train_folder:
        names = f"none of its folders ({', '.join(kinds)}) is called {' or '.join(rules.normal)}"
        reason = f"; {names} (data.normal)" if kinds else ""
        raise UserError(printable(f"{root / 'train'}: no such folder; {expected}{reason}"))
    train, left_out = list_training(train_folder, rules)
    left_out += beside_data(root, {train_folder}, skip)
    return Loaded(normals(root, train), (), tree.summarise(root, left_out))


def beside_data(root: Path, used: set[Path | None], skip: tree.Skip) -> list[tuple[Path, str]]:
    """Returns the files that lie in none of the folders of data, with that as the reason."""
    return [(path, "file beside the data") for path in tree.walk_besides(root, used, skip)]


def read_labelled(root: Path, rules: Rules = Rules()) -> Loaded:
    """Returns the labelled images of a folder, to be evaluated on; see `read`.

    They lie in the folders of kinds in test/, or in `root` itself. Nothing is for training.
    Raises: UserError that names the folder or file that is missing or wrong.
    """
    if not root.is_dir():
        problem = "is a file" if root.is_file() else "no such folder"
        raise UserError(f"{root}: {problem}; give a folder with folders of kinds: good, <kind>")
    find = (tree.find_folder(root, part, rules.skip) for part in (TRAIN, TEST, MASKS))
    train, test_folder, masks = find
    folder = test_folder or root
    if train and folder == root:
        raise UserError(f"{root}: has a folder {train.name} and none named test; add test/<kind>")
    test, left_out = list_kinds(root, folder, masks, rules)
    if folder != root:
        beside = tree.walk_besides(root, {folder, masks}, rules.skip)
        left_out += [(path, "file beside the test images") for path in beside]
    _check_normal(folder, test, rules.normal)
    return Loaded((), test, tree.summarise(root, left_out))


def list_kinds(
    root: Path, folder: Path, mask_folder: Path | None, rules: Rules
) -> tuple[tuple[Example, ...], list[tuple[Path, str]]]:
    """Returns the images in the folders of kinds, with their masks, and the files left out.

    Raises: UserError for a folder without images, or masks that are wrong.
    """
    skip = rules.skip
    kinds = [path for path in tree.visible_folders(folder, skip) if path != mask_folder]
    if not kinds:
        raise UserError(f"{folder}: no test images; put them in test/good and test/<kind>")
    masks, left_out = tree.list_images(mask_folder, skip) if mask_folder else ([], [])
    images = []
    for kind in kinds:
        found, others = tree.list_images(kind, skip)
        if not found:
            raise UserError(f"{kind}: no images; add some or delete the folder")
        images += found
        left_out += others
    require_no_masks(kinds, images, rules)
    beside = set(find_beside(images))
    placed = [(mask_folder or folder, mask) for mask in masks]
    placed += [(folder, path) for path in images if path in beside]
    images = [path for path in images if path not in beside]
    mask_of, unused = match_masks(folder, images, placed)
    loose = tree.visible_files(folder, skip)
    left_out += unused + [(path, "in no folder of a kind") for path in loose]
    examples = (example(root, folder, path, rules, mask_of.get(path)) for path in images)
    return check_masks(tuple(examples), rules.decoding), left_out


def require_no_masks(kinds: list[Path], images: list[Path], rules: Rules) -> None:
    """Raises UserError for a folder of anomalous images that are named as masks of the others."""
    for kind in kinds:
        inside = [path.stem for path in images if path.is_relative_to(kind)]
        others = {path.stem for path in images if not path.is_relative_to(kind)}
        images_of = (
            any(stem.removesuffix(end) in others for end in ENDINGS if stem.endswith(end))
            for stem in inside
        )
        if not rules.is_normal(kind.name) and all(images_of):
            raise UserError(
                f"{kind}: holds masks, by their names; call it ground_truth, or move it"
            )


def normals(root: Path, images: list[Path]) -> tuple[Example, ...]:
    """Returns normal images as examples."""
    names = [file_name(path.relative_to(root).as_posix()) for path in images]
    return tuple(
        Example(path, 0, "good", None, name, name) for path, name in zip(images, names, strict=True)
    )


def list_training(folder: Path, rules: Rules) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Returns the training images, and the files that are left out with the reason.

    They lie in the folders of normal images, or in `folder` itself where it has no folders.
    Raises: UserError where there is none.
    """
    skip = rules.skip
    folders = tree.visible_folders(folder, skip)
    good = [path for path in folders if rules.is_normal(path.name)]
    images, left_out = [], []
    for part in good or ([folder] if not folders else []):
        found, others = tree.list_images(part, skip)
        images += found
        left_out += others
    if not images:
        raise UserError(
            f"{folder / 'good'}: no images; add {' '.join(tree.SUFFIXES)} files of normal images"
        )
    seen = {*images, *(path for path, _ in left_out)}
    rest = [path for path in tree.walk(folder, skip) if path not in seen]
    return images, left_out + [(path, "in no folder of normal training images") for path in rest]


def example(root: Path, test: Path, path: Path, rules: Rules, mask: Path | None) -> Example:
    """Returns a test image as an example; its kind is the folder in test/ that holds it."""
    kind, name = path.relative_to(test).parts[0], file_name(path.relative_to(root).as_posix())
    good = rules.is_normal(kind)
    kind = "good" if good else file_name(kind)
    return Example(path, int(not good), kind, mask, group=name, path=name)


def _check_normal(folder: Path, test: tuple[Example, ...], normal: tuple[str, ...]) -> None:
    if all(example.label for example in test):
        kinds = ", ".join(sorted({example.kind for example in test}))
        log.warning(
            "%s: no normal images; none of the folders %s has one of the names %s (data.normal)",
            *(folder, kinds, ", ".join(normal)),
        )


def _check_counts(category: str, train: int, test: int) -> None:
    expected = MVTEC_COUNTS.get(category)
    if expected and expected != (train, test):
        log.warning(
            "%s: %d training and %d test images; MVTec AD's %s has %d and %d",
            *(category, train, test, category, *expected),
        )
