"""Checkpoints: the state of a fit and its place in the data, written whole or not at all."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sparse_ad.errors import UserError
from sparse_ad.fitting.checksums import verify_checksums, write_checksums
from sparse_ad.types import State


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

    def save(self, step: int, state: State, position: dict[str, Any]) -> None:
        """Saves the state after `step` steps, and where the data and the clock stand.

        Errors: UserError where the disk refuses; earlier checkpoints are untouched.
        """
        items = ocp.args.Composite(  # a dict: Orbax takes no state that is one bare array
            state=ocp.args.StandardSave({"state": state}), position=ocp.args.JsonSave(position)
        )
        try:
            self.manager.save(step, args=items, force=True)
            write_checksums(self.folder / str(step))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.folder}: checkpoint of step {step} could not be written "
                f"({_reason(error)}); make room, and the same command goes on"
            ) from error

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """Returns the state, shaped and typed as `like`, and the position saved at `step`.

        Errors: UserError where the checkpoint does not fit `like` or is damaged.
        """
        folder = self.folder / str(step)
        verify_checksums(folder)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore({"state": like}), position=ocp.args.JsonRestore()
        )
        try:
            saved = self.manager.restore(step, args=items)
        except Exception as error:  # TensorStore raises it bare
            raise UserError(
                f"{folder}: not a checkpoint of this config, or damaged ({_reason(error)}); "
                "delete it or choose another --workdir"
            ) from error
        return jax.tree.map(jax.numpy.asarray, saved["state"]["state"]), saved["position"]

    def close(self) -> None:
        self.manager.close()


def _reason(error: Exception) -> str:
    """Returns the beginning of a message: those of TensorStore go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
