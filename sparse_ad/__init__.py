"""Image anomaly detection by sparse representation, in JAX.

On arrays: `build` a detector, `fit` it to normal images, `score` others (see `fitting.arrays`).
`Predictor(workdir).predict(images)` scores images by a run that was fitted.
From configs, with data sets, reports and studies: `python launch.py --help`.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["Predictor", "__version__", "build", "fit", "score"]

if TYPE_CHECKING:
    from sparse_ad.fitting.arrays import build, fit, score
    from sparse_ad.prediction.predictor import Predictor


def __getattr__(name: str):
    """Imports what is in `__all__` when it is first used: it loads JAX."""
    if name in ("build", "fit", "score"):
        from sparse_ad.fitting import arrays

        return getattr(arrays, name)
    if name == "Predictor":
        from sparse_ad.prediction.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
