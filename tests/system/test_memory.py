"""Too little memory is one line that names the stage and the fields to lower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.system.memory import enough_memory

HUGE = 1 << 46


@pytest.mark.parametrize("array", [np.ones, jax.jit(jnp.ones, static_argnums=0)])
def test_memory_of_host_and_device(array):
    message = "^fit: not enough memory .*; lower fit.batch_size$"
    with (
        pytest.raises(UserError, match=message) as caught,
        enough_memory("fit", "fit.batch_size"),
    ):
        np.asarray(array(HUGE))
    assert "\n" not in str(caught.value)


def test_other_errors_are_left_alone():
    with pytest.raises(ZeroDivisionError), enough_memory("fit", "fit.batch_size"):
        raise ZeroDivisionError
