"""Dictionary learning on texture patches: ours beside scikit-learn's and SPAMS's.

  python -m benchmarks.dictionary_learning [--passes 1 3] [--repeats=3] [--output=FILE]

The patches of 16x16 at stride 4 of scikit-image's brick: 12,000 to learn 200 atoms from, in
minibatches of 256 at penalty 1, and 3,625 held out. Each learner sees the same number of patches,
in a random order. Repeats differ in seed and are interleaved; seconds and objectives are medians,
compilation apart. The held-out objective of all is that of one coder in float64
(scikit-learn's lasso_cd), with atoms scaled to length 1. Target: objective no worse than
scikit-learn's, in less time.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import spams
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode

from benchmarks import peers

TRAINING = 12_000


def prepare(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the patches to learn from, and those held out."""
    patches = peers.brick()
    patches = patches[np.random.default_rng(seed).permutation(len(patches))]
    return patches[:TRAINING], patches[TRAINING:]


def compile_ours(signals: np.ndarray, passes: int) -> tuple[float, Callable]:
    """Returns the seconds that it took, and our learner, warmed up."""
    learn, key = peers.learner(), jax.random.key(0)
    batches = peers.minibatches(signals, passes, 0)
    seconds, _ = peers.seconds_of(lambda: learn.lower(key, batches).compile())
    jax.block_until_ready(learn(key, batches))
    return seconds, learn


def ours(learn: Callable, signals: np.ndarray, passes: int, seed: int) -> Callable:
    batches = peers.minibatches(signals, passes, seed)
    return lambda: learn(jax.random.key(seed), batches)


def scikit_learn(signals: np.ndarray, passes: int, seed: int) -> Callable:
    model = MiniBatchDictionaryLearning(
        peers.ATOMS,
        alpha=peers.PENALTY,
        batch_size=peers.BATCH,
        fit_algorithm="cd",
        max_iter=passes,
        random_state=seed,
        tol=0.0,  # with the next line: no early end
        max_no_improvement=None,
    )
    exact = signals.astype(np.float64)
    return lambda: model.fit(exact).components_


def spams_learn(signals: np.ndarray, passes: int, seed: int) -> Callable:
    order = np.random.default_rng(seed).permutation(len(signals))
    columns = np.asfortranarray(signals[order].T.astype(np.float64))
    steps = passes * len(signals) // peers.BATCH
    return lambda: (
        spams.trainDL(
            columns,
            K=peers.ATOMS,
            lambda1=peers.PENALTY,
            mode=2,
            iter=steps,
            batchsize=peers.BATCH,
            numThreads=os.cpu_count(),
            verbose=False,
        ).T
    )


def held_out_objective(dictionary: np.ndarray, signals: np.ndarray) -> float:
    exact = np.asarray(dictionary, np.float64)
    exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    codes = sparse_encode(
        signals.astype(np.float64),
        exact,
        algorithm="lasso_cd",
        alpha=peers.PENALTY,
        max_iter=10_000,
    )
    return float(peers.certificates(exact, signals, codes)[0].mean())


def compare(
    makers: dict[str, Callable], train: np.ndarray, held_out: np.ndarray, passes: int, seeds: range
) -> tuple[dict, dict]:
    """Returns seconds and held-out objectives of each learner, for each seed in turn."""
    seconds = {name: [] for name in makers}
    objectives = {name: [] for name in makers}
    for seed in seeds:
        for name, make in makers.items():
            spent, dictionary = peers.seconds_of(make(train, passes, seed))
            seconds[name].append(spent)
            objectives[name].append(held_out_objective(dictionary, held_out))
    return seconds, objectives


def make_rows(train: np.ndarray, held_out: np.ndarray, passes: int, seeds: range) -> list[dict]:
    """Returns a row for each learner."""
    compile_seconds, learn = compile_ours(train, passes)
    makers = {"ours": partial(ours, learn), "scikit-learn": scikit_learn, "spams": spams_learn}
    seconds, objectives = compare(makers, train, held_out, passes, seeds)
    base = float(np.median(seconds["ours"]))
    return [
        {
            "learner": name,
            "passes": passes,
            "seconds": float(np.median(seconds[name])),
            "over ours": float(np.median(seconds[name])) / base,
            "held-out objective": float(np.median(objectives[name])),
            "least": min(objectives[name]),
            "most": max(objectives[name]),
            "compile s": compile_seconds if name == "ours" else None,
        }
        for name in makers
    ]


def main() -> None:
    parser = peers.arguments(__doc__, "dictionary_learning")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 3], help="[1 3]")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: objectives are reported

    train, held_out = prepare(options.seed)
    seeds = range(options.seed, options.seed + options.repeats)
    rows = [row for passes in options.passes for row in make_rows(train, held_out, passes, seeds)]
    peers.record(
        options.output,
        rows,
        seed=options.seed,
        training=len(train),
        held_out=len(held_out),
        atoms=peers.ATOMS,
        minibatch=peers.BATCH,
        penalty=peers.PENALTY,
    )


if __name__ == "__main__":
    main()
