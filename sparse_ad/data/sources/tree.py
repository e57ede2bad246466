"""The files of a folder and of all folders below it: images, and what is left out and why."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from sparse_ad.errors import UserError
from sparse_ad.system.names import printable
from sparse_ad.types import LeftOut

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".gif")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm")

RESULTS = ("fit.json", "results.json", "predictions.json")

log = logging.getLogger(__name__)

Skip = Collection[Path]  # entries that are not listed; see `entry`


def simple(name: str) -> str:
    """Returns a name without case and punctuation: "Ground_Truth" and "ground-truth" are one."""
    return "".join(filter(str.isalnum, name.casefold()))


def entry(path: Path) -> Path:
    """Returns where a file or folder is listed: links are followed in its parents alone."""
    return path.parent.resolve() / path.name


def skipped(path: Path, skip: Skip) -> bool:
    """Returns whether a file or folder, or a folder above it, is in `skip`."""
    real = entry(path)
    return any(each in skip for each in (real, *real.parents))


def find_folder(parent: Path, names: Collection[str], skip: Skip = ()) -> Path | None:
    """Returns the folder in `parent` that has one of the (simple) names; None where there is none.

    Raises: UserError that names two folders which both could be meant.
    """
    found = [path for path in visible_folders(parent, skip) if simple(path.name) in names]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]}: both could be meant; rename or move one")
    return found[0] if found else None


def visible_folders(parent: Path, skip: Skip = ()) -> list[Path]:
    """Returns the folders in a folder, sorted, but for hidden ones."""
    return [path for path in visible_entries(parent, skip) if path.is_dir()]


def visible_files(parent: Path, skip: Skip = ()) -> list[Path]:
    """Returns the files in a folder, sorted, but for hidden ones; not those in its folders."""
    return [path for path in visible_entries(parent, skip) if path.is_file()]


def visible_entries(parent: Path, skip: Skip = ()) -> list[Path]:
    """Returns the files and folders in a folder, sorted, but for hidden ones."""
    visible = (path for path in parent.iterdir() if is_visible(path) and not holds_results(path))
    return sorted(path for path in visible if not skip or entry(path) not in skip)


def is_visible(path: Path) -> bool:
    """Returns whether neither people nor systems mean a file to be hidden."""
    return not path.name.startswith(".") and path.name not in ("Thumbs.db", "desktop.ini")


def holds_results(folder: Path) -> bool:
    """Returns whether a folder holds results of this program, which are no data; warns of it."""
    if any((folder / name).is_file() for name in RESULTS):
        warn_of_results(folder)
        return True
    return False


@cache
def warn_of_results(folder: Path) -> None:
    """Warns of a folder once."""
    log.warning("%s: holds results of a run or a prediction, and is left out", folder)


def walk(folder: Path, skip: Skip = ()) -> Iterator[Path]:
    """Yields all visible files below a folder, sorted; a folder that links lead to twice, once."""
    seen = {str(path) for path in skip}
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        below = (Path(parent, name) for name in folders if is_visible(Path(name)))
        folders[:] = sorted(path.name for path in below if not holds_results(path))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        left = [name for name in files if not skip or Path(real, name) not in skip]
        yield from (path for name in sorted(left) if is_visible(path := Path(parent, name)))


def walk_besides(root: Path, folders: Collection[Path | None], skip: Skip = ()) -> Iterator[Path]:
    """Yields all visible files below a folder that lie in none of the folders."""
    for path in visible_entries(root, skip):
        if path not in folders:
            yield from walk(path, skip) if path.is_dir() else (path,)


def is_image(path: Path) -> bool:
    """Returns whether a file can be read as an image, going by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def why_not(path: Path) -> str:
    """Returns why a file is no image."""
    if not path.exists():
        return "broken link"
    return f"no image: {path.suffix or 'no suffix'}"


def list_images(folder: Path, skip: Skip = ()) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Returns the images below a folder, and the other files there with the reason."""
    files = list(walk(folder, skip))
    return [path for path in files if is_image(path)], [
        (path, why_not(path)) for path in files if not is_image(path)
    ]


def summarise(root: Path, files: Iterable[tuple[Path, str]]) -> tuple[LeftOut, ...]:
    """Returns how many files are left out for each reason, and the first of them."""
    files = sorted(files, key=lambda file: (file[1], file[0]))
    counts = Counter(reason for _, reason in files)
    first = {reason: path for path, reason in reversed(files)}
    return tuple(
        LeftOut(printable(reason), count, printable(first[reason].relative_to(root).as_posix()))
        for reason, count in counts.items()
    )
