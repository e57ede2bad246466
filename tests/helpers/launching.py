"""Runs of launch.py as a user starts it, with a detector and images of almost no size."""

import json
import os
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.folders import contents as contents
from helpers.made_up import make_folder
from helpers.toy import mean_image

from sparse_ad import stages
from sparse_ad.data.sources.folder import Folder
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods import METHODS
from sparse_ad.options import section

ROOT = Path(__file__).resolve().parents[2]

TINY = (
    "--config=configs/sparse_patches.py",
    "--config.data.size=(16,16)",
    "--config.method.patches.size=4",
    "--config.method.atoms=4",
    "--config.method.coder.solver=fista",  # compiles in half the time of the default
    "--config.method.patches.per_image=16",
    "--config.method.minibatch=16",
    "--config.fit.batch_size=2",
    "--config.fit.epochs=4",
    "--config.fit.checkpoint_seconds=0",
    "--config.evaluation.bootstrap=20",
)

STRIKE = """
import importlib, os, runpy, signal, sys
place, call, number, *sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
module, _, name = place.rpartition(".")
module = importlib.import_module(module)
function, left = getattr(module, name), int(call)
def struck(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(number))
    return function(*args, **kwargs)
setattr(module, name, struck)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def tiny(root: Path) -> list[str]:
    """The flags of a run on the folder `root`."""
    return [*TINY, f"--config.data.root={root}"]


@dataclass(frozen=True)
class LearningToy:
    """A detector that compiles at once: it learns a mean image, with noise of its own."""

    rate: float = 0.5  # at which the mean follows the batches

    def build(self, features, shape):
        return learning_toy(self.rate)


def learning_toy(rate: float = 0.5):
    def update(key, state, maps):
        noise = 0.01 * jax.random.normal(key, state.shape)
        state = (1 - rate) * state + rate * maps["pixels"].mean(0) + noise
        return state, {"mean": jnp.mean(state)}

    return mean_image()._replace(update=update)


def toy_experiment(folder: Path) -> Experiment:
    """A run of three steps of the toy, on images made in the folder. METHODS must know "toy"."""
    return Experiment(
        "toy",
        data=Folder(root=str(make_folder(folder / "images")), size=(16, 16)),
        method=LearningToy(),
        fit=Fit(batch_size=8, epochs=6.0, checkpoint_seconds=0.0),  # the devices of the tests
        evaluation=Evaluation(batch_size=8, bootstrap=10),
    )


@contextmanager
def fitted_toy(folder: Path):
    """The experiment of a toy that is fitted in the folder "work" of `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "toy", LearningToy)
        experiment = toy_experiment(folder)
        stages.fit(experiment, folder / "work")
        yield experiment


def changed(experiment: Experiment, **fields) -> Experiment:
    """The experiment with other fields; a dot in a name is written as two underscores."""
    config = section(experiment)
    for name, value in fields.items():
        *path, last = name.split("__")
        part = config
        for step in path:
            part = part[step]
        part[last] = value
    return read_experiment(config)


def launch(*flags, cwd=ROOT, strike=None) -> subprocess.CompletedProcess:
    """Runs launch.py. `strike` = (function, call, signal): the signal comes at that call of it."""
    command = [sys.executable]
    if strike:
        place, call, number = strike
        command += ["-c", STRIKE, place, str(call), str(int(number))]
    command += [ROOT / "launch.py", *flags]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


REFUSED = """
import json, os, sys, tempfile, warnings
warnings.simplefilter("ignore")  # what JAX says of forks
script, *attempts = sys.argv[1:]
sys.path.insert(0, os.path.dirname(script))
import launch
from absl import app
from sparse_ad.studies import run
from sparse_ad.system import command_line
for flags in map(json.loads, attempts):
    with tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if not child:
            os.dup2(stderr.fileno(), 2)
            sys.argv = [script, *flags]
            try:
                app.run(launch.guarded, flags_parser=launch.parse)
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(end.code or 0)  # at once: no clearing up after libraries
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stderr.seek(0)
        print(json.dumps([code, stderr.read().decode()]))
"""


def launch_each(attempts, cwd) -> list[subprocess.CompletedProcess]:
    """Runs launch.py with each list of flags, in one process that forks: it imports JAX once."""
    command = [sys.executable, "-c", REFUSED, ROOT / "launch.py", *map(json.dumps, attempts)]
    process = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    outcomes = [json.loads(line) for line in process.stdout.splitlines()]
    return [
        subprocess.CompletedProcess(flags, code, "", stderr)
        for flags, (code, stderr) in zip(attempts, outcomes, strict=True)
    ]


def environment() -> dict[str, str]:
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def final_state(workdir: Path) -> list[np.ndarray]:
    """The arrays of the newest checkpoint."""
    import orbax.checkpoint as ocp

    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    with closing(ocp.CheckpointManager((workdir / "checkpoints").absolute())) as manager:
        state = manager.restore(manager.latest_step(), args=args)["state"]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def figures(workdir: Path) -> dict:
    """results.json without times and what a user may change between stop and resume."""
    results = json.loads((workdir / "results.json").read_text())
    del results["cost"], results["environment"], results["fit"]["seconds"]
    del results["config"]["fit"]["checkpoint_seconds"], results["config"]["data"]["workers"]
    return results


def assert_same_outcome(one: Path, other: Path) -> None:
    """The same parameters, metrics, figures and scores, bit for bit."""
    for left, right in zip(final_state(one), final_state(other), strict=True):
        assert left.dtype == right.dtype and left.tobytes() == right.tobytes()
    for name in ("metrics.jsonl", "scores.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert figures(one) == figures(other)


def assert_user_error(process: subprocess.CompletedProcess, *parts: str) -> None:
    """Exit code 2, and a last line on stderr that says "error: " and the parts; no traceback."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    line = process.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
