"""Which pixels of the images of a folder are to be ignored: one mask for all, or one for each."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from sparse_ad.data.decode import image_shape
from sparse_ad.data.ignored import NAME, decode_ignored
from sparse_ad.data.images import Images
from sparse_ad.data.sources import tree
from sparse_ad.data.sources.masks import match_masks
from sparse_ad.errors import UserError, require, within
from sparse_ad.types import Example, LeftOut, Loaded

Masks = Mapping[Path, Path | None]  # {image: its ignore mask; None: nothing is}

log = logging.getLogger(__name__)


def ignored_entries(ignore: Path) -> tree.Skip:
    """Returns where `ignore` lies, not to be taken for data: itself, and what it links to."""
    return {tree.entry(ignore), ignore.resolve()}


def open_ignore(ignore: str, images: Path | None) -> Path:
    """Returns `ignore` as a path. Raises: FieldError where it is missing, or holds the images."""
    path = Path(ignore).expanduser()
    remedy = "no such file or folder; give a mask for all images, or a folder of masks"
    require(path.exists(), "ignore", ignore, remedy)
    own = images is None or not images.resolve().is_relative_to(path.resolve())
    require(own, "ignore", ignore, "holds the images too; give a folder of masks alone")
    return path


def match_ignored(
    ignore: Path, root: Path, images: Sequence[Path]
) -> tuple[Masks, tuple[LeftOut, ...]]:
    """Returns the ignore masks in images, and the files of `ignore` that are not used.

    A file is the mask of all images. In a folder, a mask lies where its image lies below `root`,
    and has its name, with one of the endings of masks or without.
    Raises: UserError for a folder without masks, or two files that both could be meant.
    """
    if not ignore.is_dir():
        return dict.fromkeys(images, ignore), ()
    masks, others = tree.list_images(ignore)
    if not masks:
        raise UserError(f"{ignore}: no masks; add {' '.join(tree.SUFFIXES)} files")
    placed = [(ignore, mask) for mask in masks]
    found, unused = match_masks(root, images, placed, anywhere=False)
    others += [(path, "ignore mask without its image") for path, _ in unused]
    if len(found) < len(images):
        without = next(path for path in images if path not in found)
        log.warning(
            "%s: holds no mask of %d of %d images, such as %s: nothing is ignored in them",
            *(ignore, len(images) - len(found), len(images), without),
        )
    return {path: found.get(path) for path in images}, tree.summarise(ignore, others)


def with_masks(examples: Iterable[Example], masks: Masks) -> tuple[Example, ...]:
    """Returns the examples, which are files, with their ignore masks."""
    pairs = ((example, example.image) for example in examples)
    return tuple(
        example._replace(ignore=masks[image]) for example, image in pairs if isinstance(image, Path)
    )


def add_ignored(loaded: Loaded, ignore: Path, root: Path, images: Images) -> Loaded:
    """Returns the examples with their ignore masks, once each of these has been read.

    Raises: UserError for a mask that cannot be read, has another size than its image, or covers all
    of it.
    """
    examples = loaded.train + loaded.test
    paths = [example.image for example in examples if isinstance(example.image, Path)]
    masks, left_out = match_ignored(ignore, root, paths)
    train, test = with_masks(loaded.train, masks), with_masks(loaded.test, masks)
    check_ignored(train + test, images)
    return loaded._replace(train=train, test=test, left_out=loaded.left_out + left_out)


def check_ignored(examples: Collection[Example], images: Images) -> None:
    """Raises UserError that names an image, and its ignore mask that cannot be used."""
    checked = set()
    for example in examples:
        if example.ignore is None:
            continue
        try:
            shape = image_shape(example.image, options=images)
        except UserError:  # an unreadable image is reported when it is fitted or scored
            continue
        if (example.ignore, shape) in checked:
            continue
        checked.add((example.ignore, shape))
        try:
            decode_ignored(example.ignore, images.exact or shape, shape, NAME, images)
        except UserError as error:
            raise UserError(f"{example.path}: {error}") from error


def ignored_entries_of(options: Images) -> tree.Skip:
    """Returns where `ignore` lies, if a source has it: files there are no images."""
    ignore = getattr(options, "ignore", "")
    return ignored_entries(Path(ignore).expanduser()) if ignore else ()


def with_ignored(
    options: Images, folder: Path | None, examples: Sequence[Example]
) -> tuple[Example, ...]:
    """Returns new images with their ignore masks, as the source of training images says.

    In a folder of masks, that of an image lies as the image does below the folder of the data set,
    and that of an image which is not there, as it does below `folder`, if that is given. Masks
    among the images are left out.
    Raises: FieldError for "data.ignore"; UserError where only masks are left, or two files could
    both be meant.
    """
    ignore, root = (getattr(options, field, "") for field in ("ignore", "root"))
    if not ignore:
        return tuple(examples)
    root = Path(root).expanduser()
    with within("data"):
        ignore = open_ignore(ignore, folder)
    skip = ignored_entries(ignore)
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
