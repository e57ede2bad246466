"""What the benchmarks share."""

import jax
import numpy as np
import pytest

from benchmarks import peers


@pytest.mark.slow
def test_learning_uses_each_key_once():
    batches = np.random.default_rng(0).normal(size=(4, 16, 6)).astype(np.float32)
    with jax.debug_key_reuse(True):
        dictionary = peers.learner(atoms=3)(jax.random.key(0), batches)
    assert np.isfinite(dictionary).all()
