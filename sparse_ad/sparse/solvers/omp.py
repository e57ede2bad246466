"""Orthogonal matching pursuit, for any number of atoms.

For dictionaries of a few atoms and millions of signals: `few_atoms/omp.py`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Solution, Sparse, product, unit

SPANNED = 1e-3  # of an atom's length: what is left of it beside others is rounding


def omp(problem: Sparse, start: Float[Array, " k"] | None = None) -> Solution:
    """Codes one signal greedily; unit atoms or zero. A step is an atom that joins.

        j = argmax |d_j . r|,   r <- x - (its projection on all atoms that joined)

    With one non-zero this is exact: the best of all codes. An atom in the span of those before it
    adds nothing. Greed has no use for a `start`: it is returned where its error is smaller, which
    it may be, and it has no more than `nonzeros` non-zeros.

    Source: Pati, Rezaiifar & Krishnaprasad (1993). Gram-Schmidt, so that one signal's work is that
    of its correlations with all atoms, and no Gram matrix is needed.
    """
    dictionary, signal, nonzeros = problem
    rounds = min(nonzeros, dictionary.shape[0])
    residual, basis, atoms, columns, amounts = signal, [], [], [], []
    for _ in range(rounds):
        best = jnp.argmax(jnp.abs(product(residual, dictionary.T)))
        direction, column = dictionary[best], []
        for known in basis:
            column.append(jnp.sum(direction * known))
            direction -= column[-1] * known
        length = jnp.linalg.norm(direction)
        free = length > SPANNED
        direction = jnp.where(free, unit(direction[None])[0], 0.0)
        amount = jnp.sum(residual * direction)
        residual -= amount * direction
        basis.append(direction)
        atoms.append(best)
        columns.append([*column, jnp.where(free, length, jnp.inf)])
        amounts.append(amount)
    values = back_substitute(columns, amounts)
    code = jnp.zeros(dictionary.shape[0], signal.dtype).at[jnp.stack(atoms)].add(jnp.stack(values))
    error = jnp.sum(residual**2)
    if start is not None:
        known = jnp.sum((signal - product(start, dictionary)) ** 2)
        better = (known < error) & (jnp.sum(start != 0.0) <= nonzeros)
        code, error = jnp.where(better, start, code), jnp.where(better, known, error)
    finite, unknown = jnp.isfinite(error), jnp.full_like(error, jnp.nan)
    steps = jnp.asarray(rounds, jnp.int32)
    return Solution(code, error, 0.5 * error, unknown, steps, finite, finite)


def back_substitute(columns: list[list[Array]], right: list[Array]) -> list[Float[Array, ""]]:
    """Solves R z = right for the columns of an upper triangular R; one of infinity gives a zero."""
    solution: list[Array] = []
    for i in reversed(range(len(columns))):
        known = sum(
            columns[j][i] * z for j, z in zip(range(i + 1, len(columns)), solution, strict=True)
        )
        solution.insert(0, (right[i] - known) / columns[i][i])
    return solution
