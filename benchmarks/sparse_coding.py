"""Sparse coding of texture patches: our solvers beside scikit-learn's and SPAMS's.

  python benchmarks/sparse_coding.py [--repeats=3] [--skip NAME ...] [--output=FILE]

The 15,625 patches of 16x16 at stride 4 of scikit-image's brick, mean removed, divided by their
global deviation; 200 unit atoms learned from them; penalty 1. Contenders take turns in one
process; seconds are medians, compilation apart. Gaps and objectives of all are computed by one
function in float64. Targets: homotopy at least 10 times faster than lasso_lars, faster than
lasso_cd, all relative gaps <= 1e-4.

The floor of ours: the operations that the steps taken must make, at the rate of this machine's
float32 products, or the bytes of signals, codes and dictionary at its copying rate, if more.
"""

import os
import warnings

import jax
import numpy as np
import peers
import spams
from scipy.sparse import csc_matrix
from sklearn.decomposition import sparse_encode
from sparse_ad.sparse.descent import CHECK_EVERY

from sparse_ad.sparse.solvers import SOLVERS

MAX_STEPS = 20_000
TOLERANCE = 9.5e-5  # in float32: what float64 then measures is at most 1e-4


def scikit_learn(algorithm: str, jobs: int):
    def code(dictionary, signals):
        exact = signals.astype(np.float64), dictionary.astype(np.float64)
        return lambda: sparse_encode(
            *exact, algorithm=algorithm, alpha=peers.PENALTY, max_iter=10_000, n_jobs=jobs
        )

    return code


def spams_lasso(dtype):
    def code(dictionary, signals):
        columns = [np.asfortranarray(part.T.astype(dtype)) for part in (signals, dictionary)]
        return lambda: spams.lasso(
            *columns, lambda1=peers.PENALTY, mode=2, numThreads=os.cpu_count()
        )

    return code


def dense(codes) -> np.ndarray:
    return np.asarray(codes.T.todense()) if isinstance(codes, csc_matrix) else np.asarray(codes)


def operations(solver: str, steps: int, count: int, k: int, d: int) -> float:
    """The multiplications and additions of all signals' steps, their D x and certificates."""
    certificate = 4 * k * d
    step = {
        "homotopy": 2 * k * k,
        "coordinate_descent": 4 * k * k + certificate / CHECK_EVERY,
        "fista": 2 * k * k + certificate / CHECK_EVERY,
        "ista": 2 * k * k + certificate / CHECK_EVERY,
    }[solver]
    return steps * step + count * (2 * k * d + certificate)


def main() -> None:
    parser = peers.arguments(__doc__, "sparse_coding")
    parser.add_argument("--skip", nargs="*", default=["ista"], help="leave these out [ista]")
    parser.add_argument("--jobs", type=int, default=1, help="scikit-learn's n_jobs [%(default)s]")
    parser.add_argument("--count", type=int, default=0, help="code only so many patches; 0: all")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: gaps are reported anyway

    patches = peers.brick()
    learn = peers.learner()
    key = jax.random.key(options.seed)
    dictionary = np.asarray(learn(key, peers.minibatches(patches, 3, options.seed)))
    signals = patches
    if options.count:
        signals = patches[np.random.default_rng(0).permutation(len(patches))[: options.count]]
    count, (k, d) = len(signals), dictionary.shape

    contenders = {
        "lasso_lars": scikit_learn("lasso_lars", options.jobs),
        "lasso_cd": scikit_learn("lasso_cd", options.jobs),
        "spams float64": spams_lasso(np.float64),
        "spams float32": spams_lasso(np.float32),
    }
    calls = {name: make(dictionary, signals) for name, make in contenders.items()}
    compile_seconds = {}
    for solver in SOLVERS:
        if solver not in options.skip:
            code = jax.jit(peers.coder(solver=solver, max_steps=MAX_STEPS, tolerance=TOLERANCE))
            placed = jax.device_put((dictionary, signals))
            compiling, compiled = peers.seconds_of(lambda c=code, p=placed: c.lower(*p).compile())
            compile_seconds[solver] = compiling
            calls[solver] = lambda c=compiled, p=placed: c(*p)
    calls = {name: call for name, call in calls.items() if name not in options.skip}

    for name in compile_seconds:
        jax.block_until_ready(calls[name]())  # warm up
    seconds = {name: [] for name in calls}
    results = {}
    for _ in range(options.repeats):
        for name, call in calls.items():
            spent, results[name] = peers.seconds_of(call)
            seconds[name].append(spent)

    rate, bandwidth = peers.matmul_rate(), peers.copy_rate()
    least_bytes = 4.0 * (signals.size + count * k + dictionary.size)
    ours = float(np.median(seconds["homotopy"])) if "homotopy" in seconds else None
    rows = []
    for name in calls:
        result, median = results[name], float(np.median(seconds[name]))
        codes = dense(result.code if name in SOLVERS else result)
        objective, gap = peers.certificates(dictionary, signals, codes)
        row = {
            "contender": name,
            "seconds": median,
            "over homotopy": median / ours if ours else None,
            "largest gap": float(gap.max()),
            "gap 99.9 %": float(np.quantile(gap, 0.999)),
            "objective": float(objective.mean()),
            "nonzeros": float((codes != 0.0).sum(axis=1).mean()),
            "compile s": None,
            "steps": None,
            "floor s": None,
            "over floor": None,
        }
        if name in SOLVERS:
            steps = np.asarray(result.steps, np.float64)
            least = operations(name, steps.sum(), count, k, d)
            floor = max(least / rate, least_bytes / bandwidth)
            row |= {
                "compile s": compile_seconds[name],
                "steps": float(steps.mean()),
                "floor s": floor,
                "over floor": median / floor,
                "operations": least,
                "converged": float(np.mean(result.converged)),
                "most steps": int(steps.max()),
            }
        rows.append(row | {"all seconds": seconds[name]})
    shown = [name for name in rows[0] if name != "all seconds"]
    peers.record(
        options.output,
        rows,
        seed=options.seed,
        columns=shown,
        patches=count,
        atoms=k,
        penalty=peers.PENALTY,
        jobs=options.jobs,
        matmul_operations_per_second=rate,
        copy_bytes_per_second=bandwidth,
        least_bytes=least_bytes,
    )


if __name__ == "__main__":
    main()
