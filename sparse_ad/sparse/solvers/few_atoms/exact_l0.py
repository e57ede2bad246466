"""The best code with a bounded number of non-zeros, by trying all supports."""

from itertools import combinations

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Quadratic, Solution
from sparse_ad.sparse.solvers.few_atoms.least_squares import on_support


def exact_l0(
    problem: Quadratic, start: Float[Array, "k ..."] | None = None, *, nonzeros: int
) -> Solution:
    """Minimises ||x - z D||^2 over all z of at most `nonzeros` non-zeros. A step is a support.

    Least squares on a support never fit worse than on a part of it: supports of exactly
    `nonzeros` atoms suffice, 10 for 3 of 5. `start` changes nothing: no code is better.
    """
    count, energy = problem.gram.shape[0], problem.energy
    supports = list(combinations(range(count), min(nonzeros, count)))
    best, gain = jnp.zeros_like(problem.correlation), jnp.full(energy.shape, -1.0, energy.dtype)
    for support in supports:
        code = on_support(problem, support)
        explained = sum(z * problem.correlation[j] for j, z in zip(support, code, strict=True))
        rows = dict(zip(support, code, strict=True))
        full = jnp.stack([rows.get(j, jnp.zeros_like(gain)) for j in range(count)])
        best = jnp.where((explained > gain)[None], full, best)
        gain = jnp.maximum(explained, gain)
    error = jnp.maximum(energy - gain, 0.0)
    steps = jnp.full(energy.shape, len(supports), jnp.int32)
    finite = jnp.isfinite(error)
    return Solution(best, error, 0.5 * error, jnp.zeros_like(gain), steps, finite, finite)
