"""Maps and small dictionaries of channels, and patches cut out one by one."""

import numpy as np

CHANNELS, ATOMS = 3, 4


def normal(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit_dictionary(size: int, atoms: int = ATOMS, channels: int = CHANNELS) -> np.ndarray:
    dictionary = normal(atoms, size, size, channels, seed=5)
    return dictionary / np.sqrt((dictionary**2).sum((1, 2), keepdims=True))


def patches_of(maps: np.ndarray, size: int, stride: int) -> np.ndarray:
    """float64 [i j s s c]"""
    rows = range(0, maps.shape[0] - size + 1, stride)
    columns = range(0, maps.shape[1] - size + 1, stride)
    cut = [[maps[top : top + size, left : left + size] for left in columns] for top in rows]
    return np.array(cut, np.float64)
