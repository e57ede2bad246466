"""MLF-SC's parts in scikit-learn, SPAMS and PyTorch."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import spams
from sklearn.decomposition import sparse_encode

from sparse_ad.patches import extract

EVERY = 16  # scikit-learn codes each 16th channel: all would take minutes
POOLED = ("conv2_1", "conv3_1", "conv4_1")  # layers of VGG16 behind a max pooling
BLOCKS = ((1, 2), (2, 2), (3, 3), (4, 3))  # of VGG16 to conv4_3: number, layers


class Channels(NamedTuple):
    """Patches cut and laid out, a channel at a time, in float64: all that peers have to code."""

    signals: list[np.ndarray]  # [p d]
    dictionaries: list[np.ndarray]  # [k d]


def cut(maps: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Returns all patches of maps [n h w c], by channel: [c n*p d]."""
    patches = jax.jit(jax.vmap(lambda one: extract(one, size, stride)))(jnp.asarray(maps))
    patches = np.asarray(patches).reshape(-1, size * size, maps.shape[-1])
    return patches.transpose(2, 0, 1)


def lay_out(maps: np.ndarray, dictionary: np.ndarray, stride: int) -> Channels:
    """Returns what peers are handed of one image: maps [h w c], dictionary [k s s c]."""
    atoms, size, _, channels = dictionary.shape
    flat = dictionary.reshape(atoms, -1, channels).transpose(2, 0, 1)
    return Channels(
        list(cut(maps[None], size, stride).astype(np.float64)), list(flat.astype(np.float64))
    )


def spams_coders(channels: Channels, penalty: float, nonzeros: int) -> dict[str, Callable]:
    """Returns SPAMS's lasso and OMP of all channels."""
    signals, dictionaries = ([np.asfortranarray(each.T) for each in part] for part in channels)
    threads = os.cpu_count()

    def each(code: Callable, **settings) -> list[Any]:
        pairs = zip(signals, dictionaries, strict=True)
        return [code(*pair, numThreads=threads, **settings) for pair in pairs]

    return {
        "spams lasso": partial(each, spams.lasso, lambda1=penalty, mode=2),
        "spams omp": partial(each, spams.omp, L=nonzeros),
    }


def scikit_learn_coders(channels: Channels, penalty: float, nonzeros: int) -> dict[str, Callable]:
    """Returns scikit-learn's LARS and OMP of each 16th channel."""
    pairs = list(zip(*channels, strict=True))[::EVERY]

    def each(**settings) -> list[np.ndarray]:
        return [sparse_encode(*pair, **settings) for pair in pairs]

    return {
        "scikit-learn lasso_lars": partial(each, algorithm="lasso_lars", alpha=penalty),
        "scikit-learn omp": partial(each, algorithm="omp", n_nonzero_coefs=nonzeros),
    }


def spams_learner(
    columns: list[np.ndarray], atoms: int, penalty: float, size: int, threads: int
) -> list[np.ndarray]:
    """Returns SPAMS's dictionaries of signals [d p] of each channel, in minibatches of `size`."""
    settings = {"K": atoms, "lambda1": penalty, "mode": 2, "verbose": False}
    settings |= {"batchsize": size, "numThreads": threads}
    return [spams.trainDL(each, iter=each.shape[1] // size, **settings) for each in columns]


def torch_vgg16(params, image: np.ndarray, channels_last: bool) -> Callable | None:
    """Returns VGG16 to conv4_3 in PyTorch, of an image [1 h w 3]; None where it is missing."""
    try:
        import torch
    except ImportError:
        return None
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def load(array):
        return torch.tensor(np.ascontiguousarray(array)).to(memory_format=layout)

    names = [f"conv{block}_{i}" for block, count in BLOCKS for i in range(1, count + 1)]
    kernels = [load(np.asarray(params[name]["kernel"]).transpose(3, 2, 0, 1)) for name in names]
    biases = [torch.tensor(np.asarray(params[name]["bias"])) for name in names]
    start = load(image.transpose(0, 3, 1, 2))
    relu, pool = torch.nn.functional.relu, torch.nn.functional.max_pool2d

    def forward():
        with torch.inference_mode():
            x = start
            for name, kernel, bias in zip(names, kernels, biases, strict=True):
                x = pool(x, 2) if name in POOLED else x
                out = torch.nn.functional.conv2d(x, kernel, bias, padding=1)
                x = relu(out)
            return out.numpy()

    return forward
