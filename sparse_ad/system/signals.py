"""How a kill is handled: files stay whole, and the same command resumes with the same bits.

SIGTERM or Ctrl-C while steps are taken: `StopSignals` notes the signal. The loop in
`fitting/loop.py` ends its call (about a second, or one step), saves a checkpoint and raises
`Stopped`. A second signal ends the run at once, without a checkpoint.

SIGTERM or Ctrl-C at any other time: `end_cleanly`, which `launch.py` calls, makes the signal raise
`Stopped` at once, and half-written files are removed. In either case `launch.py` prints one line,
and the exit code is 128 + the number of the signal.

SIGKILL (kill -9) or power loss: no code runs any more. Steps since the last checkpoint are lost;
`fit.checkpoint_seconds` is the time between two. A hidden .partial file may stay: nothing reads it.

Why the same command can always go on:

- Files are written beside their target, flushed and renamed (`system/files.py`): a kill leaves the
  old file, never half of the new one. The same holds for checkpoints, which also have checksums
  (`fitting/checkpoint.py`). Lines are appended to metrics.jsonl: a resumed fit drops one that was
  cut short, and the lines of steps after its checkpoint (`fitting/metrics_log.py`).
- A step depends on the state and its number alone: the number decides which images it sees and what
  it draws. A checkpoint holds both. So a resumed fit ends with the same bits, on the same device,
  as one that was never stopped.
- The stages after the fit start again from its result. Finished runs and cells of studies are kept.
"""

import signal
import sys

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal ended the run: the exit code is 128 + its number, as shells count."""

    def __init__(self, number: int, done: str = "stopped"):
        super().__init__(128 + number)
        self.message = f"{signal.Signals(number).name}: {done}; the same command goes on from there"


def end_cleanly() -> None:
    """Lets the signals raise `Stopped`, so that files half-written are removed."""

    def stop(number, _frame):
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)


class StopSignals:
    """Within it, a signal is only noted in `asked`; a second one ends at once."""

    def __enter__(self):
        self.asked = 0
        self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, number, _frame):
        if self.asked:
            raise Stopped(number)
        self.asked = number
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
