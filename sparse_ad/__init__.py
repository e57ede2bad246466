"""Image anomaly detection by sparse representation, in JAX.

On arrays: `build` a detector, `fit` it to normal images, `score` others (see `fitting.arrays`).
From configs, with data sets, reports and studies: `python launch.py --help`.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["__version__", "build", "fit", "score"]

if TYPE_CHECKING:
    from sparse_ad.fitting.arrays import build, fit, score


def __getattr__(name: str):
    """Imports `build`, `fit` and `score` when they are first used: they load JAX."""
    if name in ("build", "fit", "score"):
        from sparse_ad.fitting import arrays

        return getattr(arrays, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
