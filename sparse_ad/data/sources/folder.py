"""Folders of images: train/good, test/<kind>, ground_truth/<kind>/<stem>_mask.png, as MVTec AD.

Source: Bergmann et al., "MVTec AD", CVPR 2019 (layout and image counts).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparse_ad.data.images import Images, require_fraction
from sparse_ad.data.reading import Decoding
from sparse_ad.data.sources import tree
from sparse_ad.data.sources.ignored import (
    add_ignored,
    match_ignored,
    open_ignore,
    places,
)
from sparse_ad.data.sources.masks import check_masks, find_beside, match_masks
from sparse_ad.data.split import split_test
from sparse_ad.errors import UserError, require, within
from sparse_ad.system.names import printable
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


@dataclass(frozen=True)
class Folder(Images):
    """A folder laid out as MVTec AD; the split into train and test is the folder's own."""

    root: str = ""  # the folder: train/good, test/<kind>, ground_truth/<kind>
    # names of folders of normal images; case and punctuation do not matter
    normal: tuple[str, ...] = ("good", "ok", "okay", "normal", "nominal", "healthy", "no_defect")
    # of the normal images: to test, where folders of kinds are not divided into train and test
    test_fraction: float = 0.25
    # pixels to leave out, white: a mask for all images, or a folder of masks laid out as root
    ignore: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(all(map(tree.simple, self.normal)), "normal", self.normal, "give names of folders")
        require_fraction("test_fraction", self.test_fraction)

    def load(self, seed: int) -> Loaded:
        """Returns the examples of the folder `root`; see `read`.

        The seed draws the normal images to test, where the folder does not say which they are.
        """
        require(bool(self.root), "root", self.root, "set it to the folder of the data set")
        root = Path(self.root).expanduser()
        if self.ignore:
            ignore = open_ignore(self.ignore, root)
            loaded = read(root, self.normal, self, places(ignore))
            loaded = add_ignored(loaded, ignore, root, self)
        else:
            loaded = read(root, self.normal, self)
        if loaded.train or not any(example.label == 0 for example in loaded.test):
            return loaded
        train, test = split_test(loaded.test, self.test_fraction, seed)
        return loaded._replace(train=train, test=test)


def places_of(options: Images) -> tree.Skip:
    """Returns where `ignore` lies, if a source has it: files there are no images."""
    ignore = options.ignore if isinstance(options, Folder) else ""
    return places(Path(ignore).expanduser()) if ignore else ()


def with_ignored(
    options: Images, folder: Path | None, examples: Sequence[Example]
) -> tuple[Example, ...]:
    """Returns new images with their masks of what to ignore, as the source of training images says.

    In a folder of masks, that of an image lies as the image does below the folder of the data set,
    and that of an image which is not there, as it does below `folder`, if that is given. Masks
    among the images are left out.
    Raises: FieldError for "data.ignore"; UserError where only masks are left, or two files could
    both be meant.
    """
    if not isinstance(options, Folder) or not options.ignore:
        return tuple(examples)
    with within("data"):
        ignore = open_ignore(options.ignore, folder)
    skip, root = places(ignore), Path(options.root).expanduser()
    images = [each for each in examples if not is_skipped(each, skip)]
    if not images:
        raise UserError(f"{ignore}: is all that is given (data.ignore); give images to score")
    paths = [path_below(root, folder, each) for each in images]
    masks, _ = match_ignored(ignore, root.resolve(), list(dict.fromkeys(paths)))
    pairs = zip(images, paths, strict=True)
    return tuple(image._replace(ignore=masks[path]) for image, path in pairs)


def is_skipped(example: Example, skip: tree.Skip) -> bool:
    """Returns whether an image is a file in `skip`, or below a folder there."""
    return isinstance(example.image, Path) and tree.skipped(example.image, skip)


def path_below(root: Path, folder: Path | None, example: Example) -> Path:
    """Returns where a new image would lie below the folder `root` of the data set, if it did."""
    if not isinstance(example.image, Path):
        return root.resolve() / example.path
    path, real = example.image.absolute(), tree.entry(example.image)
    for place, top in ((path, root.absolute()), (real, root.resolve())):
        if place.is_relative_to(top):
            return root.resolve() / place.relative_to(top)
    top = folder.absolute() if folder else Path(path.anchor)
    return root.resolve() / path.relative_to(top)


def read(
    root: Path,
    normal: tuple[str, ...] = Folder.normal,
    decoding: Decoding = Decoding(),
    skip: tree.Skip = (),
) -> Loaded:
    """Returns what a folder holds, sorted by path; each image is a group of its own.

    Folders are read with all folders below them. An image is normal where the folder in test/ that
    holds it has one of the names `normal`. An anomalous image without a mask file has mask None.
    Every file that is not used is counted in `left_out`, with one warning. Where the folder has the
    name of an MVTec AD category, other counts than the official ones are a warning. What is in
    `skip` is as good as not there.

    Raises: UserError that names the folder or file that is missing or wrong.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give one with train/good, or of normal images")
    names = {tree.simple(name) for name in normal}
    train_folder, test_folder = (tree.find_folder(root, part, skip) for part in (TRAIN, TEST))
    if not (train_folder and test_folder):
        return read_undivided(root, train_folder, test_folder, names, decoding, skip)
    mask_folder = tree.find_folder(root, MASKS, skip)
    train, left_out = list_training(train_folder, names, skip)
    for kind in tree.visible_folders(test_folder, skip):
        if not tree.list_images(kind, skip)[0]:
            raise UserError(f"{kind}: no images; add some or delete the folder")
    test, others = list_kinds(root, test_folder, mask_folder, names, decoding, skip)
    left_out += others
    used = {train_folder, test_folder, mask_folder}
    left_out += beside_data(root, used, skip)
    _check_normal(test_folder, test, normal)
    _check_counts(root.resolve().name, len(train), len(test))
    return Loaded(normals(root, train), test, tree.summarise(root, left_out))


def read_undivided(
    root: Path,
    train_folder: Path | None,
    test_folder: Path | None,
    names: set[str],
    decoding: Decoding,
    skip: tree.Skip,
) -> Loaded:
    """Returns what a folder holds that lacks train/, test/ or both.

    train/ alone, or images alone: normal images, none to test. Folders of kinds (OK, NG): all of
    their images as `test`, of which `Folder.load` draws those to train.
    Raises: UserError where that is not what the folder holds.
    """
    expected = f"expected train/good and test/<kind> in {root}, or normal images alone"
    if test_folder:
        raise UserError(f"{root / 'train'}: no such folder; {expected}")
    if not train_folder and any(map(tree.is_image, tree.visible_files(root, skip))):
        log.warning("%s: has no folder train: all images in it are taken to be normal", root)
        images, left_out = tree.list_images(root, skip)
        return Loaded(normals(root, images), (), tree.summarise(root, left_out))
    kinds = {tree.simple(path.name) for path in tree.visible_folders(root, skip)}
    if not train_folder and kinds & names:
        mask_folder = tree.find_folder(root, MASKS, skip)
        test, left_out = list_kinds(root, root, mask_folder, names, decoding, skip)
        return Loaded((), test, tree.summarise(root, left_out))
    if not train_folder:
        raise UserError(f"{root / 'train'}: no such folder; {expected}")
    train, left_out = list_training(train_folder, names, skip)
    left_out += beside_data(root, {train_folder}, skip)
    return Loaded(normals(root, train), (), tree.summarise(root, left_out))


def beside_data(root: Path, used: set[Path | None], skip: tree.Skip) -> list[tuple[Path, str]]:
    """Returns the files that lie in none of the folders of data, with that as the reason."""
    return [(path, "file beside the data") for path in tree.walk_besides(root, used, skip)]


def read_labelled(
    root: Path,
    normal: tuple[str, ...] = Folder.normal,
    decoding: Decoding = Decoding(),
    skip: tree.Skip = (),
) -> Loaded:
    """Returns the labelled images of a folder, to be evaluated on; see `read`.

    They lie in the folders of kinds in test/, or in `root` itself. Nothing is for training, and
    what is in `skip` is as good as not there.
    Raises: UserError that names the folder or file that is missing or wrong.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give one with folders of kinds: good, <kind>")
    train, folder, masks = (tree.find_folder(root, part, skip) for part in (TRAIN, TEST, MASKS))
    folder = folder or root
    if train and folder == root:
        raise UserError(f"{root}: has a folder {train.name} and none named test; add test/<kind>")
    names = {tree.simple(name) for name in normal}
    test, left_out = list_kinds(root, folder, masks, names, decoding, skip)
    if folder != root:
        beside = tree.walk_besides(root, {folder, masks}, skip)
        left_out += [(path, "file beside the test images") for path in beside]
    _check_normal(folder, test, normal)
    return Loaded((), test, tree.summarise(root, left_out))


def list_kinds(
    root: Path,
    folder: Path,
    mask_folder: Path | None,
    names: set[str],
    decoding: Decoding,
    skip: tree.Skip,
) -> tuple[tuple[Example, ...], list[tuple[Path, str]]]:
    """Returns the images in the folders of kinds, with their masks, and the files left out.

    Raises: UserError for a folder without images, or masks that are wrong.
    """
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
    beside = set(find_beside(images))
    placed = [(mask_folder or folder, mask) for mask in masks]
    placed += [(folder, path) for path in images if path in beside]
    images = [path for path in images if path not in beside]
    mask_of, unused = match_masks(folder, images, placed)
    loose = tree.visible_files(folder, skip)
    left_out += unused + [(path, "in no folder of a kind") for path in loose]
    examples = (example(root, folder, path, names, mask_of.get(path)) for path in images)
    return check_masks(tuple(examples), decoding), left_out


def normals(root: Path, images: list[Path]) -> tuple[Example, ...]:
    """Returns normal images as examples."""
    names = [printable(path.relative_to(root).as_posix()) for path in images]
    return tuple(
        Example(path, 0, "good", None, name, name) for path, name in zip(images, names, strict=True)
    )


def list_training(
    folder: Path, normal: set[str], skip: tree.Skip
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Returns the training images, and the files that are left out with the reason.

    They lie in the folders of normal images, or in `folder` itself where it has no folders.
    Raises: UserError where there is none.
    """
    folders = tree.visible_folders(folder, skip)
    good = [path for path in folders if tree.simple(path.name) in normal]
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


def example(root: Path, test: Path, path: Path, normal: set[str], mask: Path | None) -> Example:
    """Returns a test image as an example; its kind is the folder in test/ that holds it."""
    kind, name = path.relative_to(test).parts[0], printable(path.relative_to(root).as_posix())
    good = tree.simple(kind) in normal
    kind = "good" if good else printable(kind)
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
