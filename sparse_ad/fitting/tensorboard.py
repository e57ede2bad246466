"""TensorBoard event files of a fit: `tensorboard --logdir WORKDIR` shows its curves."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sparse_ad.system.files import explained


class EventLog:
    """A file for each start of a fit, named by its first step: those steps count no more in others.

    Files are named so that they sort as they were begun, which is how TensorBoard reads them.
    """

    def __init__(self, folder: Path, first: int):
        self.path, self.first, self.writer = (
            folder / f"events.out.tfevents.{first:010d}",
            first,
            None,
        )

    def add(self, lines: Iterable[dict[str, float]]) -> None:
        """Adds lines of {"step": ..., name: value}. Raises: UserError where the disk refuses."""
        # Not needed where a fit is finished; and it loads PyTorch where that is installed.
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        with explained(self.path):
            writer = self.writer or self._open()
            for line in lines:
                values = [
                    Summary.Value(tag=name, simple_value=value)
                    for name, value in line.items()
                    if name != "step"
                ]
                event = Event(
                    wall_time=time.time(), step=line["step"], summary=Summary(value=values)
                )
                writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Brings what was added to the disk. Raises: as `add`."""
        if self.writer:
            with explained(self.path):
                self.writer.flush()

    def close(self) -> None:
        """Closes the file. What matters of it was brought to the disk with the last checkpoint."""
        if self.writer:
            with suppress(OSError):
                self.writer.close()

    def _open(self):
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = RecordWriter(str(self.path))
        begin = Event(wall_time=time.time(), step=self.first, file_version="brain.Event:2")
        start = SessionLog(status=SessionLog.START)  # steps from here on replace those before
        again = Event(wall_time=time.time(), step=self.first, session_log=start)
        for event in (begin, again):
            self.writer.write(event.SerializeToString())
        return self.writer
