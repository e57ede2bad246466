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
not saved yet.

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

import os
import select
import signal
import sys
import threading

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

    def stop(number, _frame):
        _heard.set()
        raise Stopped(number)

    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(ours,), name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, stop)


def watch(arrived: int) -> None:
    """Ends the process when a signal is not heard in time, or a second one comes.

    `arrived`: the end of a pipe from which the numbers of signals can be read.
    """
    while True:
        number = os.read(arrived, 1)[0]
        if number not in SIGNALS or _heard.wait(UNHEARD):
            continue
        name = signal.Signals(number).name
        if _patience > UNHEARD:
            _say(
                f"{name}: the step at work has {_patience:.0f} s to end; once more to stop at once"
            )
            _wait(arrived, _patience - UNHEARD)
        if not _heard.is_set():
            _say(f"{name}: stopped while computing; {RESUMES}")
            os._exit(128 + number)


def _wait(arrived: int, seconds: float) -> None:
    """Waits until the program ends by itself, a second signal comes, or the time is over."""
    for _ in range(round(10 * seconds)):
        if _heard.is_set() or select.select([arrived], [], [], 0.1)[0]:
            return


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
        """Returns the number of the signal that came, 0 for none. Who asks will end by himself."""
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
