"""Solvers for dictionaries of a few atoms, where millions of signals are coded at once.

All work on the Gram matrix G = D D^T and the correlations q = D x; signals are never touched:

    1/2 ||x - z D||^2 = 1/2 (||x||^2 - 2 z q^T + z G z^T)

Atoms are the first axis (two of the Gram); all other axes are batch axes that broadcast, so that
the Gram of a channel serves all its patches. Loops over the k atoms are unrolled: with k a handful,
every operation is one pass over contiguous batches, and nothing is gathered.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import combinations
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.sparse.lasso import soft_threshold

DEPENDENT = 1e-5  # of an atom's energy: what is left of it beside the others is rounding
SWEEPS = 5  # between two looks at the gap
TOGETHER = 2  # looks at all signals; those not settled by then are gathered
GATHERED = 512  # of them at a time


class TinySolution(NamedTuple):
    """Codes of many signals, and what is known of them."""

    code: Float[Array, "k ..."]
    error: Float[Array, "..."]  # ||x - z D||^2
    gap: Float[Array, "..."]  # relative duality gap; 0 for the exact l0 answer; NaN where unknown


TinySolver = Callable[
    [Float[Array, "k k ..."], Float[Array, "k ..."], Float[Array, "..."]], TinySolution
]


def tiny_solver(config) -> TinySolver:
    """Returns `solve(gram, correlation, energy) -> TinySolution`, energy = ||x||^2.

    solver: "lasso" (reads penalty, max_steps sweeps at most, tolerance), "omp" or "exact_l0" (both
    read nonzeros). Errors: UserError that names the field, its value and the remedy.
    """
    require(config.atoms >= 1, "method.atoms", config.atoms, "must be at least 1")
    require(config.penalty > 0, "method.penalty", config.penalty, "must be positive")
    require(config.max_steps >= 1, "method.max_steps", config.max_steps, "must be at least 1")
    require(config.tolerance > 0, "method.tolerance", config.tolerance, "must be positive")
    fits = 1 <= config.nonzeros <= config.atoms
    remedy = f"must be from 1 to method.atoms = {config.atoms}"
    require(fits, "method.nonzeros", config.nonzeros, remedy)
    lasso = {name: config[name] for name in ("penalty", "max_steps", "tolerance")}
    solvers = {
        "lasso": partial(tiny_lasso, **lasso),
        "omp": partial(tiny_omp, nonzeros=config.nonzeros),
        "exact_l0": partial(tiny_exact_l0, nonzeros=config.nonzeros),
    }
    require_choice("method.solver", config.solver, solvers)
    return solvers[config.solver]


def learning_solver(config) -> TinySolver:
    """Returns the solver of `tiny_solver`, as exact as learning needs it.

    The lasso stops after SWEEPS sweeps, which settle all but a few percent of the signals; the
    others go into the statistics as they stand, and later images, coded anew, outweigh them.
    """
    solve = tiny_solver(config)
    return partial(solve, max_steps=SWEEPS) if config.solver == "lasso" else solve


def tiny_lasso(
    gram: Float[Array, "k k ..."],
    correlation: Float[Array, "k ..."],
    energy: Float[Array, "..."],
    *,
    penalty: float,
    max_steps: int,
    tolerance: float,
) -> TinySolution:
    """Minimises 1/2 ||x - z D||^2 + penalty ||z||_1 by cyclic coordinate descent.

        z_j <- soft(q_j - sum_{i != j} z_i G_ij, penalty) / G_jj

    Few sweeps settle nearly all signals; the others, they alone, are gathered and descend until
    their relative duality gap meets the tolerance, or for max_steps sweeps.
    """
    descend = partial(tiny_descent, penalty=penalty, tolerance=tolerance)
    begin = tuple(jnp.zeros_like(each) for each in correlation)
    most = min(max_steps, TOGETHER * SWEEPS)
    code, gap = descend(gram, correlation, energy, begin, max_steps=most)
    code = jnp.stack(code)
    if most < max_steps:
        further = partial(descend, max_steps=max_steps - most)
        code, gap = redo(further, gram, correlation, energy, code, gap, tolerance)
    return TinySolution(code, squared_error(gram, correlation, energy, code), gap)


def tiny_descent(
    gram, correlation, energy, code: tuple[Array, ...], *, penalty, tolerance, max_steps: int
) -> tuple[tuple[Array, ...], Array]:
    """Returns code and gap after sweeps until all gaps meet the tolerance, or max_steps sweeps."""
    count = gram.shape[0]
    tiny = jnp.finfo(gram.dtype).tiny
    inverse = [1.0 / jnp.maximum(gram[j, j], tiny) for j in range(count)]

    def sweep(_, code):
        code = list(code)
        for j in range(count):
            left = correlation[j]
            for i in range(count):
                left = left - code[i] * gram[i, j] if i != j else left
            code[j] = soft_threshold(left, penalty) * inverse[j]
        return tuple(code)

    def proceed(turn):
        steps, _, gap = turn
        return (jnp.max(gap) > tolerance) & (steps < max_steps)

    def move(turn):
        steps, code, _ = turn
        code = lax.fori_loop(0, SWEEPS, sweep, code)
        code = tiny_polish(gram, correlation, code, penalty)
        return steps + SWEEPS, code, tiny_gap(gram, correlation, energy, code, penalty)

    begin = (0, code, jnp.full(energy.shape, jnp.inf, energy.dtype))
    return lax.while_loop(proceed, move, begin)[1:]


def redo(
    solve: Callable, gram, correlation, energy, code, gap, tolerance: float
) -> tuple[Float[Array, "k ..."], Float[Array, "..."]]:
    """Returns code and gap with the signals whose gap misses the tolerance solved further."""
    shape, count = gap.shape, len(code)
    missed = (gap > tolerance).ravel()
    left, total = jnp.sum(missed), missed.shape[0]
    order = jnp.cumsum(missed) - 1  # of the missed ones among themselves

    def pick(array, places, axes: int):
        """The columns at `places`, of an array whose batch axes broadcast to `shape`."""
        index = jnp.unravel_index(places, shape)
        sides = zip(index, array.shape[axes:], strict=True)
        return array[(slice(None),) * axes + tuple(i if side > 1 else 0 for i, side in sides)]

    def turn(state):
        done, code, gap = state
        due = missed & (order >= done) & (order < done + GATHERED)
        places = jnp.nonzero(due, size=min(GATHERED, total), fill_value=total)[0]
        inside = jnp.minimum(places, total - 1)
        some = (pick(gram, inside, 2), pick(correlation, inside, 1), pick(energy, inside, 0))
        better, smaller = solve(*some, tuple(code[:, inside]))
        code = code.at[:, places].set(jnp.stack(better), mode="drop")
        return done + GATHERED, code, gap.at[places].set(smaller, mode="drop")

    begin = (jnp.zeros((), left.dtype), code.reshape(count, -1), gap.ravel())
    _, code, gap = lax.while_loop(lambda state: state[0] < left, turn, begin)
    return code.reshape(count, *shape), gap.reshape(shape)


def tiny_polish(gram, correlation, code, penalty: float) -> tuple[Float[Array, "..."], ...]:
    """Returns the minimiser among codes of the same signs, where it has these signs.

        z_S = G_SS^-1 (q_S - penalty sign(z_S))

    Descent finds the signs early and the values late, where atoms are coherent.
    """
    sign = [jnp.sign(each) for each in code]
    right = [correlation[j] - penalty * each for j, each in enumerate(sign)]
    exact = solve_on([each != 0.0 for each in sign], gram, right)
    pairs = list(zip(exact, sign, strict=True))
    agrees = reduce(jnp.logical_and, [jnp.sign(z) == s for z, s in pairs])
    return tuple(jnp.where(agrees, z, old) for z, old in zip(exact, code, strict=True))


def tiny_gap(gram, correlation, energy, code, penalty: float) -> Float[Array, "..."]:
    """Returns the relative duality gap; see `lasso.certify`, whose residual here is implicit."""
    fitted = apply_gram(gram, code)  # used below more than once
    projected = [correlation[j] - each for j, each in enumerate(fitted)]  # D r
    squared = jnp.maximum(energy + change_of_error(correlation, code, fitted), 0.0)
    steepest = reduce(jnp.maximum, map(jnp.abs, projected))
    s = penalty / jnp.maximum(steepest, penalty)
    size = [penalty * jnp.abs(each) for each in code]
    pairs = zip(size, code, projected, strict=True)
    slack = sum(jnp.maximum(most - s * z * q, 0.0) for most, z, q in pairs)
    gap = 0.5 * (1.0 - s) ** 2 * squared + slack
    total = 0.5 * squared + sum(size)
    return gap / jnp.where(total == 0.0, 1.0, total)


def tiny_omp(gram, correlation, energy, *, nonzeros: int) -> TinySolution:
    """Orthogonal matching pursuit: the atom that fits the residual best joins, then least squares.

    Source: Pati, Rezaiifar & Krishnaprasad (1993).
    """
    count = gram.shape[0]

    def choose(_, turn):
        chosen, code = turn
        fitted = apply_gram(gram, code)
        fit = [
            jnp.where(chosen[j], -1.0, jnp.abs(correlation[j] - fitted[j])) for j in range(count)
        ]
        best = reduce(jnp.maximum, fit)
        taken, joined = jnp.zeros(energy.shape, bool), []
        for j in range(count):  # of equals the first
            wins = (fit[j] == best) & ~taken
            taken |= wins
            joined.append(chosen[j] | wins)
        return tuple(joined), tuple(solve_on(joined, gram, correlation))

    # A loop, not unrolled: XLA would fuse the rounds, and compute each again for all that uses it.
    nothing = tuple(jnp.zeros(energy.shape, bool) for _ in range(count))
    begin = (nothing, tuple(jnp.zeros_like(energy) for _ in range(count)))
    _, code = lax.fori_loop(0, nonzeros, choose, begin)
    explained = sum(z * correlation[j] for j, z in enumerate(code))  # of least squares
    unknown = jnp.full(energy.shape, jnp.nan, energy.dtype)
    return TinySolution(jnp.stack(code), jnp.maximum(energy - explained, 0.0), unknown)


def tiny_exact_l0(gram, correlation, energy, *, nonzeros: int) -> TinySolution:
    """Minimises ||x - z D||^2 over all z of at most `nonzeros` non-zeros, by trying all supports.

    Least squares on a support never fit worse than on a part of it: supports of exactly
    `nonzeros` atoms suffice, 10 for 3 of 5.
    """
    count = gram.shape[0]
    best, gain = jnp.zeros_like(correlation), jnp.full(energy.shape, -1.0, energy.dtype)
    for support in combinations(range(count), nonzeros):
        code = least_squares(support, gram, correlation)
        explained = sum(z * correlation[j] for j, z in zip(support, code, strict=True))
        rows = dict(zip(support, code, strict=True))
        full = jnp.stack([rows.get(j, jnp.zeros_like(gain)) for j in range(count)])
        best = jnp.where(explained > gain, full, best)
        gain = jnp.maximum(explained, gain)
    return TinySolution(best, jnp.maximum(energy - gain, 0.0), jnp.zeros_like(gain))


def least_squares(support, gram, correlation) -> list[Float[Array, "..."]]:
    """Returns the code on a fixed support, by the Cholesky factor of its Gram, unrolled.

    The factor has the Gram's batch axes only: one for all patches of a channel.
    """
    part = [[gram[i, j] for j in support] for i in support]
    return cholesky_solve(part, [correlation[j] for j in support])


def solve_on(chosen: Sequence[Bool[Array, "..."]], gram, correlation) -> list[Array]:
    """Returns the least-squares code on each signal's own support; zero off it."""
    count, on = len(chosen), [each.astype(gram.dtype) for each in chosen]
    part = [[on[i] * on[j] * gram[i, j] for j in range(count)] for i in range(count)]
    for j in range(count):
        part[j][j] = part[j][j] + (1.0 - on[j])  # off the support: the identity
    return cholesky_solve(part, [on[j] * correlation[j] for j in range(count)])


def cholesky_solve(matrix: list[list[Array]], right: Sequence[Array]) -> list[Array]:
    """Solves a small positive definite system; what depends on earlier rows gets a zero."""
    count, lower, inverse = len(right), [[None] * len(right) for _ in right], []
    for j in range(count):
        left = matrix[j][j] - sum(lower[j][i] ** 2 for i in range(j))
        sound = left > DEPENDENT * matrix[j][j]
        inverse.append(jnp.where(sound, lax.rsqrt(jnp.where(sound, left, 1.0)), 0.0))
        for i in range(j + 1, count):
            inner = sum(lower[i][m] * lower[j][m] for m in range(j))
            lower[i][j] = (matrix[i][j] - inner) * inverse[j]
    forward, solution = [], [None] * count
    for j in range(count):
        known = sum(lower[j][i] * forward[i] for i in range(j))
        forward.append((right[j] - known) * inverse[j])
    for j in reversed(range(count)):
        known = sum(lower[i][j] * solution[i] for i in range(j + 1, count))
        solution[j] = (forward[j] - known) * inverse[j]
    return solution


def apply_gram(gram, code: Sequence[Array]) -> list[Float[Array, "..."]]:
    """Returns z G, the correlations of the reconstruction with the atoms."""
    count = gram.shape[0]
    return [sum(code[i] * gram[i, j] for i in range(count)) for j in range(count)]


def change_of_error(correlation, code, fitted) -> Float[Array, "..."]:
    """Returns ||x - z D||^2 - ||x||^2, with fitted = z G."""
    return sum(
        z * (fit - 2.0 * correlation[j])
        for j, (z, fit) in enumerate(zip(code, fitted, strict=True))
    )


def squared_error(gram, correlation, energy, code) -> Float[Array, "..."]:
    """Returns ||x - z D||^2, never below zero.

    The three terms cancel: the error is exact to about 1e-6 of ||x||^2.
    """
    return jnp.maximum(energy + change_of_error(correlation, code, apply_gram(gram, code)), 0.0)
