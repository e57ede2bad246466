"""Encoders and decoders of strided convolution blocks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoencoders import KEY, SHAPE, drawn, run

from sparse_ad.errors import FieldError
from sparse_ad.nets.autoencoder import auto_encoder
from sparse_ad.nets.blocks import Blocks, grid

SMALL = Blocks(widths=(4, 6), kernels=(4, 4), strides=(2, 2), latent=5)


@pytest.mark.slow
def test_no_norm_at_the_ends():
    """None at the encoder's first layer, the latent, and the decoder's last."""
    variables, code, output = run(SMALL, drawn(3, *SHAPE))
    assert code.shape == (3, 5) and output.shape == (3, *SHAPE)
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
    without = run(replace(SMALL, norm=False), drawn(3, *SHAPE))[0]
    assert "batch_stats" not in without


@pytest.mark.slow
def test_latent_map_keeps_positions():
    """Where only the left half of an image changes, no code far to the right does."""
    images = drawn(2, *SHAPE)
    images = images.at[1, :, 12:].set(images[0, :, 12:])
    _, code, output = run(replace(SMALL, latent_map=True), images)
    assert code.shape == (2, 4, 6, 5) and output.shape == images.shape
    changed = (code[0] != code[1]).any((0, 2))
    assert changed[:3].all() and not changed[4:].any()


def test_encoder_gives_several_numbers_for_a_unit():
    encoder = SMALL.encoder(numbers=2)
    raw = jax.eval_shape(lambda x: encoder.init_with_output(KEY, x, False)[0], drawn(3, *SHAPE))
    assert raw.shape == (3, 10)


def test_bergmann_is_as_published():
    """Nine convolutions; the last, 8x8 on an 8x8 grid, is the dense layer."""
    widths, kernels = (32, 32, 32, 64, 64, 128, 64, 32), (4, 4, 3, 4, 3, 4, 3, 3)
    strides = (2, 2, 1, 2, 1, 2, 1, 1)
    options = Blocks(widths, kernels, strides, norm=False, latent=100)
    network = auto_encoder(options, (128, 128, 1))
    shapes = jax.eval_shape(
        lambda x: network.init(KEY, x, False, lambda raw: (raw, raw)), jnp.zeros((1, 128, 128, 1))
    )["params"]["encoder"]
    shapes = [shapes[f"Convolution_{layer}"]["kernel"].shape for layer in range(8)]
    assert shapes == [
        (size, size, *ends)
        for size, ends in zip(kernels, zip((1, *widths), widths, strict=False), strict=True)
    ]
    assert grid(options, (128, 128)) == (8, 8)


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    """Weights stay float32, and so do results; 8 bits of precision through six layers."""
    images = drawn(2, *SHAPE)
    variables, _, full = run(SMALL, images)
    low, _, half = run(replace(SMALL, dtype="bfloat16"), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low))
    jax.tree.map(np.testing.assert_array_equal, variables, low)
    assert half.dtype == jnp.float32
    assert 0 < jnp.abs(full - half).max() / jnp.abs(full).max() < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float16"),
        ("latent", 0),
        ("slope", -1.0),
        ("widths", ()),
        ("widths", (4, 0)),
        ("kernels", (4,)),
        ("kernels", (4, 3)),
        ("strides", (2, 0)),
        ("strides", (2, 2, 2)),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(FieldError) as error:
        replace(SMALL, **{field: value})
    assert error.value.field == field and error.value.value == value


def test_images_that_do_not_divide_are_named():
    with pytest.raises(FieldError, match=r"strides = \(2, 2\): .* 2 meets \(9, 12\)"):
        auto_encoder(SMALL, (18, 24, 3))
