"""metrics.jsonl: what each step of a fit measured, a line a step, through kills and resumes."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparse_ad.errors import UserError
from sparse_ad.fitting.tensorboard import EventLog
from sparse_ad.system.files import append_lines, write_text

REMEDY = (
    "lower fit.learning_rate where the method learns by gradients, look for corrupt images, or "
    "for a field of method.* that is far from its default"
)

log = logging.getLogger(__name__)


class MetricsLog:
    """Lines of {"step": ..., name: value}, also as TensorBoard events in a folder beside the file.

    Written a call late, so that no step is waited for.
    """

    def __init__(self, path: Path, done: int):
        """Opens the log of a fit that has done so many steps; `last` is what the last measured."""
        self.path, self.pending, self.last = path, None, {}
        self.events = EventLog(path.parent / "tensorboard", done + 1)
        if not path.exists():
            return
        text = path.read_text("utf-8", errors="replace")
        # Lines past the checkpoint belong to steps that will be done again; a kill cuts one short.
        lines = {line["step"]: line for line in parse_lines(text) if line["step"] <= done}
        kept = "".join(json.dumps(lines[step]) + "\n" for step in sorted(lines))
        if kept != text:
            write_text(path, kept)
        if len(lines) < done:
            log.warning("%s: %d of %d steps are missing", path, done - len(lines), done)
        self.last = _values(lines.get(done, {}))

    def add(self, step: int, info: dict[str, Any], count: int = 1) -> int:
        """Takes in what `count` steps from `step` on measured, and writes what is pending.

        Of one step, or of several, [t]; what there is beyond `count` is left out.
        Returns how many steps were written, which are over. Raises: as `flush`.
        """
        written = self.flush()
        self.pending = step, info, count
        return written

    def flush(self) -> int:
        """Writes what is pending; returns how many steps. Raises: UserError for a value that is
        not finite, naming the first step, which is not written.
        """
        if self.pending is None:
            return 0
        (first, info, count), self.pending = self.pending, None
        columns = {name: np.atleast_1d(each) for name, each in jax.device_get(info).items()}
        lines = [
            {"step": first + row, **{name: float(column[row]) for name, column in columns.items()}}
            for row in range(count)
        ]
        good = next((row for row, line in enumerate(lines) if _wrong(line)), count)
        self._write(lines[:good])
        if good < count:
            name = _wrong(lines[good])[0]
            raise UserError(f"step {first + good}: {name} is {lines[good][name]}; {REMEDY}")
        return count

    def sync(self) -> None:
        """Writes all there is, and brings it to the disk. Raises: as `flush`."""
        self.flush()
        self.events.flush()

    def _write(self, lines: list[dict[str, float]]) -> None:
        if lines:
            append_lines(self.path, lines)
            self.events.add(lines)
            self.last = _values(lines[-1])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log, those that are damaged left out; none where there is no file."""
    return parse_lines(path.read_text("utf-8", errors="replace")) if path.exists() else []


def parse_lines(text: str) -> list[dict[str, Any]]:
    """Returns the lines of a log as they are, those that are damaged left out."""
    return [line for line in map(_parse, text.splitlines()) if line["step"] > 0]


def _parse(line: str) -> dict[str, Any]:
    """Returns a line of the log; {"step": 0} for one that is damaged."""
    try:
        content = json.loads(line)
        return content if isinstance(content["step"], int) else {"step": 0}
    except (ValueError, KeyError, TypeError):
        return {"step": 0}


def _values(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "step"}


def _wrong(line: dict[str, float]) -> list[str]:
    """Returns the names of the values that are not finite."""
    return [name for name, value in line.items() if not np.isfinite(value)]
