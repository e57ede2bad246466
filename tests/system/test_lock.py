"""One process at a time in a folder; a lock ends with its owner, however that ends."""

import os
import subprocess
import sys

import pytest
from helpers.launching import LearningToy, toy_experiment

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.methods import METHODS
from sparse_ad.system.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from sparse_ad.system.lock import locked
with locked("workdir", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_is_first(holder, tmp_path):
    message = rf"workdir = '{tmp_path}': is in use by process {holder.pid} on .*; wait until"
    with pytest.raises(UserError, match=message), locked("workdir", tmp_path):
        raise AssertionError("two hold one lock")


def test_a_lock_ends_with_its_owner(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with locked("workdir", tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_nothing_was_written_to_does_not_stay(tmp_path):
    with locked("output", tmp_path / "new"):
        pass
    with locked("output", tmp_path):
        pass
    assert tmp_path.exists() and not list(tmp_path.iterdir())


def test_a_run_holds_its_workdir(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", LearningToy)
    experiment, work = toy_experiment(tmp_path), tmp_path / "work"
    with locked("workdir", work):
        for call in (stages.run, stages.fit):
            with pytest.raises(UserError, match="is in use by process"):
                call(experiment, work)
    assert not (work / "config.json").exists()
    stages.run(experiment, work)
    with locked("workdir", work), pytest.raises(UserError, match="is in use"):
        stages.evaluate_fitted(experiment, work)
