"""Dictionaries of all channels at once: against patches written out, one channel at a time."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.channels import ATOMS, CHANNELS, normal, patches_of, unit_dictionary
from jax import lax

from sparse_ad import devices
from sparse_ad.errors import FieldError
from sparse_ad.options import comments
from sparse_ad.sparse import channels
from sparse_ad.sparse.channels import (
    ChannelExactL0,
    ChannelLasso,
    ChannelOmp,
    channel_coder,
)
from sparse_ad.sparse.dictionary import Statistics, fading
from sparse_ad.sparse.problems import Quadratic
from sparse_ad.sparse.solvers import few_atoms

KEY = jax.random.key(0)
CODERS = {
    "omp": ChannelOmp(nonzeros=2),
    "exact_l0": ChannelExactL0(nonzeros=2),
    "lasso": ChannelLasso(penalty=0.3, max_steps=100, tolerance=1e-5),
}
SOLVERS = {
    "omp": partial(few_atoms.omp, nonzeros=2),
    "exact_l0": partial(few_atoms.exact_l0, nonzeros=2),
    "lasso": partial(few_atoms.coordinate_descent, penalty=0.3, max_steps=100, tolerance=1e-5),
}


def test_gram_of_is_that_of_each_channel():
    dictionary = unit_dictionary(3)
    expected = np.einsum("kabc,labc->klc", dictionary, dictionary)
    np.testing.assert_allclose(channels.gram_of(jnp.asarray(dictionary)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "lasso" else name for name in SOLVERS],
)
def test_a_coder_codes_each_channel_alone(name):
    solve, size, stride = SOLVERS[name], 3, 2
    maps, dictionary = normal(9, 8, CHANNELS), unit_dictionary(size)
    found = jax.jit(channel_coder(CODERS[name], stride))(dictionary, maps)
    assert CODERS[name].certified == bool((found.gap > 0.0).any())  # exact codes have none
    patches = patches_of(maps, size, stride)
    positions = patches.shape[:2]
    assert found.code.shape == (ATOMS, *positions, CHANNELS)
    assert {leaf.shape for leaf in found[1:]} == {(*positions, CHANNELS)}
    alone = jax.jit(solve)
    for channel in range(CHANNELS):
        x = patches[..., channel].reshape(-1, size * size)
        d = dictionary[..., channel].reshape(ATOMS, -1).astype(np.float64)
        parts = ((d @ d.T)[..., None], d @ x.T, (x**2).sum(1))
        expected = alone(Quadratic(*(jnp.asarray(part, jnp.float32) for part in parts)))
        z = np.asarray(found.code[..., channel], np.float64).reshape(ATOMS, -1)
        np.testing.assert_allclose(z, expected.code, atol=1e-4)  # rounding by the Gram's condition
        left = found.error[..., channel].ravel()
        np.testing.assert_allclose(left, expected.error, atol=1e-4)
        true = ((x - z.T @ d) ** 2).sum(1)
        np.testing.assert_allclose(left, true, atol=2e-5)  # 1e-6 of an energy of up to 20
        if name == "omp":
            assert np.isnan(found.gap).all()
        else:
            gap = found.gap[..., channel].ravel()
            np.testing.assert_allclose(gap, expected.gap, atol=1e-5)  # both meet the tolerance


def planted(count: int, size: int = 3, across: int = 4, channels: int = CHANNELS):
    """Maps of patches side by side, each a multiple of an atom of its channel, and the atoms."""
    atoms = unit_dictionary(size, 2, channels)
    rng = np.random.default_rng(3)
    which = rng.integers(0, 2, (count, across, across, channels))
    amount = rng.choice([-1.0, 1.0], which.shape) * rng.uniform(0.5, 2.0, which.shape)
    table = np.moveaxis(atoms, -1, 0)  # [c k s s]
    patches = table[np.arange(channels), which] * amount[..., None, None]  # [n i j c s s]
    maps = patches.transpose(0, 1, 4, 2, 5, 3)
    side = size * across
    return maps.reshape(count, side, side, channels).astype(np.float32), atoms


def plain_sum(function, dictionary, maps):
    every = lax.map(partial(function, dictionary), maps)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), every)


@cache
def learning(total=plain_sum):
    coder = channel_coder(ChannelOmp(nonzeros=1), 3)
    return jax.jit(partial(channels.learn_channels, stride=3, coder=coder, total=total))


# One shape for all that learns: it is compiled once.
begun = jax.jit(partial(channels.begin_channels, size=3, stride=3, atoms=2))


@pytest.mark.slow
def test_planted_dictionaries_are_recovered():
    maps, atoms = planted(8)
    state = begun(KEY, maps)
    lengths = np.sqrt((np.asarray(state.dictionary) ** 2).sum((1, 2)))
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    errors = []
    for step in range(12):
        state, info = learning()(jax.random.fold_in(KEY, step), state, maps)
        errors.append(float(info["error"]))
    assert state.step == 12
    energy = (maps.astype(np.float64) ** 2).sum() / (8 * 16 * CHANNELS)  # of a patch
    assert errors[0] > 1e-3 * energy  # the noise of the beginning, if nothing else
    assert errors[-1] < 1e-5 * energy and errors[-1] < errors[0]
    overlap = np.abs(np.einsum("kabc,labc->klc", np.asarray(state.dictionary), atoms))
    # The error is the square of what the atoms are off by: 1e-5 of it leaves 1e-5 of the overlap.
    assert (overlap.max(0) > 1 - 1e-4).all() and (overlap.max(1) > 1 - 1e-4).all()


def test_a_first_step_is_the_mean_over_patches():
    """Statistics and errors of one batch, all patches and channels written out."""
    maps = normal(8, 12, 12, CHANNELS)
    state = begun(KEY, maps)
    after, info = learning()(KEY, state, maps)
    d = np.asarray(state.dictionary, np.float64)
    x = np.stack([patches_of(each, 3, 3) for each in maps])  # [n i j a b c]
    q = np.einsum("nijabc,kabc->knijc", x, d)
    best = np.abs(q).argmax(0)
    z = np.where(np.arange(2)[:, None, None, None, None] == best, q, 0.0)
    count = best[..., 0].size
    error = ((x - np.einsum("knijc,kabc->nijabc", z, d)) ** 2).sum((0, 1, 2, 3, 4)) / count
    # float32 sums of 128 patches, whose errors cancel to 1e-6 of their energy
    np.testing.assert_allclose(after.error, error, rtol=1e-4)
    np.testing.assert_allclose(info["error"], error.mean(), rtol=1e-4)
    assert after.weight == 1.0 and after.step == 1 and info["replaced"] == 0.0
    pairs = np.einsum("knijc,lnijc->klc", z, z) / count
    np.testing.assert_allclose(after.energy, pairs, atol=1e-4)
    cross = np.einsum("knijc,nijabc->kabc", z, x) / count
    np.testing.assert_allclose(after.cross, cross, atol=1e-4)
    again, _ = learning()(KEY, after, maps)
    fade = float(fading(after.step, count))
    assert 0.0 < fade < 1.0
    np.testing.assert_allclose(again.weight, fade + 1.0, rtol=1e-6)


def with_unused(maps: np.ndarray, atoms: np.ndarray) -> Statistics:
    """The second atom of channel 1 is unused, and at right angles to all patches of it."""
    dictionary, basis = atoms.copy(), np.linalg.qr(atoms[..., 1].reshape(2, -1).T)[0]
    other = normal(9, seed=8)
    away = other - basis @ (basis.T @ other)
    dictionary[1, ..., 1] = (away / np.linalg.norm(away)).reshape(3, 3)
    state = begun(KEY, maps)
    energy = jnp.ones_like(state.energy).at[1, :, 1].set(0.0).at[:, 1, 1].set(0.0)
    return state._replace(dictionary=jnp.asarray(dictionary), energy=energy)


def test_an_atom_that_nothing_uses_is_replaced_while_learning():
    maps, atoms = planted(8)
    state = with_unused(maps, atoms)
    state = state._replace(energy=jnp.zeros_like(state.energy))
    old = np.asarray(state.dictionary[1, ..., 1])
    after, info = learning()(KEY, state, maps)
    assert info["replaced"] >= 1 / 6 - 1e-6
    new = np.asarray(after.dictionary[1, ..., 1])
    assert abs((old * new).sum()) < 1e-4  # what it now is, the old one was at right angles to
    np.testing.assert_allclose((new**2).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_channel_makes_no_nan(value):
    maps, _ = planted(8)
    maps[..., 1] = value
    state = begun(KEY, maps)
    for step in range(3):
        state, info = learning()(jax.random.fold_in(KEY, step), state, maps)
        for leaf in jax.tree.leaves((state, info)):
            assert np.isfinite(leaf).all()
    lengths = np.sqrt((np.asarray(state.dictionary) ** 2).sum((1, 2)))
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    assert state.error[1] / state.weight < 1e-2  # either atom or nothing: all is explained


def test_draws_are_patches_of_their_channel_without_repetition():
    maps = normal(2, 7, 8, CHANNELS)
    draw = jax.jit(partial(channels.draw_patches, count=5, size=3, stride=2))
    found = draw(KEY, maps)
    assert found.shape == (5, 3, 3, CHANNELS)
    every = np.stack([patches_of(each, 3, 2) for each in maps])
    every = every.reshape(-1, 3, 3, CHANNELS)
    for channel in range(CHANNELS):
        same = (found[:, None, ..., channel] == every[None, ..., channel]).all((2, 3))
        assert (same.sum(1) == 1).all() and (same.sum(0) <= 1).all()
    other = draw(jax.random.key(1), maps)
    assert (np.asarray(other) != np.asarray(found)).any()


def test_draws_follow_energy():
    """One patch in 12 has nearly all the energy: it is drawn first."""
    maps = np.full((1, 6, 8, 1), 1e-4, np.float32)
    maps[0, 2:4, 4:6] = 1.0
    keys = jax.random.split(KEY, 20)
    draw = partial(channels.draw_patches, maps=jnp.asarray(maps), count=1, size=2, stride=2)
    drawn = jax.jit(jax.vmap(draw))(keys)
    assert (drawn == 1.0).all()  # the odds against are 20 x 11 x 1e-8


def test_more_atoms_than_patches():
    maps = normal(1, 3, 4, 1)  # two patches
    draw = jax.jit(partial(channels.draw_patches, count=5, size=3, stride=1))
    found = draw(KEY, maps)
    np.testing.assert_array_equal(found[:2], found[2:4])
    begin = jax.jit(partial(channels.begin_channels, size=3, stride=1, atoms=5))
    rows = np.asarray(begin(KEY, maps).dictionary).reshape(5, -1)
    gram = rows @ rows.T
    np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-5)
    # Copies differ by noise of a tenth: 0.9 to 1, and never the same.
    assert 0.9 < gram[0, 2] < 1 - 1e-4


def test_eight_devices_sum_as_one():
    """Two maps to each of 8, and a number that they cannot share."""
    assert devices.mesh().size == 8
    dictionary = jnp.asarray(unit_dictionary(3))

    def function(dictionary, each):
        return dictionary * jnp.sum(each**2), jnp.sum(each)

    for count in (16, 5):
        maps = normal(count, 6, 6, CHANNELS)
        found = jax.jit(partial(devices.sum_by_image, function))(dictionary, maps)
        expected = np.asarray(dictionary) * (maps**2).sum(), maps.sum()
        for leaf, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-4)  # another order of sums


def test_learning_on_eight_devices_is_learning_on_one():
    maps, _ = planted(8)
    state = begun(KEY, maps)
    shared, shared_info = learning(devices.sum_by_image)(KEY, state, maps)
    alone, info = learning()(KEY, state, maps)
    for leaf, other in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-4)  # another order of sums
    np.testing.assert_allclose(shared_info["error"], info["error"], rtol=1e-4)


def test_a_patch_must_fit():
    with pytest.raises(FieldError, match="size = 9"):
        channels.begin_channels(KEY, jnp.zeros((2, 12, 8, 1)), 9, 1, 2)


@pytest.mark.parametrize("name", CODERS)
def test_learning_codes_as_scoring_does_but_for_what_five_sweeps_leave(name):
    maps, dictionary = normal(9, 8, CHANNELS), unit_dictionary(3)
    options = CODERS[name]
    exactly, roughly = (
        jax.jit(channel_coder(each, 2))(dictionary, maps)
        for each in (options, options.for_learning())
    )
    if name != "lasso":
        np.testing.assert_array_equal(exactly.code, roughly.code)
        return
    assert (roughly.steps == 5).all()
    met = np.asarray(roughly.gap) <= options.tolerance
    assert met.mean() > 0.8
    np.testing.assert_allclose(roughly.code[:, met], exactly.code[:, met], atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ChannelOmp, "nonzeros", 0),
        (ChannelExactL0, "nonzeros", 0),
        (ChannelLasso, "penalty", 0.0),
        (ChannelLasso, "max_steps", 0),
        (ChannelLasso, "tolerance", 0.0),
    ],
)
def test_bad_fields_are_named(kind, field, value):
    with pytest.raises(FieldError, match=rf"^{field} = {value}"):
        kind(**{field: value})


def test_supports_that_are_too_many_to_compile_are_refused():
    message = r"^nonzeros = 3: of 20 atoms these are 1140 supports, at most 200: give fewer"
    with pytest.raises(FieldError, match=message):
        ChannelExactL0(nonzeros=3).check_atoms(20)
    ChannelExactL0(nonzeros=3).check_atoms(10)


def test_options_say_what_they_mean():
    assert all(
        comments(kind) and all(comments(kind).values()) for kind in map(type, CODERS.values())
    )
