"""Checkpoints: the state of a fit and its place in the data, written whole or not at all."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sparse_ad.errors import UserError
from sparse_ad.types import State


class Checkpoints:
    """The last two checkpoints under a folder. Orbax writes each aside and renames it."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        try:
            self.manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=2, enable_async_checkpointing=False, create=True
                ),
            )
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
        try:
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
                ),
                force=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.folder}: checkpoint of step {step} could not be written "
                f"({str(error).splitlines()[0][:200]}); free some disk and run the command again"
            ) from error

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """Returns the state, shaped and typed as `like`, and the position saved at `step`.

        Errors: UserError where the checkpoint does not fit `like` or is damaged.
        """
        try:
            saved = self.manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), position=ocp.args.JsonRestore()
                ),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder / str(step)}: not a checkpoint of this config "
                f"({str(error).splitlines()[0][:200]}); choose another --workdir or delete it"
            ) from error
        return jax.tree.map(jax.numpy.asarray, saved["state"]), saved["position"]

    def close(self) -> None:
        self.manager.close()
