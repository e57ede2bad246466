"""The images that are to be scored: files, folders, trees of folders, or arrays in memory."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_ad.data.sources import tree
from sparse_ad.data.sources.layouts import MASKS
from sparse_ad.data.sources.masks import find_beside
from sparse_ad.errors import UserError
from sparse_ad.system.names import file_name, printable
from sparse_ad.types import Encoded, Example, LeftOut


class Inputs(NamedTuple):
    """What is to be scored."""

    folder: Path  # the names of the images are relative to it
    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]  # files that are no images


def list_inputs(given: Sequence[str], output: Path) -> Inputs:
    """Returns the images that are given: files as they are, folders with all folders below them.

    Names are relative to the one folder that is given, or else to the folder that holds all that
    is given. Files in `output` are not looked at: they are results. Masks in folders are left out.
    Raises: UserError where something given is not there, or there is no image.
    """
    expanded = (Path(each).expanduser() for each in given)
    paths = [Path(os.path.abspath(path)) for path in dict.fromkeys(expanded)]  # noqa: PTH100
    skip = {tree.entry(output), output.resolve()}
    if "" in given:
        raise UserError("--input: is empty; give images, or folders of them")
    for path in paths:
        if not path.exists():
            raise UserError(
                f"--input = {str(path)!r}: no such file or folder; give images, or folders of them"
            )
        if tree.skipped(path, skip):
            raise UserError(f"--output = '{output}': holds the input {path}; choose another folder")
    if not paths:
        raise UserError("--input: is missing; give images, or folders that hold images")
    base = paths[0] if len(paths) == 1 and paths[0].is_dir() else common_folder(paths)
    images, left_out = [], []
    for path in paths:
        found, others = tree.list_images(path, skip) if path.is_dir() else ([path], [])
        masks = list_masks(path, found) if path.is_dir() else {}
        images += [image for image in found if image not in masks]
        left_out += others + list(masks.items())
    if not images:
        raise UserError(f"{base}: no images; give {' '.join(tree.SUFFIXES)} files")
    images = sorted(dict.fromkeys(images), key=partial(relative_name, base))  # each once
    names = unique([relative_name(base, image) for image in images])
    examples = tuple(map(new_example, images, names))
    return Inputs(base, examples, tree.summarise(base, left_out))


def list_masks(folder: Path, images: list[Path]) -> dict[Path, str]:
    """Returns the masks among the images of a folder, and how they are known as such."""
    masks = dict.fromkeys(find_beside(images), "mask beside its image")
    for image in images:
        parents = image.relative_to(folder).parts[:-1]
        if any(tree.simple(name) in MASKS for name in parents):
            masks[image] = "in a folder of masks"
    return masks


def common_folder(paths: Sequence[Path]) -> Path:
    """Returns the deepest folder that holds all of the paths."""
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def relative_name(base: Path, image: Path) -> str:
    """Returns the name of an image as people see it."""
    return file_name(image.relative_to(base).as_posix())


def unique(names: list[str]) -> list[str]:
    """Returns sorted names, numbered where two that differ in their bytes are shown alike."""
    return [
        f"{name} ({index})" if index and name == names[index - 1] else name
        for index, name in enumerate(names)
    ]


def new_example(image: Encoded, name: str) -> Example:
    """Returns a new image, of which nothing is known, as an example."""
    return Example(image, 0, "", None, name, name)


def examples_of(images: Iterable[Any]) -> tuple[Example, ...]:
    """Returns images as examples: arrays [h w c], bytes of files, or paths.

    Raises: UserError where they are neither, or there is none.
    """
    if isinstance(images, str | bytes | Path):
        raise UserError(f"images = {images!r}: give a list of images")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        remedy = "give [n h w c], or a list of images [h w c]"
        raise UserError(f"images: array of shape {images.shape}: {remedy}")
    if not isinstance(images, Iterable):
        raise UserError(f"images: {type(images).__name__}: give an array [n h w c], or a list")
    images = [np.asarray(each) if isinstance(each, np.ndarray) else each for each in images]
    for index, image in enumerate(images):
        if not isinstance(image, str | bytes | Path | np.ndarray):
            kind = type(image).__name__
            raise UserError(f"images: {kind} at {index}: give NumPy arrays, paths or bytes")
    if not images:
        raise UserError("images: there are none; give one or more")
    return tuple(
        new_example(Path(image), printable(image))
        if isinstance(image, str | Path)
        else new_example(image, f"image {index}")
        for index, image in enumerate(images)
    )
