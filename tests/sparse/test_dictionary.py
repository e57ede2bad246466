"""Dictionary learning: against loops, closed forms, a planted dictionary and scikit-learn."""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.problems import brick, unit
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from sparse_ad.sparse.coder import LassoCoder, lasso_coder
from sparse_ad.sparse.dictionary import (
    Statistics,
    Sums,
    add_batch,
    begin_dictionary,
    draw_signals,
    fading,
    improve_atoms,
    learn,
    replace_unused,
)
from sparse_ad.sparse.problems import Solution

KEY = jax.random.key(0)


@cache
def make_coder(penalty=1.0, **fields):
    options = LassoCoder(**{"penalty": penalty, "chunk": 256, "solver": "fista", **fields})
    return jax.jit(lasso_coder(options))


begin = jax.jit(begin_dictionary, static_argnums=2)


@cache
def learner(code):
    return jax.jit(partial(learn, coder=code))


def fit(signals, atoms, code, *, batch, epochs=1, seed=0):
    """The states after each minibatch, and what was logged last."""
    key, signals = jax.random.key(seed), jnp.asarray(signals)
    state = begin(key, signals[: 4 * batch], atoms)
    states = [state]
    for number in range(epochs * (len(signals) // batch)):
        first = number * batch % (len(signals) // batch * batch)
        rows = signals[first : first + batch]
        state, info = learner(code)(jax.random.fold_in(key, number), state, rows)
        states.append(state)
    return states, info


def empty(dictionary) -> Statistics:
    """Statistics of no signals, of one dictionary [k d]."""
    atoms, zero = len(dictionary), jnp.zeros(())
    energy, cross = jnp.zeros((atoms, atoms)), jnp.zeros(dictionary.shape)
    return Statistics(dictionary, energy, cross, zero, zero, jnp.zeros((), jnp.int32))


def lengths(dictionary):
    return np.linalg.norm(dictionary, axis=1)


def shuffled_brick(size, stride, seed=0):
    patches = brick(size, stride)
    return patches[np.random.default_rng(seed).permutation(len(patches))]


@pytest.fixture(scope="module")
def code():
    """The solver that compiles fastest: learning knows of none."""
    return make_coder()


@pytest.fixture(scope="module")
def texture(code):
    """40 atoms for 8x8 patches of brick: training and held-out signals, states, log."""
    signals = shuffled_brick(8, 8)
    train, held_out = signals[:3072], signals[3072:]
    return train, held_out, *fit(train, 40, code, batch=256)


def test_atoms_have_length_one_always(texture):
    _, _, states, _ = texture
    for state in states:
        np.testing.assert_allclose(lengths(state.dictionary), 1.0, rtol=1e-5)


def test_state_does_not_grow(texture):
    _, _, states, _ = texture
    for state in states:
        assert [leaf.shape for leaf in state] == [(40, 64), (40, 40), (40, 64), (), (), ()]


def test_held_out_objective_falls(texture, code):
    _, held_out, states, info = texture
    cost = [float(code(states[at].dictionary, held_out).objective.mean()) for at in (0, 3, -1)]
    assert cost[0] > 1.02 * cost[1]
    assert cost[1] > cost[2]
    assert info["converged"] == 1.0
    assert 0.0 < info["nonzeros"] < 40.0


def test_deterministic(texture, code):
    train, *_ = texture
    again, _ = fit(train[:512], 40, code, batch=256)
    more, _ = fit(train[:512], 40, code, batch=256, seed=1)
    assert (again[0].dictionary != more[0].dictionary).any()
    once_more, _ = fit(train[:512], 40, code, batch=256)
    for leaf, other in zip(again[-1], once_more[-1], strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.slow
def test_recovers_a_planted_dictionary():
    """Codes of 2 in 20 atoms, in small batches: few local minima, and steps to leave them."""
    rng = np.random.default_rng(5)
    planted = unit(rng.normal(size=(20, 20)))
    places = rng.random((4000, 20)).argsort(1)[:, :2]
    values = rng.choice([-1, 1], (4000, 2)) * rng.uniform(1, 3, (4000, 2))
    codes = np.zeros((4000, 20))
    np.put_along_axis(codes, places, values, 1)
    signals = (codes @ planted + 0.01 * rng.normal(size=(4000, 20))).astype(np.float32)
    code = make_coder(penalty=0.3)
    states, _ = fit(signals, 20, code, batch=50, epochs=4)
    match = np.abs(states[-1].dictionary @ planted.T).max(0)
    before = np.abs(states[0].dictionary @ planted.T).max(0)
    assert (before > 0.95).mean() < 0.3
    assert (match > 0.95).mean() >= 0.9


def in_float64(dictionary, energy, cross) -> np.ndarray:
    """One pass over the atoms [k d] of one dictionary, each by its best value in full."""
    dictionary = dictionary.astype(np.float64)
    for j in range(len(dictionary)):
        if energy[j, j] > 0.0:
            others = energy[j] @ dictionary - energy[j, j] * dictionary[j]
            best = (cross[j] - others) / energy[j, j]
            dictionary[j] = best / np.linalg.norm(best)
    return dictionary


@pytest.mark.parametrize("shape", [(7, 5), (7, 3, 2, 4)])
def test_one_update_equals_float64(shape):
    """A single dictionary [k d] and one for each of 4 channels [k s s c]: by loops in NumPy."""
    rng, count = np.random.default_rng(0), 30
    batch = shape[3:]
    dictionary = rng.normal(size=shape)
    axes = tuple(range(1, len(shape) - len(batch)))
    dictionary /= np.sqrt((dictionary**2).sum(axes, keepdims=True))
    codes = rng.normal(size=(count, 7, *batch))
    codes[:, 3] = 0.0  # unused: must stay
    signals = rng.normal(size=(count, *shape[1:]))
    letters = "ab"[: len(axes)] + "c"[: len(batch)]
    energy = np.einsum("nk...,nl...->kl...", codes, codes)
    cross = np.einsum(f"nk{letters[len(axes) :]},n{letters}->k{letters}", codes, signals)
    error = rng.uniform(1.0, 2.0, batch)
    sums = Sums(*(jnp.asarray(part, jnp.float32) for part in (energy, cross, error)))
    old = empty(jnp.asarray(dictionary, jnp.float32))
    old = old._replace(
        energy=jnp.ones_like(sums.energy), cross=jnp.ones_like(sums.cross), step=jnp.asarray(2)
    )
    old = old._replace(error=jnp.ones_like(sums.error), weight=jnp.asarray(1.5))
    state = jax.jit(add_batch, static_argnums=2)(old, sums, count)
    fade = (3 * 30.0 + 1.0 - 30.0) / (3 * 30.0 + 1.0)  # as long as t = 3 < m = 30
    energy, cross = fade + energy / count, fade + cross / count
    np.testing.assert_allclose(state.energy, energy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.cross, cross, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.error, fade + error / count, rtol=1e-5)
    np.testing.assert_allclose(state.weight, fade * 1.5 + 1.0, rtol=1e-6)
    assert state.step == 3
    energy, cross = np.asarray(state.energy, np.float64), np.asarray(state.cross, np.float64)
    for index in np.ndindex(*batch):
        parts = (part[(..., *index)] for part in (dictionary, energy, cross))
        flat = [part.reshape(7, -1) for part in parts]
        updated = np.asarray(state.dictionary)[(..., *index)].reshape(7, -1)
        np.testing.assert_allclose(updated, in_float64(*flat), atol=2e-5)  # float32 Gauss-Seidel


@pytest.mark.parametrize("shape", [(7, 5), (7, 3, 2, 4)])
def test_an_unused_atom_stays(shape):
    rng = np.random.default_rng(0)
    batch = shape[3:]
    energy = np.abs(rng.normal(size=(7, 7, *batch))).astype(np.float32)
    energy[3], energy[:, 3] = 0.0, 0.0
    dictionary, cross = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    updated = improve_atoms(dictionary, jnp.asarray(energy), cross)
    np.testing.assert_array_equal(updated[3], dictionary[3])
    assert (updated[2] != dictionary[2]).all()


def test_unused_atoms_of_one_channel_are_replaced():
    """The second atom of channel 1 of 3; a channel whose draws are zeros keeps what it has."""
    rng = np.random.default_rng(0)
    dictionary = jnp.asarray(rng.normal(size=(2, 3, 3, 3)), jnp.float32)
    drawn = jnp.asarray(rng.normal(size=(2, 3, 3, 3)), jnp.float32).at[..., 2].set(0.0)
    energy = jnp.ones((2, 2, 3)).at[1, :, 1:].set(0.0).at[:, 1, 1:].set(0.0)
    ones = jnp.ones(3)
    cross = jnp.ones(dictionary.shape)
    state = Statistics(dictionary, energy, cross, ones, jnp.ones(()), jnp.ones((), jnp.int32))
    after, replaced = jax.jit(replace_unused, static_argnums=1)(state, lambda: drawn)
    np.testing.assert_allclose(replaced, 1 / 6, rtol=1e-6)  # one of 2 atoms of 3 channels
    expected = np.asarray(drawn[1, ..., 1]) / np.linalg.norm(drawn[1, ..., 1])
    np.testing.assert_allclose(after.dictionary[1, ..., 1], expected, rtol=1e-5)
    assert not after.energy[1, :, 1].any() and not after.energy[:, 1, 1].any()
    assert not after.cross[1, ..., 1].any()
    kept = np.ones((2, 3), bool)
    kept[1, 1] = False
    for atom, channel in np.argwhere(kept):
        at = (atom, ..., channel)
        np.testing.assert_array_equal(after.dictionary[at], dictionary[at])
        np.testing.assert_array_equal(after.cross[at], 1.0)
        np.testing.assert_array_equal(
            after.energy[atom, atom, channel], energy[atom, atom, channel]
        )
    full = state._replace(energy=jnp.ones_like(energy))
    same, none = jax.jit(replace_unused, static_argnums=1)(full, lambda: drawn)
    assert none == 0.0
    np.testing.assert_array_equal(same.dictionary, dictionary)


@pytest.mark.parametrize("count", [1, 8, 256, 100_000])
def test_fading_is_the_formula(count):
    for step in (0, 1, 7, 300):
        t = step + 1.0
        theta = t * count if t < count else count**2 + t - count
        expected = (theta + 1.0 - count) / (theta + 1.0)
        np.testing.assert_allclose(fading(jnp.asarray(step), count), expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_weighted_sums(texture, code):
    """A and B by numpy from the codes: older batches fade as Mairal et al. say."""
    train, held_out, states, _ = texture
    energy, cross = np.zeros((40, 40)), np.zeros((40, 64))
    coded = train[: len(held_out)]  # as many as elsewhere: compiled once
    for t in range(1, 4):
        batch = slice((t - 1) * 256, t * 256)
        rows = coded[batch].astype(np.float64)
        z = np.asarray(code(states[t - 1].dictionary, coded).code[batch], np.float64)
        theta = t * 256.0  # as long as t < 256
        fade = (theta + 1.0 - 256.0) / (theta + 1.0)
        energy, cross = fade * energy + z.T @ z / 256, fade * cross + z.T @ rows / 256
    kept = np.asarray(jnp.diag(states[3].energy) > 0.0)  # not replaced
    assert kept.mean() > 0.8
    both = np.ix_(kept, kept)
    np.testing.assert_allclose(states[3].energy[both], energy[both], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(states[3].cross[kept], cross[kept], rtol=1e-3, atol=1e-3)
    assert states[3].step == 3


def test_one_signal_over_and_over_has_a_closed_form():
    """One atom x / |x|: its code is |x| - penalty whatever the weights, so A and B follow."""
    signal = np.asarray([[3.0, 4.0, 0.0]], np.float32)
    signals = np.repeat(signal, 8, axis=0)
    state = empty(jnp.asarray(signal / 5.0))
    total = 0.0
    for t in range(1, 4):
        state, info = learner(make_coder())(KEY, state, signals)
        total = total * (t * 8 + 1 - 8) / (t * 8 + 1) + 1.0
        np.testing.assert_allclose(state.energy, [[16.0 * total]], rtol=1e-5)
        np.testing.assert_allclose(state.cross, 4.0 * total * signal, rtol=1e-5)
        np.testing.assert_allclose(state.dictionary, signal / 5.0, rtol=1e-5)
        np.testing.assert_allclose(info["objective"], 4.5, rtol=1e-5)  # 1/2 + 4


def test_unused_atoms_are_replaced_by_what_is_coded_worst():
    dictionary = jnp.eye(4)
    energy = jnp.ones((4, 4)) - jnp.diag(jnp.asarray([0.0, 1.0, 0.0, 1.0]))
    state = empty(dictionary)._replace(energy=energy, cross=jnp.ones((4, 4)))
    signals = jnp.asarray([[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]])
    draw = partial(draw_signals, KEY, signals, jnp.asarray([0.0, 1.0]), 4)
    found, replaced = replace_unused(state, draw)
    assert replaced == 0.5
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        found.dictionary, [[1, 0, 0, 0], [0, 0, half, half], [0, 0, 1, 0], [0, 0, half, half]]
    )
    alive = np.asarray([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(found.energy, np.asarray(energy) * alive[:, None] * alive)
    np.testing.assert_array_equal(found.cross, alive[:, None] * np.ones((4, 4)))


def test_unused_atoms_become_useful(texture, code):
    """Atoms of noise, which texture never uses, are gone after a few batches."""
    train, _, states, _ = texture
    noise = unit(np.random.default_rng(0).normal(size=(5, 64))).astype(np.float32)
    spoiled = states[-1].dictionary.at[:5].set(noise)
    state = states[0]._replace(dictionary=spoiled)
    for number in range(4):
        rows = train[number * 256 : (number + 1) * 256]
        state, _ = learner(code)(jax.random.fold_in(KEY, number), state, rows)
    assert np.abs(jnp.sum(state.dictionary[:5] * noise, axis=1)).max() < 0.9
    np.testing.assert_allclose(lengths(state.dictionary), 1.0, rtol=1e-5)


def test_flat_signals_leave_atoms_alone():
    """Nothing but zeros: no atom is used, none can be replaced, nothing becomes NaN."""
    signals = jnp.zeros((16, 9))
    state = begin(KEY, signals, 5)
    np.testing.assert_allclose(lengths(state.dictionary), 1.0, rtol=1e-5)
    after, info = learner(make_coder())(KEY, state, signals)
    np.testing.assert_array_equal(after.dictionary, state.dictionary)
    assert all(np.isfinite(value) for value in info.values())


def test_fewer_signals_than_atoms():
    signals = jnp.asarray(shuffled_brick(8, 8)[:6])
    state = begin(KEY, signals, 20)
    np.testing.assert_allclose(lengths(state.dictionary), 1.0, rtol=1e-5)
    likeness = np.abs(state.dictionary @ state.dictionary.T - np.eye(20))
    assert likeness.max() < 0.9999  # copies are told apart
    for number in range(3):
        state, info = learner(make_coder())(jax.random.fold_in(KEY, number), state, signals)
    assert np.isfinite(state.dictionary).all()
    assert np.isfinite(info["objective"])


def test_starts_from_signals_with_energy():
    strong = 5.0 * np.eye(3, 6, dtype=np.float32)
    signals = jnp.concatenate([jnp.asarray(strong), jnp.zeros((50, 6))])
    found = np.asarray(begin(KEY, signals, 3).dictionary)
    np.testing.assert_array_equal(np.sort(found.argmax(1)), [0, 1, 2])


def test_codes_come_from_the_coder_given():
    """`learn` knows of no solver: with codes x D^T it takes a step of plain matrix factoring."""
    rng = np.random.default_rng(0)
    signals = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)

    def project(dictionary, rows):
        one = jnp.ones(len(rows))
        return Solution(rows @ dictionary.T, one, one, 0 * one, one, one == 1, one == 1)

    state = begin(KEY, signals, 3)
    after, info = learner(project)(KEY, state, signals)
    z = signals @ state.dictionary.T
    np.testing.assert_allclose(after.energy, z.T @ z / 12, rtol=1e-5)
    assert info["objective"] == 1.0


def test_no_worse_than_scikit_learn(texture, code):
    """Held-out objective after the same patches in the same batches; 0.5 %: the seeds' spread."""
    train, held_out, states, _ = texture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = MiniBatchDictionaryLearning(
            40, alpha=1.0, batch_size=256, fit_algorithm="cd", max_iter=1, random_state=0
        ).fit(train.astype(np.float64))
    theirs = code(unit(peer.components_).astype(np.float32), held_out).objective.mean()
    ours = code(states[-1].dictionary, held_out).objective.mean()
    assert ours <= 1.005 * theirs
