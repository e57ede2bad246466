"""What the benchmarks share: the problem, the certificate, the machine, the table."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from skimage import data  # noqa: E402

from configs.base import get_config  # noqa: E402
from sparse_ad.report.tables import text  # noqa: E402
from sparse_ad.sparse.coder import sparse_coder  # noqa: E402
from sparse_ad.sparse.dictionary import begin_dictionary, learn  # noqa: E402
from sparse_ad.system import environment  # noqa: E402
from sparse_ad.system.files import write_json  # noqa: E402

PENALTY = 1.0
ATOMS = 200
BATCH = 256
PEERS = ("scikit-learn", "spams-bin", "scikit-image", "scipy", "torch")


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
    """Patches [p d] of scikit-image's brick: mean removed, divided by the global deviation."""
    windows = np.lib.stride_tricks.sliding_window_view(data.brick(), (size, size))
    patches = windows[::stride, ::stride].reshape(-1, size * size).astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    return (patches / patches.std()).astype(np.float32)


def coder(**fields) -> Callable:
    """Returns our coder of many signals, not yet compiled."""
    config = get_config().method
    config.update({"penalty": PENALTY, **fields})
    return sparse_coder(config)


def learner(atoms: int = ATOMS) -> Callable:
    """Returns the compiled `(key, batches[t m d]) -> dictionary[k d]` of our learner."""
    code = coder(tolerance=1e-4)

    def run(key, batches):
        def take(state, keyed):
            state, info = learn(*keyed[:1], state, keyed[1], code)
            return state, info["replaced"]

        start = begin_dictionary(key, batches[:4].reshape(-1, batches.shape[-1]), atoms)
        keys = jax.random.split(key, len(batches))
        return jax.lax.scan(take, start, (keys, batches))[0].dictionary

    return jax.jit(run)


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
    shown = more.get("columns") or list(rows[0])
    print(table([{name: row.get(name) for name in shown} for row in rows]))
    described = environment.describe()
    described["peers"] = {name: _version(name) for name in PEERS}
    described["cores"] = os.cpu_count()
    write_json(path, {"rows": list(rows), **more, "environment": described})
    print(f"wrote {path}")


def _version(name: str) -> str | None:
    """Returns the version of a package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
