"""SIGTERM and Ctrl-C: a run ends with all files whole, and says how to go on."""

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
