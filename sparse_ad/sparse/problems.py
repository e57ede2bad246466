"""The two problems of sparse coding, the form that solvers iterate on, and what solvers return.

    Lasso:   minimise over z   1/2 ||x - z D||^2 + penalty ||z||_1          (optionally z >= 0)
    Sparse:  minimise over z   1/2 ||x - z D||^2    with at most `nonzeros` values of z not zero

Source: Imamura et al., MLF-SC, section 3.1, Eq. (1), with D transposed: atoms are rows here.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sparse_ad.errors import require

Count = int | Int[Array, ""]  # a number that may be traced, so that one program serves many
Number = float | Float[Array, ""]


class Lasso(NamedTuple):
    """One signal, to be coded with an L1 penalty."""

    dictionary: Float[Array, "k d"]  # atoms in rows
    signal: Float[Array, " d"]
    penalty: Float[Array, ""]


class Sparse(NamedTuple):
    """One signal, to be coded by a bounded number of atoms."""

    dictionary: Float[Array, "k d"]  # atoms in rows
    signal: Float[Array, " d"]
    nonzeros: int  # at most so many; a Python number, since it sets how much is computed


class Quadratic(NamedTuple):
    """What either problem depends on, for many signals at once; all batch axes come last.

    With G = D D^T and q = D x:   1/2 ||x - z D||^2 = 1/2 (||x||^2 - 2 z q^T + z G z^T).
    Batch axes broadcast: the Gram matrix of a channel serves all its patches.
    """

    gram: Float[Array, "k k ..."]
    correlation: Float[Array, "k ..."]  # of each atom with the signal
    energy: Float[Array, "..."]  # ||x||^2


class Solution(NamedTuple):
    """A code, and how good it is known to be.

    Shapes are those of one signal. A coder returns [m ...] for m signals and [k i j c] for maps;
    solvers of a `Quadratic` return the batch axes last.
    """

    code: Float[Array, "k ..."]
    error: Float[Array, "..."]  # ||x - z D||^2
    objective: Float[Array, "..."]  # 1/2 error + penalty ||z||_1; without penalty 1/2 error
    # Duality gap / objective: the objective exceeds the minimum by this fraction of itself at most.
    # NaN where it is not known, as for matching pursuit.
    gap: Float[Array, "..."]
    steps: Int[Array, "..."]  # iterations; what an iteration is depends on the solver
    converged: Bool[Array, "..."]  # lasso: gap <= tolerance; otherwise: the code is finite
    settled: Bool[Array, "..."]  # converged, or at the rounding floor: float32 allows no better


Dictionary = Float[Array, "k d"] | Float[Array, "k s s c"]
Signals = Float[Array, "m d"] | Float[Array, "h w c"]
Coder = Callable[[Dictionary, Signals], Solution]
"""Codes many signals with one dictionary, or a map [h w c] with a dictionary for each channel."""


@runtime_checkable
class LassoSolver(Protocol):
    """The signature of the solvers of one lasso; callers vmap.

    `start` is a code to begin with. Solvers never raise under jit: the solution says how far they
    came.
    """

    def __call__(
        self,
        problem: Lasso,
        start: Float[Array, " k"] | None = None,
        *,
        max_steps: Count,
        tolerance: Number,  # of the relative duality gap
        nonnegative: bool = False,
    ) -> Solution: ...


@runtime_checkable
class SparseSolver(Protocol):
    """The signature of the solvers of one problem without penalty; callers vmap."""

    def __call__(self, problem: Sparse, start: Float[Array, " k"] | None = None) -> Solution: ...


@runtime_checkable
class QuadraticSolver(Protocol):
    """The signature of the solvers of many problems at once, their options bound by `partial`."""

    def __call__(
        self, problem: Quadratic, start: Float[Array, "k ..."] | None = None
    ) -> Solution: ...


def require_fewer(nonzeros: int, atoms: int) -> None:
    """Raises FieldError where a code would have more non-zeros than there are atoms."""
    require(nonzeros <= atoms, "nonzeros", nonzeros, f"exceeds the {atoms} atoms that there are")


def product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns a @ b in full float32, also where the accelerator's default is TF32 or bfloat16."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def unit(atoms: Float[Array, "k ..."], axes: int | tuple[int, ...] = -1) -> Float[Array, "k ..."]:
    """Returns atoms scaled to length 1, their values along `axes`; a zero atom stays zero."""
    length = jnp.sqrt(jnp.sum(atoms**2, axis=axes, keepdims=True))
    return atoms / jnp.where(length > 0.0, length, 1.0)


def soft_threshold(
    value: Float[Array, "..."], amount: Float[Array, "..."] | float, nonnegative: bool = False
) -> Float[Array, "..."]:
    """Returns argmin_z 1/2 (z - value)^2 + amount |z|, over z >= 0 if `nonnegative`."""
    shrunk = jnp.maximum(value - amount, 0.0)
    return shrunk if nonnegative else shrunk + jnp.minimum(value + amount, 0.0)


def spectral_bound(gram: Float[Array, "k k"]) -> Float[Array, ""]:
    """Returns an upper bound, at most k^(1/64) times too large, of the largest eigenvalue.

    For a positive semi-definite G, largest eigenvalue <= trace(G^64)^(1/64).
    """
    power, log_scale = gram, jnp.zeros((), gram.dtype)
    for _ in range(6):
        scale = jnp.maximum(jnp.trace(power), jnp.finfo(gram.dtype).tiny)
        power, log_scale = power / scale, 2.0 * (log_scale + jnp.log(scale))
        power = product(power, power)
    return jnp.exp((jnp.log(jnp.trace(power)) + log_scale) / 64.0)
