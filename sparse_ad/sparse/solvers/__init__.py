"""Solvers by name: each takes one problem and returns one Solution; callers vmap.

The stopping rule that ISTA, FISTA and coordinate descent share: `stopping.py`. Versions for a few
atoms and millions of signals: `few_atoms/`.
"""

from sparse_ad.sparse.problems import LassoSolver, SparseSolver
from sparse_ad.sparse.solvers.coordinate_descent import coordinate_descent
from sparse_ad.sparse.solvers.exact_l0 import exact_l0
from sparse_ad.sparse.solvers.fista import fista
from sparse_ad.sparse.solvers.homotopy import homotopy
from sparse_ad.sparse.solvers.ista import ista
from sparse_ad.sparse.solvers.omp import omp

LASSO_SOLVERS: dict[str, LassoSolver] = {
    "homotopy": homotopy,
    "coordinate_descent": coordinate_descent,
    "fista": fista,
    "ista": ista,
}
SPARSE_SOLVERS: dict[str, SparseSolver] = {"omp": omp, "exact_l0": exact_l0}
SOLVERS = LASSO_SOLVERS | SPARSE_SOLVERS
