"""Solvers for dictionaries of a few atoms, where millions of signals are coded at once.

They bear the names of the solvers of one problem, and take a `Quadratic`: atoms are the first axis
(two of the Gram matrix), all other axes are batch axes that broadcast, so that the Gram matrix of a
channel serves all its patches. Signals themselves are never touched. Loops over the k atoms are
unrolled: with k a handful, every operation is one pass over contiguous batches, and nothing is
gathered.
"""

from sparse_ad.sparse.solvers.few_atoms.coordinate_descent import coordinate_descent
from sparse_ad.sparse.solvers.few_atoms.exact_l0 import exact_l0
from sparse_ad.sparse.solvers.few_atoms.omp import omp

__all__ = ["coordinate_descent", "exact_l0", "omp"]
