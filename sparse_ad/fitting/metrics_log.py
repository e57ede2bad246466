"""metrics.jsonl: the metrics of each step of a fit, a line a step, through kills and resumes."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparse_ad.errors import UserError
from sparse_ad.fitting.tensorboard import EventLog
from sparse_ad.system.files import append_lines, write_text

REMEDY = (
    "lower method.optimizer.learning_rate where the detector trains a network, look for corrupt "
    "images, or for a field of method.* that is far from its default"
)

Line = dict[str, Any]  # {"step": ..., name: value}

log = logging.getLogger(__name__)


class MetricsLog:
    """Lines of {"step": ..., name: value}, also as TensorBoard events in a folder beside the file.

    Written one call late, so that the fit never waits for a step.
    """

    def __init__(self, path: Path, done: int):
        """Opens the log of a fit after `done` steps; `last` holds the metrics of the last step."""
        self.path = path
        self.pending: tuple[int, Mapping[str, Any], int] | None = None
        self.last: dict[str, float] = {}
        self.events = EventLog(path.parent / "tensorboard", done + 1)
        if not path.exists():
            return
        text = path.read_text("utf-8", errors="replace")
        # Steps after the checkpoint will be done again; a kill may have cut a line short.
        lines = {line["step"]: line for line in parse_lines(text) if line["step"] <= done}
        kept = "".join(json.dumps(lines[step]) + "\n" for step in sorted(lines))
        if kept != text:
            write_text(path, kept)
        if len(lines) < done:
            log.warning("%s: %d of %d steps are missing", path, done - len(lines), done)
        self.last = _values(lines.get(done, {}))

    def add(self, step: int, info: Mapping[str, Any], count: int = 1) -> int:
        """Queues the metrics of `count` steps starting at `step`, and writes those queued before.

        `info` has scalars, or one entry per step; entries beyond `count` are ignored.
        Returns how many steps were written (and so finished). Raises: as `flush`.
        """
        written = self.flush()
        self.pending = step, info, count
        return written

    def flush(self) -> int:
        """Writes what is queued; returns how many steps.

        Raises: UserError for a value that is not finite, naming the first such step, which is not
        written.
        """
        if self.pending is None:
            return 0
        (first, info, count), self.pending = self.pending, None
        columns = {name: np.atleast_1d(values) for name, values in jax.device_get(info).items()}
        lines = [
            {"step": first + row, **{name: float(column[row]) for name, column in columns.items()}}
            for row in range(count)
        ]
        good = next((row for row, line in enumerate(lines) if _not_finite(line)), count)
        self._write(lines[:good])
        if good < count:
            name = _not_finite(lines[good])[0]
            raise UserError(f"step {first + good}: {name} is {lines[good][name]}; {REMEDY}")
        return count

    def sync(self) -> None:
        """Writes everything that is queued to the disk. Raises: as `flush`."""
        self.flush()
        self.events.flush()

    def close(self) -> None:
        """Closes the event file; what is still queued is dropped."""
        self.events.close()

    def _write(self, lines: list[Line]) -> None:
        if lines:
            append_lines(self.path, lines)
            self.events.add(lines)
            self.last = _values(lines[-1])


def read_metrics(path: Path) -> list[Line]:
    """Returns the lines of a log without the damaged ones; none where there is no file."""
    return parse_lines(path.read_text("utf-8", errors="replace")) if path.exists() else []


def parse_lines(text: str) -> list[Line]:
    """Returns the lines of a log without the damaged ones."""
    return [line for line in map(_parse, text.splitlines()) if line["step"] > 0]


def _parse(line: str) -> Line:
    """Returns a line of the log; {"step": 0} for one that is damaged."""
    try:
        content = json.loads(line)
        return content if isinstance(content["step"], int) else {"step": 0}
    except (ValueError, KeyError, TypeError):
        return {"step": 0}


def _values(line: Line) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "step"}


def _not_finite(line: Line) -> list[str]:
    """Returns the names of the values that are not finite."""
    return [name for name, value in line.items() if not np.isfinite(value)]
