"""Networks that are trained: strided convolutions against XLA's, encoders, decoders, LISTA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from configs.base import get_config
from sparse_ad.errors import UserError
from sparse_ad.nets import products
from sparse_ad.nets.autoencoder import Blocks, Lista, auto_encoder
from sparse_ad.nets.strided import Convolution, convolve, transposed

KEY = jax.random.key(0)
SHAPES = [(4, 2), (3, 1), (8, 4), (1, 1)]  # kernel, stride
SHAPE = (16, 24, 3)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def net_of(**fields):
    net = get_config().net
    net.update({"widths": (4, 6), "kernels": (4, 4), "strides": (2, 2), "latent": 5, **fields})
    return net


def run(net, images, train=False, shape=SHAPE, **more):
    """Parameters, and code and output of a network whose latent is linear."""
    between = lambda raw: (raw, raw)  # noqa: E731
    network = auto_encoder(net, shape, **more)
    variables = network.init(KEY, images, train, between)
    (code, _, shown), _ = network.apply(variables, images, train, between, mutable=["batch_stats"])
    return variables, code, shown


@pytest.mark.parametrize("cache", [1e9, 1.0])
@pytest.mark.parametrize(("size", "stride"), SHAPES)
def test_products_are_convolutions(size, stride, cache, monkeypatch):
    """Values and gradients, of all images at a time or of one; `transposed` is the adjoint."""
    monkeypatch.setattr(products, "CACHE", cache)
    x, y = drawn(2, 12, 24, 5), drawn(2, 12 // stride, 24 // stride, 7, seed=1)
    kernel = drawn(size, size, 5, 7, seed=2) / size

    def both(function, *arrays):
        results = [function(*arrays, stride, by_products) for by_products in (True, False)]
        np.testing.assert_allclose(*results, atol=1e-5)
        return results[0]

    forward, backward = both(convolve, x, kernel), both(transposed, y, kernel)
    assert forward.shape == y.shape and backward.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(forward, y), jnp.vdot(x, backward), rtol=1e-4)
    for function, array in ((convolve, x), (transposed, y)):
        slopes = [
            jax.grad(lambda *a, f=function, p=p: jnp.sum(f(*a, stride, p) ** 2), (0, 1))(
                array, kernel
            )
            for p in (True, False)
        ]
        for left, right in zip(*slopes, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5 * jnp.abs(right).max())


def test_blocks_lose_no_bits_of_a_sum(monkeypatch):
    """Sums over many images are made in float32 whatever the images are of."""
    x, y = (drawn(64, 8, 8, 3, seed=seed).astype(jnp.bfloat16) for seed in (0, 1))
    whole = products.kernel_gradient(x, y, 3, 1)
    monkeypatch.setattr(products, "CACHE", 1.0)
    blocks = products.kernel_gradient(x, y, 3, 1)
    assert blocks.dtype == jnp.bfloat16
    np.testing.assert_allclose(blocks.astype(float), whole.astype(float), rtol=0.01, atol=1e-2)


def test_transposed_is_conv_transpose():
    """XLA's, which takes the kernel flipped and with its channels the other way round."""
    y, kernel = drawn(2, 6, 12, 7), drawn(4, 4, 5, 7, seed=1)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    expected = lax.conv_transpose(
        y, flipped, (2, 2), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(transposed(y, kernel, 2), expected, atol=1e-4)


@pytest.mark.parametrize("up", [False, True])
def test_new_layers_keep_the_variance(up):
    """He's: a layer halves the mean square for what ReLU lets through; so the sum doubles."""
    module = Convolution(64, 4, 2, up)
    x = drawn(4, 16, 16, 64)
    variables = module.init(KEY, x)
    middle = module.apply(variables, x)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(jnp.mean(middle**2), 2.0, rtol=0.1)


def test_no_norm_at_the_ends():
    """None at the encoder's first layer, the latent, and the decoder's last."""
    variables, code, shown = run(net_of(), drawn(3, *SHAPE))
    assert code.shape == (3, 5) and shown.shape == (3, *SHAPE)
    norms = {name: sorted(part) for name, part in variables["batch_stats"].items()}
    assert norms == {"encoder": ["BatchNorm_0"], "decoder": ["BatchNorm_0", "BatchNorm_1"]}
    biased = {
        f"{half}/{name}"
        for half, part in variables["params"].items()
        for name, layer in part.items()
        if "bias" in layer and "scale" not in layer
    }
    ends = {"encoder/Convolution_0", "encoder/Dense_0", "decoder/Convolution_1"}
    assert biased == ends  # a bias before a norm would have no effect
    without = run(net_of(norm=False), drawn(3, *SHAPE))[0]
    assert "batch_stats" not in without


def test_latent_map_keeps_places():
    """Where only the left half of an image changes, no code far to the right does."""
    images = drawn(2, *SHAPE)
    images[1, :, 12:] = images[0, :, 12:]
    _, code, shown = run(net_of(latent_map=True), images)
    assert code.shape == (2, 4, 6, 5) and shown.shape == images.shape
    changed = (code[0] != code[1]).any((0, 2))
    assert changed[:3].all() and not changed[4:].any()


def test_bergmann_is_as_published():
    """Nine convolutions; the last, 8x8 on an 8x8 grid, is the dense layer."""
    from configs.ae_l2 import get_config

    net = get_config("generated").net
    network = auto_encoder(net, (128, 128, 1))
    shapes = jax.eval_shape(
        lambda x: network.init(KEY, x, False, lambda raw: (raw, raw)), jnp.zeros((1, 128, 128, 1))
    )["params"]["encoder"]
    kernels = [shapes[f"Convolution_{at}"]["kernel"].shape for at in range(8)]
    assert [shape[0] for shape in kernels] == [4, 4, 3, 4, 3, 4, 3, 3]
    assert [shape[3] for shape in kernels] == [32, 32, 32, 64, 64, 128, 64, 32]
    assert shapes["Dense_0"]["kernel"].shape == (8 * 8 * 32, 100)


def test_lista_begins_as_ista():
    """As made, its steps lower the lasso of its own dictionary; with one step it thresholds."""
    blocks = Blocks((32,), (8,), (4,), False, 0.2, jnp.float32)
    x = drawn(2, 16, 16, 1)
    variables = Lista(blocks, 32, 1).init(KEY, x, False)
    dictionary = variables["params"]["synthesis"]
    threshold = float(jax.nn.softplus(variables["params"]["threshold"])[0])

    def objective(steps):
        z = Lista(blocks, 32, steps).apply(variables, x, False)
        left = x - transposed(z, dictionary, 4)
        return 0.5 * jnp.sum(left**2) + threshold * jnp.sum(jnp.abs(z))

    values = [float(objective(steps)) for steps in (1, 2, 3, 6, 12)]
    assert all(np.diff(values) < 0)
    once = convolve(x, dictionary, 4)
    expected = np.where(abs(once) > threshold, once - threshold * np.sign(once), 0.0)
    found = Lista(blocks, 32, 1).apply(variables, x, False)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.asarray(found) == 0).mean() == (abs(once) <= threshold).mean() > 0


@pytest.mark.parametrize("fields", [{}, {"encoder": "lista", "kernels": (8, 4), "strides": (4, 2)}])
def test_bfloat16_is_near_float32(fields):
    """Weights stay float32, and so do results; 8 bits of precision through six layers."""
    images = drawn(2, *SHAPE)
    variables, _, full = run(net_of(**fields), images)
    low, _, half = run(net_of(dtype="bfloat16", **fields), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low))
    jax.tree.map(np.testing.assert_array_equal, variables, low)
    assert half.dtype == jnp.float32
    apart = jnp.abs(full - half).max() / jnp.abs(full).max()
    assert 0 < apart < 0.1


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("encoder", "blocs", "net.encoder"),
        ("dtype", "float16", "net.dtype"),
        ("latent", 0, "net.latent"),
        ("steps", 0, "net.steps"),
        ("widths", (), "net.widths"),
        ("widths", (4, 0), "net.widths"),
        ("kernels", (4,), "net.kernels"),
        ("kernels", (4, 3), "net.kernels"),
        ("strides", (2, 0), "net.strides"),
        ("strides", (2, 2, 2), "net.strides"),
        ("widths", (4,) * 5, "net.kernels"),
    ],
)
def test_bad_fields_are_named(field, value, named):
    with pytest.raises(UserError, match=rf"{named} = "):
        auto_encoder(net_of(**{field: value}), SHAPE)


def test_images_that_do_not_divide_are_named():
    with pytest.raises(UserError, match=r"\(9, 12\).*stride 2"):
        auto_encoder(net_of(), (18, 24, 3))
