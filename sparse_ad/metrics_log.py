"""metrics.jsonl: what each step of a fit measured, a line a step, through kills and resumes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from sparse_ad.errors import UserError
from sparse_ad.files import append_line, write_text

log = logging.getLogger(__name__)


class MetricsLog:
    """Lines of {"step": ..., name: value}; written a step late, so that no step is waited for."""

    def __init__(self, path: Path, done: int):
        """Opens the log of a fit that has done so many steps; `last` is what the last measured."""
        self.path, self.pending, self.last = path, None, {}
        if not path.exists():
            return
        text = path.read_text("utf-8", errors="replace")
        # Lines past the checkpoint belong to steps that will be done again; a kill cuts one short.
        lines = {
            line["step"]: line
            for line in map(_parse, text.splitlines())
            if 0 < line["step"] <= done
        }
        kept = "".join(json.dumps(lines[step]) + "\n" for step in sorted(lines))
        if kept != text:
            write_text(path, kept)
        if len(lines) < done:
            log.warning("%s: %d of %d steps are missing", path, done - len(lines), done)
        self.last = {name: value for name, value in lines.get(done, {}).items() if name != "step"}

    def add(self, step: int, info: dict[str, Any]) -> None:
        """Takes in what a step measured, and writes what the step before did."""
        self.flush()
        self.pending = step, info

    def flush(self) -> None:
        """Writes what is pending. Raises: UserError for a value that is not finite."""
        if self.pending is None:
            return
        step, info = self.pending
        self.last = {name: float(value) for name, value in info.items()}
        wrong = [name for name, value in self.last.items() if not np.isfinite(value)]
        if wrong:
            raise UserError(
                f"step {step}: {wrong[0]} is {self.last[wrong[0]]}; look for corrupt images, or "
                "for a field of method.* that is far from its default"
            )
        append_line(self.path, {"step": step, **self.last})
        self.pending = None


def _parse(line: str) -> dict[str, Any]:
    """Returns a line of the log; {"step": 0} for one that is damaged."""
    try:
        content = json.loads(line)
        return content if isinstance(content["step"], int) else {"step": 0}
    except (ValueError, KeyError, TypeError):
        return {"step": 0}
