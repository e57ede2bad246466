"""MLF-SC's parts beside their peers: coding, learning, the network, the whole.

  python -m benchmarks.mlf_sc [--repeats=5] [--seed=0] [--output=FILE]

One generated texture of 256x256, VGG16 and the published code's maps (28 x 28 x 896): 108,416
patches of 8x8 at stride 2, 5 atoms a channel. Contenders take turns in one process; seconds are
medians, compilation apart.

coding     all patches coded and scored. Peers are handed patches that are cut and laid out
           already, a channel at a time, and only code them: scikit-learn lasso_lars and OMP (on
           every 16th channel, times 16), SPAMS lasso and OMP.
learning   the patches of 16 images, all channels; SPAMS trainDL with minibatches of three sizes
           (the smaller two on every 16th channel, times 16).
network    VGG16 to conv4_3, one image; PyTorch in both of its memory layouts, where it is installed
           (pip install torch==2.13.0).
whole      image -> score against the network alone; fitting against extracting the features.

Targets on 2 cores: coding <= 0.025 s; network no slower than PyTorch's; image -> score <= 1.3 times
the network's forward passes; fitting <= 1.5 times feature extraction; learning >= 10 times SPAMS.
The floor of ours: operations at this machine's rate of float32 products, or bytes at its copying
rate, if more.
"""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import mlf_sc_peers, peers
from benchmarks.mlf_sc_peers import EVERY
from configs.mlf_sc import AS_DESCRIBED, PUBLISHED_CODE
from sparse_ad.data.sources.generated import generate
from sparse_ad.devices import sum_by_image
from sparse_ad.features.backbones import build_backbone
from sparse_ad.features.weights import load_weights
from sparse_ad.methods.compiled import compile_score
from sparse_ad.patches import top_rows
from sparse_ad.sparse.channels import (
    CHANNEL_CODERS,
    ChannelCoder,
    channel_coder,
    learn_channels,
)
from sparse_ad.sparse.dictionary import Statistics
from sparse_ad.types import Method

PENALTY, ATOMS, NONZEROS, SIZE, STRIDE, TOP = 1.0, 5, 3, 8, 2, 5
IMAGES = 16
SHAPE = (256, 256, 3)  # of the images
CONVOLUTIONS = (  # side, channels in, channels out, of VGG16 to conv4_3 at 256x256
    *((256, 3, 64), (256, 64, 64), (128, 64, 128), (128, 128, 128), (64, 128, 256)),
    *((64, 256, 256), (64, 256, 256), (32, 256, 512), (32, 512, 512), (32, 512, 512)),
)


def coder_of(name: str) -> ChannelCoder:
    """Returns the options of a coder: the penalty as described, the non-zeros as published."""
    return AS_DESCRIBED[1].coder if name == "lasso" else CHANNEL_CODERS[name](NONZEROS)


def build(solver: str) -> Method:
    """Returns the detector of the published code, with another solver."""
    features, options = PUBLISHED_CODE
    return replace(options, coder=coder_of(solver)).build(features.build(SHAPE[:2]), SHAPE)


def images(count: int, seed: int) -> np.ndarray:
    made = [generate("carpet", "train", "good", at, SHAPE[:2], seed)[0] for at in range(count)]
    return np.stack(made).astype(np.float32) / 255


def standardised(maps: dict) -> np.ndarray:
    """The maps of all layers, each channel of each image to mean 0, std 1: [n 28 28 896]."""
    every = np.concatenate([np.asarray(layer) for layer in maps.values()], axis=-1)
    centred = every - every.mean((1, 2), keepdims=True)
    return centred / np.maximum(centred.std((1, 2), keepdims=True), 1e-6)


def prepare(seed: int) -> tuple[np.ndarray, Statistics]:
    """Returns maps of 16 images, and what four passes over them teach, all layers in one."""
    method, keys = build("lasso"), jax.random.split(jax.random.key(seed), 5)
    maps = method.features.extract(images(IMAGES, seed))
    state, update = jax.jit(method.init)(keys[0], maps), jax.jit(method.update)
    for key in keys[1:]:
        state, _ = update(key, state, maps)
    learned = [layer.learned for layer in state.values()]
    joined = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves, -1) if leaves[0].ndim else leaves[0], *learned
    )
    return standardised(maps), joined


def medians(calls: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median seconds of the calls, which take turns; each is made once before."""
    for call in calls.values():
        jax.block_until_ready(call())
    seconds, _ = peers.take_turns(calls, repeats)
    return {name: float(np.median(spent)) for name, spent in seconds.items()}


def score_map(coder: Callable, dictionary: jax.Array, maps: jax.Array) -> jax.Array:
    """Sum over channels of the largest errors, as the detector computes it."""
    errors = coder(dictionary, maps).error
    return top_rows(errors.reshape(-1, errors.shape[-1]), TOP).sum()


def coding(maps: np.ndarray, dictionary: np.ndarray, repeats: int) -> list[dict]:
    """Rows of all coders of one image; `error` is the mean squared error of a patch, in float64."""
    arrays = jax.device_put((dictionary, maps))
    coders = {
        f"ours {solver}": channel_coder(coder_of(solver), STRIDE) for solver in CHANNEL_CODERS
    }
    calls = {
        name: partial(jax.jit(partial(score_map, coder)), *arrays) for name, coder in coders.items()
    }
    channels = mlf_sc_peers.lay_out(maps, dictionary, STRIDE)
    spams = mlf_sc_peers.spams_coders(channels, PENALTY, NONZEROS)
    slow = mlf_sc_peers.scikit_learn_coders(channels, PENALTY, NONZEROS)
    seconds = medians(calls | spams, repeats)
    seconds |= {name: EVERY * spent for name, spent in medians(slow, 1).items()}
    codes = {name: by_channel(jax.jit(coder)(*arrays).code) for name, coder in coders.items()}
    codes |= {name: [np.asarray(z.T.todense()) for z in call()] for name, call in spams.items()}
    codes = {name: every[::EVERY] for name, every in codes.items()}
    codes |= {name: call() for name, call in slow.items()}
    return [
        {
            "part": "coding",
            "contender": name,
            "seconds": seconds[name],
            "error": mean_error(channels, codes[name]),
        }
        for name in seconds
    ]


def by_channel(code: jax.Array) -> list[np.ndarray]:
    """Returns codes [p k] of each channel, of codes [k i j c]."""
    flat = np.asarray(code, np.float64).reshape(ATOMS, -1, code.shape[-1])
    return list(flat.transpose(2, 1, 0))


def mean_error(channels: mlf_sc_peers.Channels, codes: list[np.ndarray]) -> float:
    """Returns the mean squared error of a patch, of each 16th channel."""
    parts = zip(channels.signals[::EVERY], channels.dictionaries[::EVERY], codes, strict=True)
    return float(np.mean([((x - z @ atoms) ** 2).sum(1).mean() for x, atoms, z in parts]))


def coding_floor(
    maps: np.ndarray, dictionary: np.ndarray, machine: peers.Machine
) -> dict[str, float]:
    """Returns the least that coding takes: correlations and energies; map in, errors out."""
    patches = 11 * 11 * maps.shape[-1]
    operations = 2.0 * patches * SIZE * SIZE * (ATOMS + 1)
    least = 4.0 * (maps[0].size + dictionary.size + patches)
    seconds = max(operations / machine.operations_per_second, least / machine.bytes_per_second)
    return {"operations": operations, "bytes": least, "seconds": seconds}


def learning(maps: np.ndarray, state: Statistics, repeats: int) -> list[dict]:
    """Rows of the learners: all channels see the patches of all images once.

    Ours takes them as one minibatch, as the detector does. SPAMS is given minibatches of that
    size, of one image and of one patch, which is its algorithm as published.
    """
    coder = channel_coder(coder_of("lasso").for_learning(), STRIDE)
    learn = jax.jit(partial(learn_channels, stride=STRIDE, coder=coder, total=sum_by_image))
    ours = partial(learn, jax.random.key(0), state, jax.device_put(maps))
    cut = mlf_sc_peers.cut(maps, SIZE, STRIDE)
    columns = [np.asfortranarray(each.T, np.float64) for each in cut]
    patches, threads = cut.shape[1], os.cpu_count()
    peer = partial(mlf_sc_peers.spams_learner, atoms=ATOMS, penalty=PENALTY)
    whole = {
        "ours": lambda: ours()[0].dictionary,
        f"spams trainDL, {patches} at a time": partial(
            peer, columns, size=patches, threads=threads
        ),
    }
    small = {  # threads do not pay for few patches
        f"spams trainDL, {size} at a time": partial(peer, columns[::EVERY], size=size, threads=1)
        for size in (121, 1)
    }
    seconds = medians(whole, repeats)
    seconds |= {name: EVERY * spent for name, spent in medians(small, 1).items()}
    return [
        {
            "part": "learning",
            "contender": name,
            "seconds": spent,
            "over ours": spent / seconds["ours"],
            "microseconds a patch": 1e6 * spent / patches / len(columns),
        }
        for name, spent in seconds.items()
    ]


def network(repeats: int, seed: int, machine: peers.Machine) -> list[dict]:
    """Rows of the network in JAX and in PyTorch."""
    weights = load_weights("vgg16")
    net = build_backbone("vgg16", ("conv2_2", "conv3_3", "conv4_3"))
    image = ((images(1, seed) - weights.mean) / weights.std).astype(np.float32)
    forward = jax.jit(lambda params, x: net.apply({"params": params}, x))
    ours = partial(forward, *jax.device_put((weights.params, image)))
    calls = {"ours": ours}
    for name, channels_last in (("torch, contiguous", False), ("torch, channels last", True)):
        peer = mlf_sc_peers.torch_vgg16(weights.params, image, channels_last)
        if peer:
            calls[name] = peer
            check_same(name, peer().transpose(0, 2, 3, 1), np.asarray(ours()["conv4_3"]))
    operations = sum(2 * 9 * side**2 * ins * outs for side, ins, outs in CONVOLUTIONS)
    floor = operations / machine.operations_per_second
    return [
        {
            "part": "network",
            "contender": name,
            "seconds": spent,
            "floor s": floor,
            "over floor": spent / floor,
        }
        for name, spent in medians(calls, repeats).items()
    ]


def check_same(name: str, output: np.ndarray, expected: np.ndarray) -> None:
    """Ends the program where a peer computes something else."""
    difference = np.abs(output - expected).max() / np.abs(expected).max()
    if difference > 1e-4:
        raise SystemExit(f"{name} differs from ours by {difference:.1e} of the largest value")


def whole(repeats: int, seed: int) -> list[dict]:
    """Rows of image -> score and of fitting, each against the feature extraction it contains."""
    return [row for solver in CHANNEL_CODERS for row in whole_of(solver, repeats, seed)]


def whole_of(solver: str, repeats: int, seed: int) -> list[dict]:
    """The rows of one solver."""
    method, batch = build(solver), images(IMAGES, seed)
    first, key, last = jax.random.split(jax.random.key(seed), 3)
    extract, score = method.features.extract, compile_score(method)
    state, update = jax.jit(method.init)(first, extract(batch)), jax.jit(method.update)
    params = jax.jit(method.finish)(last, update(key, state, extract(batch))[0])
    calls = {
        "one": lambda: extract(batch[:1]),
        "score": lambda: score(params, batch[:1]).image,
        "many": lambda: extract(batch),
        "fit": lambda: update(key, state, extract(batch))[1],
    }
    spent = medians(calls, repeats)
    pairs = (
        (f"image -> score, {solver}", spent["score"], spent["one"]),
        (f"fitting, {IMAGES} images, {solver}", spent["fit"], spent["many"]),
    )
    return [
        {
            "part": "whole",
            "contender": name,
            "seconds": seconds,
            "over features": seconds / base,
            "features s": base,
        }
        for name, seconds, base in pairs
    ]


def main() -> None:
    parser = peers.arguments(__doc__, "mlf_sc")
    parser.set_defaults(repeats=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: errors are reported anyway
    start = time.monotonic()
    maps, state = prepare(options.seed)
    dictionary = np.asarray(state.dictionary)
    machine = peers.measure_machine()
    floor = coding_floor(maps, dictionary, machine)
    rows = coding(maps[0], dictionary, options.repeats)
    for row in rows:
        if row["contender"].startswith("ours"):
            row["over floor"] = row["seconds"] / floor["seconds"]
    rows += learning(maps, state, options.repeats)
    rows += network(options.repeats, options.seed, machine)
    rows += whole(options.repeats, options.seed)
    names = ("part", "contender", "seconds", "error", "over floor", "over features", "over ours")
    peers.record(
        options.output,
        rows,
        seed=options.seed,
        columns=names,
        floor=floor,
        matmul_operations_per_second=machine.operations_per_second,
        copy_bytes_per_second=machine.bytes_per_second,
        seconds=time.monotonic() - start,
    )


if __name__ == "__main__":
    main()
