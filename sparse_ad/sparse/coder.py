"""Coders of many signals by one dictionary: by the lasso, and by orthonormal atoms.

Channels of a map have a coder of their own in `channels.py`, exemplars in `exemplars.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from sparse_ad.errors import UserError, require, require_choice
from sparse_ad.sparse.problems import Coder, Lasso, Solution, product
from sparse_ad.sparse.solvers import LASSO_SOLVERS, fista, homotopy

Solve = Callable[[Lasso, Float[Array, " k"] | None], Solution]  # of one lasso, from a start

WIDER = 3  # how much wider the next homotopy is, for signals that need it


@dataclass(frozen=True)
class LassoCoder:
    """Codes by the lasso, for any number of atoms."""

    solver: str = "homotopy"  # homotopy | coordinate_descent | fista | ista
    penalty: float = 1.0  # of the code's L1 norm, beside 1/2 ||x - z D||^2
    nonnegative: bool = False  # whether coefficients must be 0 or more
    max_steps: int = 1000  # of the solver, for each signal
    tolerance: float = 1e-4  # relative duality gap at which a code is good enough
    chunk: int = 512  # signals coded at a time: memory against speed
    max_support: int = 16  # homotopy: non-zeros it first has room for

    def __post_init__(self):
        require_choice("solver", self.solver, LASSO_SOLVERS)
        require(self.penalty > 0, "penalty", self.penalty, "must be positive")
        require(self.tolerance > 0, "tolerance", self.tolerance, "must be positive")
        for field in ("max_steps", "chunk", "max_support"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "must be at least 1")


def lasso_coder(options: LassoCoder) -> Coder:
    """Returns `coder(dictionary[k d], signals[m d]) -> Solution`; see `code_lasso`."""
    return partial(code_lasso, options)


def linear_coder(dictionary: ArrayLike, signals: ArrayLike) -> Solution:
    """Codes signals [m d] by orthonormal atoms [k d]: z = x D^T minimises ||x - z D||^2.

    Raises: UserError, see `checked`.
    """
    dictionary, signals = checked(dictionary, signals)
    code = product(signals, dictionary.T)
    error = jnp.sum((signals - product(code, dictionary)) ** 2, axis=-1)
    finite = jnp.isfinite(error)
    steps = jnp.ones(error.shape, jnp.int32)
    return Solution(code, error, 0.5 * error, jnp.zeros_like(error), steps, finite, finite)


def checked(dictionary: ArrayLike, signals: ArrayLike) -> tuple[Array, Array]:
    """Returns NumPy or JAX arrays as JAX arrays of one dtype, that of the signals if floats.

    Shapes and dtypes are known while a program is traced: it may be called under jit too.
    Raises: UserError unless they are [k d] and [m d], real numbers, k and d 1 or more.
    """
    atoms, signals = as_floats("dictionary", dictionary), as_floats("signals", signals)
    if not atoms.size:
        raise UserError(f"dictionary of shape {atoms.shape}: give at least one atom and one value")
    if atoms.shape[1] != signals.shape[1]:
        shapes = f"dictionary {atoms.shape} and signals {signals.shape}"
        raise UserError(f"{shapes}: give atoms and signals of the same length")
    return atoms.astype(signals.dtype), signals


def as_floats(name: str, rows: ArrayLike) -> Float[Array, "n d"]:
    """Returns rows as a JAX array; whole numbers become floats, of JAX's default width.

    Raises: UserError, which names what is neither [n d] nor of real numbers.
    """
    dtype = jnp.result_type(rows)
    if jnp.ndim(rows) != 2:
        remedy = "give a matrix with one row for each"
        raise UserError(f"{name} of shape {jnp.shape(rows)}: {remedy}")
    if jnp.issubdtype(dtype, jnp.integer):
        dtype = jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"{name} of {dtype}: give floats, as by {name}.astype('float32')")
    return jnp.asarray(rows, dtype)


def code_lasso(options: LassoCoder, dictionary: ArrayLike, signals: ArrayLike) -> Solution:
    """Codes signals [m d] by the lasso and atoms [k d] of any length; see `code_chunks`."""
    return code_any(partial(code_chunks, options), dictionary, signals)


def code_any(code: Coder, dictionary: ArrayLike, signals: ArrayLike) -> Solution:
    """Returns code(dictionary[k d], signals[m d]) of NumPy or JAX arrays; see `checked`.

    No signals, m = 0, have a solution of no rows.
    """
    dictionary, signals = checked(dictionary, signals)
    if signals.shape[0]:
        return code(dictionary, signals)
    one = jax.ShapeDtypeStruct((1, signals.shape[1]), signals.dtype)
    like = jax.eval_shape(partial(code, dictionary), one)
    return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape[1:]), leaf.dtype), like)


def code_chunks(
    options: LassoCoder, dictionary: Float[Array, "k d"], signals: Float[Array, "m d"]
) -> Solution:
    """Codes signals by the lasso, a chunk of signals at a time, and hard ones again.

    Memory is bounded by chunk x (k + 20 max_support^2) floats beside the signals and their codes,
    whatever m is. Signals are sorted by how long they are likely to take, since a chunk is done
    when its slowest signal is.
    """
    penalty = jnp.asarray(options.penalty, signals.dtype)
    order = jnp.argsort(expected_steps(dictionary, signals, penalty))
    first, *others = (
        partial(solve_each, solver, dictionary, penalty)
        for solver in cascade(options, min(dictionary.shape))
    )
    solution = in_chunks(first, (signals[order],), options.chunk)
    back = jnp.argsort(order)
    solution = jax.tree.map(lambda leaf: leaf[back], solution)
    for solve in others:
        solution = solve_unsettled(solve, signals, solution, max(1, options.chunk // 4))
    return solution


def solve_each(
    solve: Solve,
    dictionary: Float[Array, "k d"],
    penalty: Float[Array, ""],
    signals: Float[Array, "m d"],
    start: Float[Array, "m k"] | None = None,
) -> Solution:
    """Returns the solutions of all signals, by one vmap."""

    def solve_one(signal: Float[Array, " d"], start: Float[Array, " k"] | None) -> Solution:
        return solve(Lasso(dictionary, signal, penalty), start)

    return jax.vmap(solve_one)(signals, start)


def cascade(options: LassoCoder, most: int) -> list[Solve]:
    """Returns the solvers to try in turn on what is not yet settled.

    Signals that need more atoms than `max_support`, they alone, pay for wider homotopies; `most`
    is what a code can need at all. What these leave, or rounding has led astray (nearly dependent
    atoms), is finished by FISTA.
    """
    common = {
        "max_steps": options.max_steps,
        "tolerance": options.tolerance,
        "nonnegative": options.nonnegative,
    }
    if options.solver != "homotopy":
        return [partial(LASSO_SOLVERS[options.solver], **common)]
    widths = sorted({min(options.max_support * WIDER**rung, most) for rung in range(3)})
    paths = [partial(homotopy, max_support=width, **common) for width in widths]
    return [*paths, partial(fista, **common)]


def solve_unsettled(
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

    def turn(state):
        done, solution = state
        indices = lax.dynamic_slice_in_dim(order, done, chunk)
        old = jax.tree.map(lambda leaf: leaf[indices], solution)
        new = solve(signals[indices], old.code)
        kept = jax.tree.map(partial(choose_rows, new.gap < old.gap), new, old)
        kept = kept._replace(steps=old.steps + new.steps)
        due = jnp.where(done + jnp.arange(chunk) < left, indices, count)
        store = lambda leaf, rows: leaf.at[due].set(rows, mode="drop")  # noqa: E731
        return done + chunk, jax.tree.map(store, solution, kept)

    begin = (jnp.zeros((), left.dtype), solution)
    return lax.while_loop(lambda state: state[0] < left, turn, begin)[1]


def choose_rows(condition: Bool[Array, " m"], new: Array, old: Array) -> Array:
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

    results = lax.map(lambda cuts: function(*cuts), tuple(map(cut, rows)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)
