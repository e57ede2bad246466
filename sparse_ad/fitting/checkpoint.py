"""Checkpoints: the state of a fit and its position in the data, written whole or not at all.

Every checkpoint has the SHA-256 of its files beside them. Orbax alone restores a file in which a
bit of an array has changed without an error: uncompressible arrays are stored as they are.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from sparse_ad.devices import everywhere
from sparse_ad.errors import UserError
from sparse_ad.system.files import read_json, write_json
from sparse_ad.types import State

CHECKSUMS = "checksums.json"


class Position(NamedTuple):
    """Where a fit stood when its state was saved."""

    images: str  # fingerprint of the training images
    seconds: float  # spent on fitting so far
    size: tuple[int, ...] = ()  # (height, width) of the images; (): not known


class Checkpoints:
    """The last two checkpoints under a folder. Orbax writes each aside and renames it."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, create=True
        )
        try:
            self.manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot hold checkpoints ({error.strerror}); choose another --workdir"
            ) from error

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, None where there is none."""
        return self.manager.latest_step()

    def save(self, step: int, state: State, position: Position) -> None:
        """Saves the state after `step` steps, and the position.

        Raises: UserError where the disk refuses; earlier checkpoints are untouched.
        """
        items = ocp.args.Composite(  # a dict: Orbax takes no state that is one bare array
            state=ocp.args.StandardSave({"state": state}),
            position=ocp.args.JsonSave(position._asdict()),
        )
        try:
            self.manager.save(step, args=items, force=True)
            write_checksums(self.folder / str(step))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.folder}: checkpoint of step {step} could not be written "
                f"({_reason(error)}); free some space and give the same command to resume"
            ) from error

    def restore(self, step: int, like: State) -> tuple[State, Position]:
        """Returns the state, shaped and typed as `like`, and the position saved at `step`.

        Raises: UserError where the checkpoint does not fit `like` or is damaged.
        """
        folder = self.folder / str(step)
        verify_checksums(folder)
        like = jax.tree.map(on_these_devices, like)  # whatever devices it was saved from
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore({"state": like}), position=ocp.args.JsonRestore()
        )
        try:
            _check_shapes(folder / "state", like)  # first: Orbax's own errors outlive the call
            saved = self.manager.restore(step, args=items)
        except Exception as error:  # TensorStore raises it bare
            raise UserError(
                f"{folder}: not a checkpoint of this config, or damaged ({_reason(error)}); "
                "delete it or choose another --workdir"
            ) from error
        state = jax.tree.map(jax.numpy.asarray, saved["state"]["state"])
        return state, Position(**saved["position"])

    def position(self, step: int) -> Position:
        """Returns the position alone. Raises: UserError where it is damaged."""
        items = ocp.args.Composite(position=ocp.args.JsonRestore())
        try:
            return Position(**self.manager.restore(step, args=items)["position"])
        except Exception as error:
            raise UserError(
                f"{self.folder / str(step)}: is damaged ({_reason(error)}); delete it, and the "
                "same command resumes from the checkpoint before it"
            ) from error

    def close(self) -> None:
        self.manager.close()


def on_these_devices(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns shape and type of an array that every device of now holds whole."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere())


def _check_shapes(folder: Path, like: State) -> None:
    """Raises ValueError where the arrays stored have other shapes or types than `like`."""
    directory: Any = folder  # typed as another library's path, which this serves as
    stored = ocp.StandardCheckpointHandler().metadata(directory).tree
    found, wanted = (
        sorted((tuple(leaf.shape), str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
        for tree in (stored, like)
    )
    if found != wanted:
        raise ValueError(f"holds arrays {found}, this config needs {wanted}")


def write_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` to checksums.json in it."""
    digests: dict[str, Any] = {name: _digest(path) for name, path in _files(folder).items()}
    write_json(folder / CHECKSUMS, digests)


def verify_checksums(folder: Path) -> None:
    """Raises UserError naming the file that is missing or differs from what was written.

    A folder without checksums.json is accepted: the process may have been killed before it wrote
    them.
    """
    if not (folder / CHECKSUMS).exists():
        return
    known, files = read_json(folder / CHECKSUMS), _files(folder)
    for name, digest in sorted(known.items()):
        if name not in files or _digest(files[name]) != digest:
            state = "is damaged" if name in files else "is missing"
            raise UserError(
                f"{folder / name}: {state}; delete the folder {folder}, and the same command "
                "resumes from the checkpoint before it"
            )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.name != CHECKSUMS
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """Returns the beginning of a message: those of TensorStore go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
