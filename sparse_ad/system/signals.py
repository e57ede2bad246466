"""How a kill is handled: files stay whole, and the same command resumes with the same bits.

SIGTERM or Ctrl-C while steps are taken: `StopSignals` notes the signal. The loop in
`fitting/loop.py` ends its call (about a second, or one step), saves a checkpoint and raises
`Stopped`. A second signal ends the run at once, without a checkpoint.

SIGTERM or Ctrl-C at any other time: `end_cleanly`, which `launch.py` calls, makes the signal raise
`Stopped` at once, and half-written files are removed. In either case `launch.py` prints one line,
and the exit code is 128 + the number of the signal.

A signal while the program compiles or computes: Python hears of signals between two calls only, and
one call may take minutes. A thread (`watch`) hears of them at once. It ends the process where
nobody else does: after UNHEARD seconds, or after STEP seconds where steps were taken that are
not saved yet; after a second signal, UNHEARD seconds later in any case.

SIGKILL (kill -9) or power loss: no code runs any more. Steps since the last checkpoint are lost;
`fit.checkpoint_seconds` is the time between two. A hidden .partial file may stay: nothing reads it.

Why the same command can always go on:

- Files are written beside their target, flushed and renamed (`system/files.py`): a kill leaves the
  old file, never half of the new one. The same holds for checkpoints, which also have checksums
  (`fitting/checkpoint.py`). Lines are appended to metrics.jsonl: a resumed fit drops one that was
  cut short, and the lines of steps after its checkpoint (`fitting/metrics_log.py`). The same holds
  for scores.csv of a prediction (`prediction/progress.py`).
- A step depends on the state and its number alone: the number decides which images it sees and what
  it draws. A checkpoint holds both. So a resumed fit ends with the same bits, on the same device,
  as one that was never stopped.
- The other stages start again from the result of the fit, a prediction with the first image that
  has no score. Finished runs and cells of studies are kept.
- A folder of results is locked while it is written to (`system/lock.py`); the lock ends with its
  process.
"""

import itertools
import os
import select
import signal
import sys
import threading
import time
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
UNHEARD = 2.0  # seconds after which `watch` ends a process that has nothing to save
STEP = 20.0  # the same while a step is at work: it is saved when it ends
RESUMES = "the same command goes on from there"

_heard = threading.Event()  # the program ends by itself
_patience = UNHEARD


class Stopped(SystemExit):
    """A signal ended the run: the exit code is 128 + its number, as shells count."""

    def __init__(self, number: int, done: str = "stopped"):
        super().__init__(128 + number)
        self.message = f"{signal.Signals(number).name}: {done}; {RESUMES}"


def end_cleanly() -> None:
    """Lets the signals raise `Stopped`, so that half-written files are removed.

    Where the program cannot hear of them, `watch` ends it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(reader,), name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, raise_stopped)


def raise_stopped(number: int, _frame: Any) -> None:
    """Ends the program by an exception: the handler of a signal."""
    _heard.set()
    raise Stopped(number)


def watch(pipe: int) -> None:
    """Ends the process when a signal is not heard in time, or after a second one.

    `pipe`: the end from which the numbers of signals can be read.
    """
    for count in itertools.count(1):
        number = os.read(pipe, 1)[0]
        while number not in SIGNALS:
            number = os.read(pipe, 1)[0]
        name = signal.Signals(number).name
        heard = _heard.wait(UNHEARD)
        if count == 1 and not heard and _patience > UNHEARD:
            _say(f"{name}: this step has {_patience:.0f} s to end; once more to stop at once")
            heard = _wait(pipe, _patience - UNHEARD)
        if count > 1 and heard:
            time.sleep(UNHEARD)  # the program was about to end, but may be held up
        if count > 1 or not heard:
            _say(f"{name}: stopped while computing; {RESUMES}")
            os._exit(128 + number)


def _wait(pipe: int, seconds: float) -> bool:
    """Returns whether the program ends by itself; False after a second signal or all the time."""
    for _ in range(round(10 * seconds)):
        if _heard.is_set():
            return True
        if select.select([pipe], [], [], 0.1)[0]:
            return False
    return False


def _say(message: str) -> None:
    print(f"\n{message}", file=sys.stderr, flush=True)


def leave(stopped: Stopped) -> None:
    """Ends the process now: the threads of libraries may not hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(stopped.code or 0))


class StopSignals:
    """Within it, a signal is only noted; a second one ends at once."""

    def __enter__(self):
        self.noted = 0
        self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def unsaved(self) -> None:
        """Says that steps were taken, so that it is worth waiting for the end of the next."""
        global _patience
        _patience = STEP

    def asked(self) -> int:
        """Returns the number of the signal received, 0 for none; the caller then ends the run."""
        if self.noted:
            _heard.set()
        return self.noted

    def _note(self, number, _frame):
        if self.noted:
            _heard.set()
            raise Stopped(number)
        self.noted = number
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    def __exit__(self, *_):
        global _patience
        _patience = UNHEARD
        for number, handler in self.before.items():
            signal.signal(number, handler)
