"""What the benchmarks share: the problem, the certificate, the machine, the table."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from skimage import data

from sparse_ad.report.tables import text
from sparse_ad.sparse.coder import LassoCoder, lasso_coder
from sparse_ad.sparse.dictionary import begin_dictionary, learn
from sparse_ad.sparse.problems import Coder
from sparse_ad.system import environment
from sparse_ad.system.files import write_json

ROOT = Path(__file__).resolve().parents[1]
PENALTY = 1.0
ATOMS = 200
BATCH = 256
PEERS = ("scikit-learn", "spams-bin", "scikit-image", "scipy", "torch")


class Machine(NamedTuple):
    """What this machine can do at most, for the floors."""

    operations_per_second: float
    bytes_per_second: float


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = ROOT / "results" / "benchmarks" / f"{name}.json"
    parser.add_argument("--output", type=Path, default=output, help="result file [%(default)s]")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved; medians [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def brick(size: int = 16, stride: int = 4) -> np.ndarray:
    """Patches [p d] of scikit-image's brick: mean removed, divided by the global std."""
    windows = np.lib.stride_tricks.sliding_window_view(data.brick(), (size, size))
    patches = windows[::stride, ::stride].reshape(-1, size * size).astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    return (patches / patches.std()).astype(np.float32)


def coder(**fields) -> Coder:
    """Returns our coder of many signals, not yet compiled."""
    return lasso_coder(LassoCoder(**{"penalty": PENALTY, **fields}))


def learner(atoms: int = ATOMS) -> Callable:
    """Returns the compiled `(key, batches[t m d]) -> dictionary[k d]` of our learner."""
    return jax.jit(partial(learn_dictionary, coder(tolerance=1e-4), atoms))


def learn_dictionary(code: Coder, atoms: int, key: jax.Array, batches: jax.Array) -> jax.Array:
    """Returns the dictionary that minibatches teach, begun with signals of the first four."""

    def take(state, batch):
        return learn(batch[0], state, batch[1], code)[0], None

    first, rest = jax.random.split(key)
    start = begin_dictionary(first, batches[:4].reshape(-1, batches.shape[-1]), atoms)
    keys = jax.random.split(rest, len(batches))
    return jax.lax.scan(take, start, (keys, batches))[0].dictionary


def minibatches(signals: np.ndarray, passes: int, seed: int) -> np.ndarray:
    """Returns [t BATCH d]: each pass in an order of its own, the last incomplete batch dropped."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(signals)) for _ in range(passes)])
    return signals[order[: len(order) // BATCH * BATCH]].reshape(-1, BATCH, signals.shape[1])


def certificates(
    dictionary: np.ndarray, signals: np.ndarray, codes: np.ndarray, penalty: float = PENALTY
) -> tuple[np.ndarray, np.ndarray]:
    """Returns objectives and relative duality gaps [m] of anyone's codes, in float64."""
    x, atoms, z = (np.asarray(part, np.float64) for part in (signals, dictionary, codes))
    residual = x - z @ atoms
    q = residual @ atoms.T
    scale = np.minimum(1.0, penalty / np.maximum(np.abs(q).max(axis=1), 1e-300))
    energy = 0.5 * (residual**2).sum(axis=1)
    objective = energy + penalty * np.abs(z).sum(axis=1)
    gap = (1 - scale) ** 2 * energy + (penalty * np.abs(z) - scale[:, None] * z * q).sum(axis=1)
    return objective, gap / np.where(objective > 0.0, objective, 1.0)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns how long a call took, its result waited for, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def take_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict, dict]:
    """Returns the seconds of each repeat of each call, and the last results; calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            spent, results[name] = seconds_of(call)
            seconds[name].append(spent)
    return seconds, results


def measure_machine() -> Machine:
    """Returns the rates of this machine."""
    return Machine(matmul_rate(), copy_rate())


def matmul_rate() -> float:
    """Returns the operations a second of a float32 product of the size that solvers make."""
    a, b = jnp.ones((1024, 256)), jnp.ones((256, 256))
    many = jax.jit(lambda a, b: jax.lax.fori_loop(0, 100, lambda _, x: jnp.tanh(x @ b), a))
    seconds_of(lambda: many(a, b))
    best = min(seconds_of(lambda: many(a, b))[0] for _ in range(5))
    return 100 * 2 * 1024 * 256 * 256 / best


def copy_rate() -> float:
    """Returns the bytes a second that are read and written in copying a large array."""
    source = np.ones(2**25, np.float32)
    target = np.empty_like(source)
    best = min(seconds_of(lambda: np.copyto(target, source))[0] for _ in range(5))
    return 2 * source.nbytes / best


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows as text in columns; numbers with 3 digits, "-" for what is not known."""
    names = list(rows[0])
    return text(names, [[_show(row.get(name)) for name in names] for row in rows], ">" * len(names))


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def record(path: Path, rows: Sequence[dict[str, Any]], **more) -> None:
    """Prints the table and writes it with all that is needed to make it again."""
    columns = more.get("columns") or list(rows[0])
    print(table([{name: row.get(name) for name in columns} for row in rows]))
    described = environment.describe()
    described["peers"] = {name: environment.version_of(name) for name in PEERS}
    described["cores"] = os.cpu_count()
    write_json(path, {"rows": list(rows), **more, "environment": described})
    print(f"wrote {path}")
