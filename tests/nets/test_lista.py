"""LISTA against the lasso that its first steps solve."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoencoders import KEY, SHAPE, drawn, run

from sparse_ad.errors import FieldError
from sparse_ad.nets.autoencoder import auto_encoder
from sparse_ad.nets.lista import Lista
from sparse_ad.nets.strided import convolve, transposed

SMALL = Lista(kernel=8, stride=4, latent=32)


@pytest.mark.slow
def test_lista_begins_as_ista():
    """As made, its steps lower the lasso of its own dictionary; with one step it thresholds."""
    x = drawn(2, 16, 16, 1)
    variables = SMALL.encoder().init(KEY, x, False)
    dictionary = variables["params"]["synthesis"]
    threshold = float(jax.nn.softplus(variables["params"]["threshold"])[0])
    code = lambda steps: replace(SMALL, steps=steps).encoder().apply(variables, x, False)  # noqa: E731

    def objective(steps):
        residual = x - transposed(code(steps), dictionary, 4)
        return 0.5 * jnp.sum(residual**2) + threshold * jnp.sum(jnp.abs(code(steps)))

    values = [float(objective(steps)) for steps in (1, 2, 3, 6, 12)]
    assert all(np.diff(values) < 0)
    once = convolve(x, dictionary, 4)
    expected = np.where(abs(once) > threshold, once - threshold * np.sign(once), 0.0)
    found = code(1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.asarray(found) == 0).mean() == (abs(once) <= threshold).mean() > 0


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    """Weights stay float32, and so do results; 8 bits of precision through six products."""
    images = drawn(2, *SHAPE)
    _, _, full = run(SMALL, images)
    low, code, half = run(replace(SMALL, dtype="bfloat16"), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("float32")}
    assert code.shape == (2, 4, 6, 32) and half.shape == images.shape
    assert code.dtype == half.dtype == jnp.float32
    assert 0 < jnp.abs(full - half).max() / jnp.abs(full).max() < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float16"),
        ("latent", 0),
        ("steps", 0),
        ("kernel", 6),
        ("kernel", 0),
        ("stride", 0),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(FieldError) as error:
        replace(SMALL, **{field: value})
    assert error.value.field == field and error.value.value == value


def test_images_that_do_not_divide_are_named():
    with pytest.raises(FieldError, match=r"stride = 4: .*18 x 24"):
        auto_encoder(SMALL, (18, 24, 3))
