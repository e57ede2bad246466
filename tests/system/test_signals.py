"""Signals are heard within seconds, also while one call of the compiled program runs."""

import signal
import subprocess
import sys
import time

import pytest
from helpers.launching import ROOT, environment

DEAF = """
import sys
from sparse_ad.system import signals
signals.UNHEARD, signals.STEP, signals._patience = 0.5, 2.0, 0.5
signals.end_cleanly()
import numpy as np
from concurrent.futures import ThreadPoolExecutor
def work():
    matrix = np.random.default_rng(0).normal(size=(6000, 6000))
    print("begun", flush=True)
    np.linalg.eigvals(matrix)  # one call of minutes
if sys.argv[1] == "step":
    with signals.StopSignals() as stop:
        stop.unsaved()
        work()
        if stop.asked():
            raise signals.Stopped(stop.noted, "saved")
else:
    work()
"""


def start(work):
    command = [sys.executable, "-c", DEAF, work]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=-1, stderr=-1, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_computation_with_nothing_to_save_ends_at_once(number):
    with start("other") as process:
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"{number.name}: stopped while computing; the same command goes on" in stderr


def test_a_step_has_its_time_and_a_second_signal_ends_it():
    with start("step") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "this step has 2 s to end; once more to stop at once" in stderr
