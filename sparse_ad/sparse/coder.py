"""Coding many signals: bounded memory, and lanes that finish together."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.sparse.lasso import Lasso, Solution, product
from sparse_ad.sparse.solvers import SOLVERS

Coder = Callable[[Float[Array, "k d"], Float[Array, "m d"]], Solution]


def sparse_coder(config) -> Coder:
    """Returns `code(dictionary[k d], signals[m d]) -> Solution` of all signals.

    Reads penalty, nonnegative, solver, max_steps, tolerance, chunk and max_support. A chunk of
    signals is solved at a time, whatever m is: memory is bounded by chunk x (k + max_support^2)
    floats beside the signals and their codes. Signals are sorted by how long they are likely to
    take, since a chunk is done when its slowest signal is.

    Errors: UserError that names the field, its value and the remedy.
    """
    require(config.penalty > 0, "method.penalty", config.penalty, "must be positive")
    require(config.tolerance > 0, "method.tolerance", config.tolerance, "must be positive")
    require(config.max_steps >= 1, "method.max_steps", config.max_steps, "must be at least 1")
    require(config.chunk >= 1, "method.chunk", config.chunk, "must be at least 1")
    require(config.max_support >= 1, "method.max_support", config.max_support, "must be at least 1")
    require_choice("method.solver", config.solver, SOLVERS)
    options = {"max_support": config.max_support} if config.solver == "homotopy" else {}
    solve = partial(
        SOLVERS[config.solver],
        max_steps=config.max_steps,
        tolerance=config.tolerance,
        nonnegative=config.nonnegative,
        **options,
    )

    def code(dictionary: Float[Array, "k d"], signals: Float[Array, "m d"]) -> Solution:
        penalty = jnp.asarray(config.penalty, signals.dtype)
        solve_all = jax.vmap(lambda signal: solve(Lasso(dictionary, signal, penalty)))
        order = jnp.argsort(expected_steps(dictionary, signals, penalty))
        solutions = in_chunks(solve_all, signals[order], config.chunk)
        places = jnp.argsort(order)
        return jax.tree.map(lambda leaf: leaf[places], solutions)

    return code


def expected_steps(
    dictionary: Float[Array, "k d"], signals: Float[Array, "m d"], penalty: Float[Array, ""]
) -> Float[Array, " m"]:
    """Returns a guess of how the signals' solution times compare; the scale means nothing.

    The more atoms correlate with a signal well above the penalty, the longer its path.
    """
    correlation = jnp.abs(product(signals, dictionary.T)) / penalty
    return jnp.sum(correlation > 3.0, axis=1) + jnp.max(correlation, axis=1) * 1e-3


def in_chunks(function: Callable, rows: Float[Array, "m ..."], chunk: int):
    """Returns function(rows), computed `chunk` rows at a time, the last chunk padded by zeros."""
    count = rows.shape[0]
    chunk = min(chunk, count)
    padded = jnp.pad(rows, ((0, -count % chunk), *((0, 0),) * (rows.ndim - 1)))
    results = lax.map(function, padded.reshape(-1, chunk, *rows.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)
