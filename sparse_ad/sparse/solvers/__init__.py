"""Lasso solvers: each takes one Lasso and returns one Solution; callers vmap."""

from sparse_ad.sparse.solvers.coordinate_descent import coordinate_descent
from sparse_ad.sparse.solvers.fista import fista
from sparse_ad.sparse.solvers.homotopy import homotopy
from sparse_ad.sparse.solvers.ista import ista

SOLVERS = {
    "homotopy": homotopy,
    "coordinate_descent": coordinate_descent,
    "fista": fista,
    "ista": ista,
}
