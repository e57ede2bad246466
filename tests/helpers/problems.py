"""Lasso problems of three kinds, and scikit-learn's answers to them in float64."""

import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from skimage import data
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso as SklearnLasso

KINDS = ("random", "texture", "coherent")


class Problem(NamedTuple):
    """Signals to be coded by one dictionary, each at a penalty of its own."""

    dictionary: np.ndarray  # [k d], unit atoms
    signals: np.ndarray  # [m d]
    penalty: np.ndarray  # [m]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@cache
def brick(size: int, stride: int) -> np.ndarray:
    """Patches [p d] of scikit-image's brick: mean removed, divided by the global std."""
    windows = np.lib.stride_tricks.sliding_window_view(data.brick(), (size, size))
    patches = windows[::stride, ::stride].reshape(-1, size * size).astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    return (patches / patches.std()).astype(np.float32)


@cache
def make_problem(
    kind: str, k: int = 60, d: int = 36, m: int = 24, fraction: float = 0.15
) -> Problem:
    """A problem whose penalties are a `fraction` of the penalties that give zero codes.

    random: independent atoms and signals; texture: patches of brick, coded by other patches;
    coherent: each atom has neighbours at a correlation above 0.95.
    """
    rng = np.random.default_rng(7)
    signals = rng.normal(size=(m, d))
    if kind == "random":
        atoms = rng.normal(size=(k, d))
    elif kind == "texture":
        patches = brick(round(d**0.5), 3)
        patches = patches[np.linalg.norm(patches, axis=1) > 1.0]
        patches = patches[rng.permutation(len(patches))]
        atoms, signals = patches[:k], patches[k : k + m]
    else:
        centres = unit(rng.normal(size=(-(-k // 6), d)))
        atoms = np.repeat(centres, 6, axis=0)[:k] + 0.15 / d**0.5 * rng.normal(size=(k, d))
    atoms = unit(atoms).astype(np.float32)
    signals = signals.astype(np.float32)
    return Problem(atoms, signals, (fraction * np.abs(signals @ atoms.T).max(1)).astype(np.float32))


def objectives(problem: Problem, codes: np.ndarray) -> np.ndarray:
    """1/2 ||x - z D||^2 + penalty ||z||_1 of each code, in float64."""
    dictionary, signals, penalty = (part.astype(np.float64) for part in problem)
    codes = np.asarray(codes, np.float64)
    residual = signals - codes @ dictionary
    return 0.5 * (residual**2).sum(1) + penalty * np.abs(codes).sum(1)


def exact_codes(problem: Problem, nonnegative: bool = False) -> np.ndarray:
    """scikit-learn's coordinate descent in float64; its squared error is divided by d."""
    dictionary, signals, penalty = (part.astype(np.float64) for part in problem)
    codes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for signal, amount in zip(signals, penalty, strict=True):
            model = SklearnLasso(
                alpha=amount / len(signal),
                fit_intercept=False,
                tol=1e-12,
                max_iter=20_000,
                positive=nonnegative,
            )
            codes.append(model.fit(dictionary.T, signal).coef_)
    return np.stack(codes)
