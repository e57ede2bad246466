"""Least squares and errors of few atoms, unrolled over atoms and vectorised over signals.

Atoms are the first axis, or the items of a list; batch axes broadcast.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from sparse_ad.sparse.problems import Quadratic

Rows = Sequence[Array] | Float[Array, "k ..."]  # one row for each atom, apart or stacked

DEPENDENT = 1e-5  # of an atom's energy: what is left of it beside the others is rounding


def on_support(problem: Quadratic, support: Sequence[int]) -> list[Float[Array, "..."]]:
    """Returns the least-squares code on a fixed support, by the Cholesky factor of its Gram matrix.

    The factor has the Gram matrix's batch axes only: one for all patches of a channel.
    """
    part = [[problem.gram[i, j] for j in support] for i in support]
    return cholesky_solve(part, [problem.correlation[j] for j in support])


def on_own_support(
    gram: Float[Array, "k k ..."],
    chosen: Sequence[Bool[Array, "..."]],
    right: Rows,
) -> list[Float[Array, "..."]]:
    """Returns the solution of G_SS z_S = right_S on each signal's own support S; zero off it."""
    count, on = len(chosen), [mask.astype(gram.dtype) for mask in chosen]
    part = [[on[i] * on[j] * gram[i, j] for j in range(count)] for i in range(count)]
    for j in range(count):
        part[j][j] = part[j][j] + (1.0 - on[j])  # off the support: the identity
    return cholesky_solve(part, [on[j] * right[j] for j in range(count)])


def cholesky_solve(matrix: list[list[Array]], right: Rows) -> list[Array]:
    """Solves a small positive definite system; what depends on earlier rows gets a zero."""
    count, inverse = len(right), []
    lower: list[list[Any]] = [[None] * count for _ in range(count)]
    for j in range(count):
        left = matrix[j][j] - sum(lower[j][i] ** 2 for i in range(j))
        sound = left > DEPENDENT * matrix[j][j]
        inverse.append(jnp.where(sound, lax.rsqrt(jnp.where(sound, left, 1.0)), 0.0))
        for i in range(j + 1, count):
            inner = sum(lower[i][m] * lower[j][m] for m in range(j))
            lower[i][j] = (matrix[i][j] - inner) * inverse[j]
    forward: list[Array] = []
    solution: list[Any] = [None] * count
    for j in range(count):
        known = sum(lower[j][i] * forward[i] for i in range(j))
        forward.append((right[j] - known) * inverse[j])
    for j in reversed(range(count)):
        known = sum(lower[i][j] * solution[i] for i in range(j + 1, count))
        solution[j] = (forward[j] - known) * inverse[j]
    return solution


def apply_gram(gram: Float[Array, "k k ..."], code: Rows) -> list[Float[Array, "..."]]:
    """Returns z G, the correlations of the reconstruction with the atoms."""
    count = gram.shape[0]
    return [reduce(jnp.add, [code[i] * gram[i, j] for i in range(count)]) for j in range(count)]


def change_of_error(
    correlation: Float[Array, "k ..."], code: Rows, fitted: Rows
) -> Float[Array, "..."]:
    """Returns ||x - z D||^2 - ||x||^2, with fitted = z G."""
    pairs = enumerate(zip(code, fitted, strict=True))
    return reduce(jnp.add, [z * (fit - 2.0 * correlation[j]) for j, (z, fit) in pairs])


def squared_error(problem: Quadratic, code: Rows) -> Float[Array, "..."]:
    """Returns ||x - z D||^2, never below zero.

    The three terms cancel: the error is exact to about 1e-6 of ||x||^2.
    """
    change = change_of_error(problem.correlation, code, apply_gram(problem.gram, code))
    return jnp.maximum(problem.energy + change, 0.0)
