"""The best code with a bounded number of non-zeros, for dictionaries of a few atoms."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.sparse.problems import Quadratic, Solution, Sparse, product
from sparse_ad.sparse.solvers import few_atoms


def exact_l0(problem: Sparse, start: Float[Array, " k"] | None = None) -> Solution:
    """Codes one signal exactly, by trying all supports: 10 for 3 of 5 atoms, 1,140 for 3 of 20.

    A step is a support. `start` changes nothing: no code is better.
    """
    dictionary, signal, nonzeros = problem
    quadratic = Quadratic(
        product(dictionary, dictionary.T), product(dictionary, signal), jnp.sum(signal**2)
    )
    return few_atoms.exact_l0(quadratic, start, nonzeros=nonzeros)
