"""Which mask belongs to which image of a folder."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from sparse_ad.data.decode import decode_mask, image_shape
from sparse_ad.data.reading import Decoding
from sparse_ad.errors import UserError
from sparse_ad.types import Example

ENDINGS = ("_mask", "_gt", "_label", "-mask")  # behind the name of the image
Name = tuple[str, ...]  # the folders of a file, and its name without suffix


def name_in(folder: Path, path: Path) -> Name:
    """Returns the name of a file relative to a folder."""
    return path.relative_to(folder).with_suffix("").parts


def image_names(folder: Path, mask: Path) -> list[Name]:
    """Returns the names that the image of a mask may have, the likeliest first."""
    *parents, stem = name_in(folder, mask)
    stems = [stem, *(stem.removesuffix(end) for end in ENDINGS if stem.endswith(end))]
    return [(*parents, stem) for stem in stems]


def find_beside(images: list[Path]) -> list[Path]:
    """Returns the files that are masks beside their images: a_mask.png where there is an a.png."""
    there = {(path.parent, path.stem) for path in images}
    return [
        path
        for path in images
        for end in ENDINGS
        if path.stem.endswith(end) and (path.parent, path.stem.removesuffix(end)) in there
    ]


def match_masks(
    test: Path, images: Sequence[Path], placed: list[tuple[Path, Path]], anywhere: bool = True
) -> tuple[dict[Path, Path], list[tuple[Path, str]]]:
    """Returns {image: mask}, and the masks that belong to no image for certain, with the reason.

    `placed`: each mask with the folder that holds masks as `test` holds images. A mask lies where
    its image does (kind/stem) or, where that is `anywhere`, in a folder for each image
    (kind/stem/mask), or flat, where the name of its image occurs once.
    Raises: UserError that names two files which both could be the image, or the mask.
    """
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for image in images:
        by_name[name_in(test, image)].append(image)
        by_stem[image.stem].append(image)
    found, unused = defaultdict(list), []
    for folder, mask in placed:
        names = image_names(folder, mask)
        parents = [names[0][:-1]] if anywhere else []
        owners = next((by_name[name] for name in names + parents if name in by_name), [])
        if anywhere and not owners and len(names[0]) == 1:
            owners = next((by_stem[name[-1]] for name in names if name[-1] in by_stem), [])
        if len(owners) > 1:
            raise UserError(f"{mask}: is a mask of {owners[0]} or of {owners[1]}: rename one")
        if owners:
            found[owners[0]].append(mask)
        else:
            unused.append((mask, "mask without its image"))
    for image, candidates in found.items():
        if len(candidates) > 1:
            raise UserError(
                f"{candidates[0]} and {candidates[1]}: both could be the mask of {image}; "
                "delete one, or join them"
            )
    return {image: candidates[0] for image, candidates in found.items()}, unused


def check_masks(examples: tuple[Example, ...], decoding: Decoding) -> tuple[Example, ...]:
    """Returns the examples without the masks of normal images, once every mask has been read.

    Raises: UserError that names a mask which cannot be read, has another size than its image, or
    marks pixels of a normal image.
    """
    return tuple(check_mask(example, decoding) for example in examples)


def check_mask(example: Example, decoding: Decoding) -> Example:
    """Returns the example, whose mask can be read; see `check_masks`."""
    if example.mask is None:
        return example
    try:
        shape = image_shape(example.image, options=decoding)
    except UserError:  # an unreadable image is skipped, and reported, when it is scored
        return example
    mask = decode_mask(example.mask, shape, shape, options=decoding)
    if example.label:
        return example
    if mask.any():
        raise UserError(
            f"{example.mask}: marks {mask.sum()} pixels of {example.path}, which is normal; "
            "correct the mask, or move the image"
        )
    return example._replace(mask=None)
