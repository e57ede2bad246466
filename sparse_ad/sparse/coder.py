"""Coding many signals: bounded memory, and lanes that finish together."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.sparse.lasso import Lasso, Solution, product
from sparse_ad.sparse.solvers import SOLVERS, fista, homotopy

WIDER = 3  # how much wider the next homotopy is, for signals that need it

Coder = Callable[[Float[Array, "k d"], Float[Array, "m d"]], Solution]


def sparse_coder(config) -> Coder:
    """Returns `code(dictionary[k d], signals[m d]) -> Solution` of all signals.

    Reads penalty, nonnegative, solver, max_steps, tolerance, chunk and max_support. A chunk of
    signals is solved at a time, whatever m is: memory is bounded by chunk x (k + 20 max_support^2)
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

    def code(dictionary: Float[Array, "k d"], signals: Float[Array, "m d"]) -> Solution:
        penalty = jnp.asarray(config.penalty, signals.dtype)

        def solve_with(solver):
            return jax.vmap(lambda signal, start: solver(Lasso(dictionary, signal, penalty), start))

        order = jnp.argsort(expected_steps(dictionary, signals, penalty))
        nothing = jnp.zeros((signals.shape[0], dictionary.shape[0]), signals.dtype)
        first, *others = map(solve_with, cascade(config, min(dictionary.shape)))
        solution = in_chunks(first, (signals[order], nothing), config.chunk)
        places = jnp.argsort(order)
        solution = jax.tree.map(lambda leaf: leaf[places], solution)
        for solver in others:
            solution = redo_unsettled(solver, signals, solution, max(1, config.chunk // 4))
        return solution

    return code


def cascade(config, most: int) -> list[Callable[[Lasso, Float[Array, " k"]], Solution]]:
    """Returns the solvers (lasso, start) -> Solution to try in turn on what is not yet settled.

    Signals that need more atoms than `max_support`, they alone, pay for wider homotopies; `most`
    is what a code can need at all. What these leave, or rounding has led astray (nearly dependent
    atoms), is finished by FISTA.
    """
    common = {
        "max_steps": config.max_steps,
        "tolerance": config.tolerance,
        "nonnegative": config.nonnegative,
    }
    if config.solver != "homotopy":
        return [lambda lasso, start: SOLVERS[config.solver](lasso, start, **common)]

    def path(max_support: int):
        return lambda lasso, start: homotopy(lasso, max_support=max_support, **common)

    widths = sorted({min(config.max_support * WIDER**rung, most) for rung in range(3)})
    return [*map(path, widths), partial(fista, **common)]


def redo_unsettled(
    solve: Callable, signals: Float[Array, "m d"], solution: Solution, chunk: int
) -> Solution:
    """Returns the solution with the unsettled signals, and they alone, solved once more.

    They are gathered into chunks, as many as it takes: none where all is settled. A signal keeps
    the better of its two codes; its steps add up.
    """
    count = signals.shape[0]
    chunk = min(chunk, count)
    left = jnp.sum(~solution.settled)
    order = jnp.pad(jnp.argsort(solution.settled), (0, chunk))  # the unsettled ones first

    def redo(turn):
        done, solution = turn
        places = lax.dynamic_slice_in_dim(order, done, chunk)
        old = jax.tree.map(lambda leaf: leaf[places], solution)
        new = solve(signals[places], old.code)
        better = new.gap < old.gap
        kept = jax.tree.map(partial(choose_rows, better), new, old)
        kept = kept._replace(steps=old.steps + new.steps)
        due = jnp.where(done + jnp.arange(chunk) < left, places, count)
        solution = jax.tree.map(
            lambda leaf, rows: leaf.at[due].set(rows, mode="drop"), solution, kept
        )
        return done + chunk, solution

    start = (jnp.zeros((), left.dtype), solution)
    return lax.while_loop(lambda turn: turn[0] < left, redo, start)[1]


def choose_rows(condition: Array, new: Array, old: Array) -> Array:
    """Returns the rows of `new` where the condition holds, else those of `old`."""
    return jnp.where(condition.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def expected_steps(
    dictionary: Float[Array, "k d"], signals: Float[Array, "m d"], penalty: Float[Array, ""]
) -> Float[Array, " m"]:
    """Returns a guess of how the signals' solution times compare; the scale means nothing.

    The more atoms correlate with a signal well above the penalty, the longer its path.
    """
    correlation = jnp.abs(product(signals, dictionary.T)) / penalty
    return jnp.sum(correlation > 3.0, axis=1) + jnp.max(correlation, axis=1) * 1e-3


def in_chunks(function: Callable, rows: tuple[Array, ...], chunk: int):
    """Returns function(*rows), computed `chunk` rows at a time, the last chunk padded by zeros."""
    count = rows[0].shape[0]
    chunk = min(chunk, count)

    def cut(leaf):
        padded = jnp.pad(leaf, ((0, -count % chunk), *((0, 0),) * (leaf.ndim - 1)))
        return padded.reshape(-1, chunk, *leaf.shape[1:])

    results = lax.map(lambda some: function(*some), tuple(map(cut, rows)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)
