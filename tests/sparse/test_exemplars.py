"""Exemplar dictionaries: what they promise of every signal, against float64 numpy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from sparse_ad.errors import FieldError
from sparse_ad.options import comments
from sparse_ad.sparse import exemplars
from sparse_ad.sparse.exemplars import ExemplarCoder, Exemplars, exemplar_coder

LENGTH, COUNT = 4, 64  # one shape for nearly all that grows: it is compiled once
ROUNDING = 2e-6  # of the largest energy; the dictionary itself allows for 8 epsilon = 1e-6


def gaussian(count: int = COUNT, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)


def of_length_one(signals: np.ndarray) -> np.ndarray:
    return signals / np.linalg.norm(signals, axis=1, keepdims=True)


def left_over(atoms, signals) -> np.ndarray:
    """What the best of the atoms leaves of each signal, in float64."""
    atoms, signals = np.asarray(atoms, np.float64), np.asarray(signals, np.float64)
    length = np.linalg.norm(atoms, axis=1, keepdims=True)
    rows = np.divide(atoms, length, out=np.zeros_like(atoms), where=length > 0)
    return (signals**2).sum(1) - ((signals @ rows.T) ** 2).max(1)


@cache
def adding(candidates: int = exemplars.CANDIDATES):
    def add(state, signals):  # another function each time: what is compiled is not shared
        return exemplars.add_exemplars(state, signals)

    return jax.jit(add)


def add(state: Exemplars, signals: np.ndarray) -> Exemplars:
    return adding(exemplars.CANDIDATES)(state, signals)


def begin(atoms: int, length: int = LENGTH) -> Exemplars:
    return exemplars.begin_exemplars(atoms, length)


def assert_sound(state: Exemplars, seen: np.ndarray):
    """Atoms are signals seen, each once; the rest is zero; there is room left."""
    count, atoms = int(state.count), np.asarray(state.atoms)
    assert 0 < count < len(atoms)
    assert (atoms[count:] == 0).all()
    same = (atoms[:count, None] == seen).all(-1)
    assert same.any(1).all()
    assert len(np.unique(atoms[:count], axis=0)) == count


def limit(state: Exemplars, signals: np.ndarray) -> float:
    return float(state.radius) + ROUNDING * float((signals**2).sum(1).max())


@pytest.mark.parametrize("candidates", [exemplars.CANDIDATES, 8])
def test_every_signal_of_a_batch_is_coded_within_the_radius(candidates, monkeypatch):
    """At each of several batches, of which each has more signals than there are atoms."""
    monkeypatch.setattr(exemplars, "CANDIDATES", candidates)
    state, radii, batches = begin(16), [0.0], []
    for seed in range(4):
        batches.append(of_length_one(gaussian(seed=seed)))
        state = add(state, batches[-1])
        assert left_over(state.atoms, batches[-1]).max() <= limit(state, batches[-1])
        assert_sound(state, np.concatenate(batches))
        radii.append(float(state.radius))
    assert radii == sorted(radii) and radii[1] > 0.0  # it has overflowed, and never shrinks
    assert radii[1] > exemplars.GROWTH**3 * exemplars.FIRST  # several times
    # An earlier signal was coded by an atom that was coded by another, at a radius of the time:
    # distances add up, errors are their squares. Half as far again is twice the error.
    every = np.concatenate(batches)
    assert left_over(state.atoms, every).max() <= 2.0 * state.radius
    # And it is the radius that the data need: 16 atoms drawn at random do no better.
    drawn = np.random.default_rng(9).choice(every, (50, 16))
    assert state.radius < np.median([left_over(some, every).max() for some in drawn])


def test_rare_signals_keep_their_atom():
    """One in 256, at right angles to all others, whose batch came first."""
    rare = np.array([[0.0, 0.0, 0.0, 1.0]], np.float32)
    state = begin(16)
    for seed in range(4):
        batch = of_length_one(gaussian(seed=seed) * [1, 1, 1, 0]).astype(np.float32)
        if seed == 0:
            batch[20] = rare
        state = add(state, batch)
    assert (np.asarray(state.atoms) == rare).all(1).sum() == 1
    assert left_over(state.atoms, rare)[0] < 1e-6


def test_a_dictionary_that_is_never_full_codes_all_exactly():
    signals = gaussian()
    state = add(begin(65), signals)
    assert state.radius == 0.0
    assert left_over(state.atoms, signals).max() <= limit(state, signals)
    assert_sound(state, signals)
    assert state.count > 60  # 64 directions of which few are nearly equal
    errors = left_over(np.asarray(state.atoms)[:1], signals)
    assert errors[(signals == np.asarray(state.atoms)[0]).all(1)] < 1e-6
    assert (signals**2).sum(1).argmax() == (signals == np.asarray(state.atoms)[0]).all(1).argmax()
    again = add(state, signals)
    np.testing.assert_array_equal(again.atoms, state.atoms)  # nothing is new
    few = add(begin(65), signals[:3])
    assert few.count == 3


@pytest.mark.parametrize("atoms", [16, 65])
@pytest.mark.parametrize("kind", ["duplicated", "scaled", "zero", "some zero", "large", "small"])
def test_degenerate_signals_come_to_an_end(kind, atoms):
    signals = gaussian()
    if kind == "duplicated":
        signals = np.repeat(signals[:4], 16, axis=0)
    elif kind == "scaled":  # copies, as far as codes go
        signals = np.repeat(signals[:4], 16, axis=0) * np.linspace(-2, 3, 64)[:, None]
    elif kind == "zero":
        signals *= 0.0
    elif kind == "some zero":
        signals[::2] = 0.0
    else:
        signals *= {"large": 1e6, "small": 1e-6}[kind]
    signals = signals.astype(np.float32)
    state = add(begin(atoms), signals)
    state = add(state, signals)
    assert np.isfinite(state.atoms).all() and state.count < atoms
    assert left_over(state.atoms, signals).max() <= limit(state, signals)
    directions = {"duplicated": 4, "scaled": 4, "zero": 0}
    if kind in directions:
        assert state.count == directions[kind] and state.radius == 0.0


def test_one_atom_is_no_endless_loop():
    """It is full at once, and goes: then nothing is coded, and the radius says so."""
    signals = gaussian(5)
    state = jax.jit(exemplars.add_exemplars)(begin(1), signals)
    assert state.count <= 1
    assert left_over(state.atoms, signals).max() <= limit(state, signals)


@pytest.mark.parametrize("chunk", [exemplars.CHUNK, 16])
def test_errors_of_one(chunk, monkeypatch):
    monkeypatch.setattr(exemplars, "CHUNK", chunk)
    signals, atoms = 3.0 * gaussian(50, 6), gaussian(10, 6, seed=1)
    atoms[7:] = 0.0
    found = exemplars.errors_of_one(jnp.asarray(atoms), jnp.asarray(signals))
    # Two float32 energies cancel.
    np.testing.assert_allclose(found, left_over(atoms, signals), atol=2e-6 * (signals**2).sum())
    nothing = exemplars.errors_of_one(jnp.zeros((3, 6)), jnp.asarray(signals))
    np.testing.assert_allclose(nothing, (signals**2).sum(1), rtol=1e-5)


def greedy_thinning(atoms, radius) -> list[int]:
    kept: list[int] = []
    for index, atom in enumerate(atoms):
        if not kept or left_over(atoms[kept], atom[None])[0] > radius:
            kept.append(index)
    return kept


def filled(atoms: np.ndarray, radius: float = 0.0) -> Exemplars:
    return Exemplars(jnp.asarray(atoms), jnp.asarray(len(atoms), jnp.int32), jnp.asarray(radius))


thinning = jax.jit(exemplars.thin)


@pytest.mark.parametrize("radius", [0.05, 0.2, 0.5])
def test_thin_keeps_what_no_kept_atom_codes(radius):
    atoms = of_length_one(gaussian(40))
    found = thinning(filled(atoms), radius)
    kept = greedy_thinning(atoms, radius)
    assert 1 < len(kept) < 40
    np.testing.assert_allclose(found.radius, radius, rtol=1e-6)
    assert found.count == len(kept)
    np.testing.assert_array_equal(found.atoms[: len(kept)], atoms[kept])
    assert (found.atoms[len(kept) :] == 0).all()
    assert left_over(atoms[kept], atoms).max() <= radius + ROUNDING


def test_thin_drops_at_least_one():
    """Two of 40 directions are closest; the radius grows until one of them goes, not beyond."""
    atoms = of_length_one(gaussian(40))
    found = thinning(filled(atoms), 1e-6)
    assert found.count < 40
    before = float(found.radius) / exemplars.GROWTH
    assert greedy_thinning(atoms, before * (1 - 1e-3)) == list(range(40))
    assert found.count == len(greedy_thinning(atoms, float(found.radius)))
    square = thinning(filled(np.eye(4, dtype=np.float32)), 1e-3)  # none codes another
    assert square.count < 4 and square.radius >= 1.0


def test_thin_leaves_what_is_not_there():
    atoms = of_length_one(gaussian(40))
    atoms[10:] = 0.0
    state = filled(atoms)._replace(count=jnp.asarray(10, jnp.int32))
    found = thinning(state, 1e-4)
    assert found.count == 10
    np.testing.assert_array_equal(found.atoms, atoms)


def coded(atoms: np.ndarray, signals: np.ndarray, nonzeros: int, **fields):
    coder = jax.jit(exemplar_coder(ExemplarCoder(nonzeros, **fields)))
    return jax.tree.map(np.asarray, coder(atoms, signals))


def test_one_nonzero_is_the_best_there_is():
    atoms, signals = of_length_one(gaussian(12, 8, seed=1)), gaussian(50, 8)
    solution = coded(atoms, signals, 1)
    assert solution.code.shape == (50, 12) and solution.error.shape == (50,)
    every = np.stack([signals - (signals @ a)[:, None] * a for a in atoms.astype(np.float64)])
    best = (every**2).sum(2).argmin(0)
    left = signals - solution.code @ atoms
    np.testing.assert_allclose(left, every[best, np.arange(50)], atol=1e-5)  # float32 products
    errors = exemplars.errors_of_one(jnp.asarray(atoms), jnp.asarray(signals))
    np.testing.assert_allclose(solution.error, errors, atol=1e-5 * (signals**2).sum(1).max())


@pytest.mark.parametrize(("nonzeros", "chunk"), [(2, 16), (3, 16), (8, exemplars.CHUNK)])
def test_pursuit_equals_scikit_learn(nonzeros, chunk, monkeypatch):
    monkeypatch.setattr(exemplars, "CHUNK", chunk)  # 50 signals are no multiple of 16
    atoms, signals = of_length_one(gaussian(12, 8, seed=1)), gaussian(50, 8)
    solution = coded(atoms, signals, nonzeros)
    exact = atoms.astype(np.float64)
    code = orthogonal_mp(exact.T, signals.T.astype(np.float64), n_nonzero_coefs=nonzeros)
    # float32 Gram-Schmidt against float64 least squares: rounding by the condition of the atoms
    np.testing.assert_allclose(solution.code, code.T, atol=1e-4)
    left = ((signals - code.T @ exact) ** 2).sum(1)
    np.testing.assert_allclose(solution.error, left, atol=1e-5 * (signals**2).sum(1).max())


def test_pursuit_beyond_what_the_atoms_span():
    """Copies and missing atoms add nothing, and make no NaN."""
    atoms = np.zeros((6, 8), np.float32)
    atoms[:2] = of_length_one(gaussian(2, 8))
    atoms[2] = atoms[1]
    signals = gaussian(20, 8, seed=3)
    solution = coded(atoms, signals, 4)
    code = np.linalg.lstsq(atoms[:2].T, signals.T, rcond=None)[0]
    expected = signals - code.T @ atoms[:2]
    np.testing.assert_allclose(signals - solution.code @ atoms, expected, atol=1e-5)  # float32
    np.testing.assert_allclose(solution.error, (expected**2).sum(1), rtol=1e-4)


def test_the_state_keeps_its_shape_and_nothing_is_random():
    signals, first = gaussian(), begin(16)
    state = add(first, signals)
    for leaf, other in zip(first, state, strict=True):
        assert leaf.shape == other.shape and leaf.dtype == other.dtype
    assert state.count.dtype == jnp.int32 and state.atoms.dtype == jnp.float32
    for leaf, other in zip(state, add(begin(16), signals), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_codes_are_not_kept_where_only_errors_are_asked_for():
    """Codes of all signals would be ten times the signals themselves."""
    atoms, signals = jnp.zeros((640, 16)), jnp.zeros((50_000, 16))
    coder = exemplar_coder(ExemplarCoder(3))
    errors = jax.jit(lambda atoms, signals: coder(atoms, signals).error)
    memory = errors.lower(atoms, signals).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 50_000 * 640 * 4 / 2


def test_options():
    with pytest.raises(FieldError, match=r"^nonzeros = 0"):
        ExemplarCoder(0)
    assert all(comments(ExemplarCoder).values())


def test_candidates_find_nearly_what_all_atoms_find():
    """Their first atom is the same, and more atoms leave less."""
    signals, atoms = gaussian(40, 12, 1), of_length_one(gaussian(101, 12, 2))
    whole, some = coded(atoms, signals, 3), coded(atoms, signals, 3, candidates=48)
    best = np.abs(signals @ atoms.T).argmax(1)
    assert some.code.shape == whole.code.shape
    assert (np.asarray(some.code)[np.arange(40), best] != 0).all()
    left = ((signals - np.asarray(some.code, np.float64) @ atoms) ** 2).sum(1)
    np.testing.assert_allclose(some.error, left, rtol=1e-3, atol=1e-5)
    assert (np.asarray(some.code) != 0).sum(1).max() <= 3
    one = left_over(atoms, signals)
    assert (np.asarray(some.error) < one).all()
    assert np.mean(np.asarray(some.error)) < 1.2 * np.mean(np.asarray(whole.error))


@pytest.mark.parametrize("candidates", [0, 101, 500])
def test_as_many_candidates_as_atoms_are_all_atoms(candidates):
    signals, atoms = gaussian(40, 12, 1), of_length_one(gaussian(101, 12, 2))
    found, whole = (coded(atoms, signals, 2, candidates=some) for some in (candidates, 0))
    np.testing.assert_array_equal(found.code, whole.code)


def test_fewer_candidates_than_nonzeros_are_refused():
    with pytest.raises(FieldError, match=r"candidates = 2: give 0 \(all exemplars\), or at least"):
        ExemplarCoder(nonzeros=3, candidates=2)
