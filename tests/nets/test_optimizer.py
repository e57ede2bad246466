"""Adam against its definition."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_ad.errors import FieldError
from sparse_ad.nets.optimizer import Adam


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_adam_by_hand(momentum):
    """Three steps in float64, the decay in the gradient."""
    gradients, weight = np.array([[0.3, -2.0], [0.1, 0.5], [-0.2, 1.0]]), np.array([1.0, -0.5])
    optimizer = Adam(learning_rate=0.01, weight_decay=0.1).build(momentum)
    params = jnp.asarray(weight, jnp.float32)
    state, first, second = optimizer.init(params), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        change, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, change)
        gradient = gradient + 0.1 * weight
        first = momentum * first + (1 - momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - momentum**step), second / (1 - 0.999**step)
        weight = weight - 0.01 * mean / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(params, weight, rtol=1e-5)  # float32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("weight_decay", -1.0),
        ("weight_decay", float("nan")),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(FieldError, match=rf"^{field} = "):
        Adam(**{field: value})
