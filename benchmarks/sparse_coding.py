"""Sparse coding of texture patches: our solvers beside scikit-learn's and SPAMS's.

  python -m benchmarks.sparse_coding [--repeats=3] [--skip NAME ...] [--output=FILE]

The 15,625 patches of 16x16 at stride 4 of scikit-image's brick, mean removed, divided by their
global std; 200 unit atoms learned from them; penalty 1. Contenders take turns in one
process; seconds are medians, compilation apart. Gaps and objectives of all are computed by one
function in float64. Targets: homotopy at least 10 times faster than lasso_lars, faster than
lasso_cd, all relative gaps <= 1e-4.

The floor of ours: the operations that the steps taken must make, at the rate of this machine's
float32 products, or the bytes of signals, codes and dictionary at its copying rate, if more.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import spams
from scipy.sparse import csc_matrix
from sklearn.decomposition import sparse_encode

from benchmarks import peers
from sparse_ad.sparse.solvers import LASSO_SOLVERS
from sparse_ad.sparse.solvers.stopping import CHECK_EVERY

MAX_STEPS = 20_000
TOLERANCE = 9.5e-5  # in float32: what float64 then measures is at most 1e-4


class Problem(NamedTuple):
    """What all contenders solve."""

    dictionary: np.ndarray  # [k d]
    signals: np.ndarray  # [m d]


class Contender(NamedTuple):
    """A way to solve it."""

    call: Callable[[], Any]
    compile_seconds: float | None = None  # None: nothing is compiled


def prepare(seed: int, count: int) -> Problem:
    """Returns a dictionary learned from all patches, and `count` patches to code; 0: all."""
    patches = peers.brick()
    batches = peers.minibatches(patches, 3, seed)
    dictionary = np.asarray(peers.learner()(jax.random.key(seed), batches))
    order = np.random.default_rng(0).permutation(len(patches))
    return Problem(dictionary, patches[order[:count]] if count else patches)


def contenders(problem: Problem, skip: list[str], jobs: int) -> dict[str, Contender]:
    """Returns all contenders but those to skip; ours are compiled."""
    peer = {
        "lasso_lars": lambda: scikit_learn(problem, "lasso_lars", jobs),
        "lasso_cd": lambda: scikit_learn(problem, "lasso_cd", jobs),
        "spams float64": lambda: spams_lasso(problem, np.float64),
        "spams float32": lambda: spams_lasso(problem, np.float32),
    }
    made = {name: Contender(make()) for name, make in peer.items() if name not in skip}
    return made | {name: ours(problem, name) for name in LASSO_SOLVERS if name not in skip}


def scikit_learn(problem: Problem, algorithm: str, jobs: int) -> Callable[[], Any]:
    exact = problem.signals.astype(np.float64), problem.dictionary.astype(np.float64)
    return lambda: sparse_encode(
        *exact, algorithm=algorithm, alpha=peers.PENALTY, max_iter=10_000, n_jobs=jobs
    )


def spams_lasso(problem: Problem, dtype) -> Callable[[], Any]:
    parts = problem.signals, problem.dictionary
    columns = [np.asfortranarray(part.T.astype(dtype)) for part in parts]
    return lambda: spams.lasso(*columns, lambda1=peers.PENALTY, mode=2, numThreads=os.cpu_count())


def ours(problem: Problem, solver: str) -> Contender:
    """Returns a solver of ours, compiled and warmed up."""
    code = jax.jit(peers.coder(solver=solver, max_steps=MAX_STEPS, tolerance=TOLERANCE))
    arrays = jax.device_put(tuple(problem))
    seconds, compiled = peers.seconds_of(lambda: code.lower(*arrays).compile())
    jax.block_until_ready(compiled(*arrays))
    return Contender(lambda: compiled(*arrays), seconds)


def dense(result) -> np.ndarray:
    """Returns anyone's codes as an array [m k]."""
    if isinstance(result, csc_matrix):
        return np.asarray(result.T.todense())
    return np.asarray(getattr(result, "code", result))


def operations(solver: str, steps: float, problem: Problem) -> float:
    """The multiplications and additions of all signals' steps, their D x and certificates."""
    count, (k, d) = len(problem.signals), problem.dictionary.shape
    certificate = 4 * k * d
    step = {
        "homotopy": 2 * k * k,
        "coordinate_descent": 4 * k * k + certificate / CHECK_EVERY,
        "fista": 2 * k * k + certificate / CHECK_EVERY,
        "ista": 2 * k * k + certificate / CHECK_EVERY,
    }[solver]
    return steps * step + count * (2 * k * d + certificate)


def least_bytes(problem: Problem) -> float:
    """The bytes of signals, codes and dictionary."""
    dictionary, signals = problem
    return 4.0 * (signals.size + len(signals) * len(dictionary) + dictionary.size)


def quality(problem: Problem, result) -> dict[str, float]:
    """Returns how good anyone's codes are, measured in float64."""
    codes = dense(result)
    objective, gap = peers.certificates(*problem, codes)
    return {
        "largest gap": float(gap.max()),
        "gap 99.9 %": float(np.quantile(gap, 0.999)),
        "objective": float(objective.mean()),
        "nonzeros": float((codes != 0.0).sum(axis=1).mean()),
    }


def work(problem: Problem, solver: str, result, seconds: float, machine: peers.Machine) -> dict:
    """Returns the steps that a solver of ours took, and what they cost at least."""
    steps = np.asarray(result.steps, np.float64)
    least = operations(solver, steps.sum(), problem)
    floor = max(
        least / machine.operations_per_second, least_bytes(problem) / machine.bytes_per_second
    )
    return {
        "steps": float(steps.mean()),
        "floor s": floor,
        "over floor": seconds / floor,
        "operations": least,
        "converged": float(np.mean(result.converged)),
        "most steps": int(steps.max()),
    }


def make_rows(problem: Problem, made: dict[str, Contender], repeats: int, machine: peers.Machine):
    """Returns a row for each contender, timed in turns."""
    calls = {name: contender.call for name, contender in made.items()}
    seconds, results = peers.take_turns(calls, repeats)
    medians = {name: float(np.median(spent)) for name, spent in seconds.items()}
    rows = []
    for name, result in results.items():
        row = {"contender": name, "seconds": medians[name], "over homotopy": None}
        if "homotopy" in medians:
            row["over homotopy"] = medians[name] / medians["homotopy"]
        row |= quality(problem, result)
        row |= {"compile s": made[name].compile_seconds}
        row |= {"steps": None, "floor s": None, "over floor": None}
        if name in LASSO_SOLVERS:
            row |= work(problem, name, result, medians[name], machine)
        rows.append(row | {"all seconds": seconds[name]})
    return rows


def main() -> None:
    parser = peers.arguments(__doc__, "sparse_coding")
    parser.add_argument("--skip", nargs="*", default=["ista"], help="leave these out [ista]")
    parser.add_argument("--jobs", type=int, default=1, help="scikit-learn's n_jobs [%(default)s]")
    parser.add_argument("--count", type=int, default=0, help="code only so many patches; 0: all")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: gaps are reported anyway

    problem = prepare(options.seed, options.count)
    made = contenders(problem, options.skip, options.jobs)
    machine = peers.measure_machine()
    rows = make_rows(problem, made, options.repeats, machine)
    peers.record(
        options.output,
        rows,
        seed=options.seed,
        columns=[name for name in rows[0] if name != "all seconds"],
        patches=len(problem.signals),
        atoms=len(problem.dictionary),
        penalty=peers.PENALTY,
        jobs=options.jobs,
        matmul_operations_per_second=machine.operations_per_second,
        copy_bytes_per_second=machine.bytes_per_second,
        least_bytes=least_bytes(problem),
    )


if __name__ == "__main__":
    main()
