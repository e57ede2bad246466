"""JAX_ENABLE_X64: everything runs, and float32 stays float32."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.problems import make_problem
from jax import enable_x64

from sparse_ad.sparse.channels import ChannelExactL0, ChannelLasso, ChannelOmp, channel_coder
from sparse_ad.sparse.coder import LassoCoder, lasso_coder, linear_coder
from sparse_ad.sparse.exemplars import ExemplarCoder, exemplar_coder
from sparse_ad.sparse.solvers import LASSO_SOLVERS

PROBLEM = make_problem("random", k=12, d=9, m=6)
CODERS = {name: lasso_coder(LassoCoder(name, penalty=0.5, chunk=4)) for name in LASSO_SOLVERS}
CODERS |= {"linear": linear_coder, "exemplars": exemplar_coder(ExemplarCoder(2))}
CHANNELS = {
    "lasso": ChannelLasso(penalty=0.5),
    "omp": ChannelOmp(nonzeros=2),
    "exact_l0": ChannelExactL0(nonzeros=2),
}


def assert_stays_float32(code, dictionary, signals):
    """With 64 bits: the dtypes are those without them, and so are codes but for rounding."""
    expected = jax.tree.map(np.asarray, jax.jit(code)(dictionary, signals))
    with enable_x64(True):
        found = jax.tree.map(np.asarray, jax.jit(code)(dictionary, signals))
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in expected]
    assert found.code.dtype == np.float32
    np.testing.assert_allclose(found.code, expected.code, atol=1e-5)


OTHERS = ("homotopy", "ista", "coordinate_descent")  # than FISTA, which always runs


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in OTHERS else ()) for name in CODERS],
)
def test_coders(name):
    assert_stays_float32(CODERS[name], PROBLEM.dictionary, PROBLEM.signals)


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.slow
def test_channel_coders(name):
    rng = np.random.default_rng(0)
    atoms, maps = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=(8, 7, 2))
    assert_stays_float32(channel_coder(CHANNELS[name], 2), np.float32(atoms), np.float32(maps))


@pytest.mark.parametrize("name", ["homotopy", "fista"])
def test_float64_stays_float64(name):
    with enable_x64(True):
        code = jax.jit(CODERS[name])
        found = code(np.float64(PROBLEM.dictionary), np.float64(PROBLEM.signals))
        assert found.code.dtype == np.float64
        assert found.converged.all()


DETECTORS = """
import sys

tests = sys.argv[1]
sys.path[:0] = [tests, f"{tests}/methods"]
import jax
from helpers.contract import Fit, thin_backbones
from test_contract import CASES

assert jax.config.jax_enable_x64
for _ in thin_backbones.__wrapped__():
    for name, case in CASES.items():
        fit = Fit(case._replace(steps=1))
        scores = fit.score(fit.images(1, 2))
        leaves = jax.tree.leaves((fit.state, fit.info, fit.params, scores))
        dtypes = {str(leaf.dtype) for leaf in leaves} - {"float32", "int32"}
        assert not dtypes, f"{name}: {dtypes}"
        assert all(jax.numpy.isfinite(leaf).all() for leaf in leaves), name
        print(name)
"""


@pytest.mark.slow
def test_every_detector_runs():
    tests = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-c", DETECTORS, tests],
        cwd=tests.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout
