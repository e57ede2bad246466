"""TensorBoard event files of a fit: `tensorboard --logdir WORKDIR` shows its curves.

tensorboardX's record format and messages, but not its SummaryWriter: that one writes in a thread,
does not wait for it when flushed, and blocks for ever once the disk was full.
"""

import importlib
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparse_ad.system.files import explained


class EventLog:
    """One event file for each start of a fit; TensorBoard ignores its steps in earlier files.

    Files are named by their first step and sort in the order in which TensorBoard must read them.
    """

    def __init__(self, folder: Path, first: int):
        self.path, self.first = folder / f"events.out.tfevents.{first:010d}", first
        self.writer: Any = None

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Adds lines of {"step": ..., name: value}. Raises: UserError where the disk refuses."""
        # Not needed where a fit is finished; and it loads PyTorch where that is installed.
        Summary = protobuf("summary_pb2").Summary
        with explained(self.path):
            for line in lines:
                values = [
                    Summary.Value(tag=name, simple_value=value)
                    for name, value in line.items()
                    if name != "step"
                ]
                self._write(step=int(line["step"]), summary=Summary(value=values))

    def flush(self) -> None:
        """Writes what was added to the disk. Raises: as `add`."""
        if self.writer:
            with explained(self.path):
                self.writer.flush()

    def close(self) -> None:
        """Closes the file. The last checkpoint has written what matters of it to the disk."""
        if self.writer:
            with suppress(OSError):
                self.writer.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.record_writer import RecordWriter

        event = protobuf("event_pb2")
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = RecordWriter(str(self.path))
            self._write(step=self.first, file_version="brain.Event:2")
            self._write(
                step=self.first, session_log=event.SessionLog(status=event.SessionLog.START)
            )
        content = event.Event(wall_time=time.time(), **fields)
        self.writer.write(content.SerializeToString())


def protobuf(name: str) -> Any:
    """Returns a module of TensorBoard's messages, whose classes are made when it is imported."""
    return importlib.import_module(f"tensorboardX.proto.{name}")
