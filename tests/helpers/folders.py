"""What lies in a folder."""

from pathlib import Path


def leftovers(folder: Path) -> list[str]:
    """Returns the files that an interrupted write would leave."""
    return [str(path) for path in folder.rglob("*") if ".partial" in path.name]


def contents(folder: Path) -> dict[Path, bytes]:
    """Returns every file below a folder, and what it holds."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
