"""Tests see eight CPU devices, checked annotations, and no silent rank promotion.

All processes of a run share what XLA compiled: tests, workers of pytest-xdist, runs of launch.py.
"""

import os
import tempfile

FOLDER = None  # made by the process that starts the others, which inherit its environment
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    FOLDER = tempfile.TemporaryDirectory(prefix="sparse_ad_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax  # noqa: E402  it reads the environment
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("sparse_ad", "beartype.beartype")


def pytest_unconfigure():
    """Deletes what was compiled."""
    if FOLDER:
        FOLDER.cleanup()
