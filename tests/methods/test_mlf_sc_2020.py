"""MLF-SC with the indexing of 2020: dictionary c learns from all channels of patch c."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.channels import patches_of

from sparse_ad.errors import UserError
from sparse_ad.methods.mlf_sc_2020 import MlfSc2020, swap_axes
from sparse_ad.patches import ChannelPatches
from sparse_ad.sparse.channels import ChannelOmp
from sparse_ad.types import Features

KEY = jax.random.key(0)
SIZE, STRIDE, ATOMS, SIDE = 3, 2, 2, 16
OPTIONS = MlfSc2020(
    ChannelPatches(SIZE, STRIDE), ChannelOmp(nonzeros=1), ATOMS, standardise="image"
)


def two_of_a_size(images):
    """Two layers of pixels [n 16 16 1], both on their grid."""
    down = images - jnp.roll(images, 1, axis=1)
    return {"fine": jnp.concatenate([images, 3.0 * down + 1.0], axis=-1), "other": images[:, ::-1]}


def two_sizes(images):
    return {"fine": images, "coarse": images[:, ::2]}


def maps_of(count: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).uniform(size=(count, SIDE, SIDE, 1)).astype(np.float32)
    return {name: np.array(layer) for name, layer in two_of_a_size(images).items()}


def standardised(maps: np.ndarray) -> np.ndarray:
    maps = maps.astype(np.float64)
    return (maps - maps.mean((1, 2), keepdims=True)) / maps.std((1, 2), keepdims=True)


def errors_of(maps: np.ndarray, dictionary) -> np.ndarray:
    """What the better of the atoms leaves of each patch: float64 [i j c]."""
    patches = patches_of(maps, SIZE, STRIDE)
    fit = np.einsum("ijabc,kabc->kijc", patches, np.asarray(dictionary, np.float64)) ** 2
    return (patches**2).sum((2, 3)) - fit.max(0)


@pytest.mark.parametrize("count", [2, 1])
def test_swapped_axes_are_those_of_numpy(count):
    """Dictionary c learns from all channels of patch c; where patches run out, from the first."""
    maps = {name: np.tile(layer[:, :5, :5], 3) for name, layer in maps_of(count).items()}
    maps = {name: layer + np.arange(layer.shape[-1], dtype="f4") for name, layer in maps.items()}
    swapped = swap_axes(jax.tree.map(jnp.asarray, maps), SIZE, STRIDE)
    stacked = np.concatenate(list(maps.values()), axis=-1)  # 9 channels, 4 patches an image
    assert stacked.shape == (count, 5, 5, 9)
    patches = np.stack([patches_of(image, SIZE, STRIDE) for image in stacked])
    patches = patches.reshape(-1, SIZE, SIZE, 9)
    assert len(patches) == 4 * count
    first = 0
    for name, layer in maps.items():
        indices = (first + np.arange(layer.shape[-1])) % len(patches)
        assert swapped[name].shape == (9, SIZE, SIZE, layer.shape[-1])
        expected = patches[indices].transpose(3, 1, 2, 0)  # [c s s C] -> [C s s c]
        np.testing.assert_array_equal(swapped[name], expected.astype(np.float32))
        first += layer.shape[-1]


@pytest.mark.slow
def test_fitting():
    method = OPTIONS.build(Features(two_of_a_size, "two"), (SIDE, SIDE, 1))
    maps, update = maps_of(6), jax.jit(method.update)
    begun = jax.jit(method.init)(KEY, maps)
    state, first = update(KEY, begun, maps)
    ready = {name: jnp.float32(standardised(layer)) for name, layer in maps.items()}
    for name, layer in swap_axes(ready, SIZE, STRIDE).items():
        errors = [errors_of(np.asarray(one), begun[name].learned.dictionary) for one in layer]
        # float32: what cancelling leaves of energies many times as large.
        np.testing.assert_allclose(first[f"error_{name}"], np.mean(errors), rtol=1e-4)
    for _ in range(4):
        state, info = update(KEY, state, maps)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, info)))
    params = method.finish(KEY, state)
    shapes = {name: layer.dictionary.shape for name, layer in params.items()}
    assert shapes == {"fine": (ATOMS, SIZE, SIZE, 2), "other": (ATOMS, SIZE, SIZE, 1)}
    # 3 patches (one of each channel) for 2 atoms: the same at each step, and well described.
    errors, begun_errors = (sum(i[f"error_{name}"] for name in maps) for i in (info, first))
    assert errors < begun_errors


def test_layers_of_one_size_are_wanted():
    with pytest.raises(UserError, match=r"features\.shrink: leaves maps of 8 x 16 and 16 x 16"):
        OPTIONS.build(Features(two_sizes, "two"), (SIDE, SIDE, 1))
