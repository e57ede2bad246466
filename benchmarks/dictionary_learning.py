"""Dictionary learning on texture patches: ours beside scikit-learn's and SPAMS's.

  python benchmarks/dictionary_learning.py [--passes 1 3] [--repeats=3] [--output=FILE]

The patches of 16x16 at stride 4 of scikit-image's brick: 12,000 to learn 200 atoms from, in
minibatches of 256 at penalty 1, and 3,625 held out. Each learner sees the same number of patches,
in a random order. Repeats differ in seed and are interleaved; seconds and objectives are medians,
compilation apart. The held-out objective of all is that of one coder in float64
(scikit-learn's lasso_cd), with atoms scaled to length 1. Target: objective no worse than
scikit-learn's, in less time.
"""

import os
import warnings

import jax
import numpy as np
import peers
import spams
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode

TRAINING = 12_000


def ours(learn, signals, passes, seed):
    batches = peers.minibatches(signals, passes, seed)
    return lambda: learn(jax.random.key(seed), batches)


def scikit_learn(signals, passes, seed):
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


def spams_learn(signals, passes, seed):
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


def main() -> None:
    parser = peers.arguments(__doc__, "dictionary_learning")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 3], help="[1 3]")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: objectives are reported

    patches = peers.brick()
    patches = patches[np.random.default_rng(options.seed).permutation(len(patches))]
    train, held_out = patches[:TRAINING], patches[TRAINING:]
    rows = []
    for passes in options.passes:
        learn = peers.learner()
        batches = peers.minibatches(train, passes, 0)
        key = jax.random.key(0)
        compiling, _ = peers.seconds_of(lambda k=key, b=batches: learn.lower(k, b).compile())  # noqa: B023
        jax.block_until_ready(learn(key, batches))  # warm up
        contenders = {
            "ours": lambda *given, learn=learn: ours(learn, *given),
            "scikit-learn": scikit_learn,
            "spams": spams_learn,
        }
        seconds = {name: [] for name in contenders}
        objectives = {name: [] for name in contenders}
        for repeat in range(options.repeats):
            for name, make in contenders.items():
                spent, dictionary = peers.seconds_of(make(train, passes, options.seed + repeat))
                seconds[name].append(spent)
                objectives[name].append(held_out_objective(dictionary, held_out))
        base = float(np.median(seconds["ours"]))
        rows += [
            {
                "learner": name,
                "passes": passes,
                "seconds": float(np.median(seconds[name])),
                "over ours": float(np.median(seconds[name])) / base,
                "held-out objective": float(np.median(objectives[name])),
                "least": min(objectives[name]),
                "most": max(objectives[name]),
                "compile s": compiling if name == "ours" else None,
            }
            for name in contenders
        ]
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
