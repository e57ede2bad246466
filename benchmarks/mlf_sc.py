"""MLF-SC's parts beside their peers: coding, learning, the network, the whole.

  python benchmarks/mlf_sc.py [--repeats=5] [--seed=0] [--output=FILE]

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

import importlib
import os
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import peers
import spams
from sklearn.decomposition import sparse_encode
from sparse_ad.sparse.solvers.gram import learning_solver, tiny_solver

from sparse_ad import methods, stages
from sparse_ad.data.sources.generated import generate
from sparse_ad.devices import sum_by_image
from sparse_ad.features.backbones import build_backbone
from sparse_ad.features.weights import load_weights
from sparse_ad.patches import extract, top_rows
from sparse_ad.sparse.channels import code_map, learn_channels

PENALTY, ATOMS, NONZEROS, SIZE, STRIDE, TOP = 1.0, 5, 3, 8, 2, 5
EVERY = 16  # scikit-learn codes each 16th channel: all would take minutes
IMAGES = 16
CONVOLUTIONS = (  # side, channels in, channels out, of VGG16 to conv4_3 at 256x256
    *((256, 3, 64), (256, 64, 64), (128, 64, 128), (128, 128, 128), (64, 128, 256)),
    *((64, 256, 256), (64, 256, 256), (32, 256, 512), (32, 512, 512), (32, 512, 512)),
)


def config_of(solver: str):
    config = importlib.import_module("configs.mlf_sc").get_config("published_code")
    config.method.update(solver=solver)
    return config


def images(count: int, seed: int) -> np.ndarray:
    made = [generate("carpet", "train", "good", at, (256, 256), seed)[0] for at in range(count)]
    return np.stack(made).astype(np.float32) / 255


def standardised(maps: dict) -> list[np.ndarray]:
    """The maps of all layers, each channel of each image to mean 0, deviation 1: [n 28 28 896]."""
    every = np.concatenate([np.asarray(each) for each in maps.values()], axis=-1)
    centred = every - every.mean((1, 2), keepdims=True)
    return centred / np.maximum(centred.std((1, 2), keepdims=True), 1e-6)


def medians(calls: dict, repeats: int) -> dict[str, float]:
    """Median seconds of the calls, which take turns; each is made once before."""
    seconds = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(peers.seconds_of(call)[0])
    return {name: float(np.median(each)) for name, each in seconds.items()}


def scored(errors):
    """Sum over channels of the largest errors; as the detector does it."""
    return top_rows(errors.reshape(-1, errors.shape[-1]), TOP).sum()


def coding(maps: np.ndarray, dictionary: np.ndarray, repeats: int) -> list[dict]:
    """Rows of all coders; `error` is the mean squared error of a patch, in float64."""
    place, atoms = jax.device_put((maps, dictionary))
    calls, solved = {}, {}
    for solver in ("lasso", "omp", "exact_l0"):
        solve = tiny_solver(config_of(solver).method)
        solved[solver] = jax.jit(
            lambda atoms, maps, solve=solve: code_map(atoms, maps, STRIDE, solve)
        )
        score = jax.jit(
            lambda atoms, maps, solve=solve: scored(code_map(atoms, maps, STRIDE, solve).error)
        )
        calls[f"ours {solver}"] = lambda score=score: score(atoms, place)
    channels = maps.shape[-1]
    cut = jax.jit(lambda maps: extract(maps, SIZE, STRIDE))(place)  # [p, s s c]
    cut = np.asarray(cut).reshape(len(cut), SIZE * SIZE, channels).transpose(2, 0, 1)
    flat = dictionary.reshape(ATOMS, SIZE * SIZE, channels).transpose(2, 0, 1)
    columns = [np.asfortranarray(each.T, np.float64) for each in cut]
    bases = [np.asfortranarray(each.T, np.float64) for each in flat]
    threads = os.cpu_count()

    def spams_lasso():
        return [
            spams.lasso(x, d, lambda1=PENALTY, mode=2, numThreads=threads)
            for x, d in zip(columns, bases, strict=True)
        ]

    def spams_omp():
        return [
            spams.omp(x, d, L=NONZEROS, numThreads=threads)
            for x, d in zip(columns, bases, strict=True)
        ]

    def scikit_learn(**settings):
        some = range(0, channels, EVERY)
        exact = [(cut[at].astype(np.float64), flat[at].astype(np.float64)) for at in some]
        return lambda: [sparse_encode(x, d, **settings) for x, d in exact]

    calls |= {"spams lasso": spams_lasso, "spams omp": spams_omp}
    slow = {
        "scikit-learn lasso_lars": scikit_learn(algorithm="lasso_lars", alpha=PENALTY),
        "scikit-learn omp": scikit_learn(algorithm="omp", n_nonzero_coefs=NONZEROS),
    }
    seconds = medians(calls, repeats)
    seconds |= {name: EVERY * spent for name, spent in medians(slow, 1).items()}
    rows = []
    for name, spent in seconds.items():
        code = codes_of(name, calls | slow, solved, atoms, place)
        some = range(0, channels, EVERY if name.startswith("scikit") else 1)
        left = [
            ((cut[at].astype(np.float64) - z @ flat[at].astype(np.float64)) ** 2).sum(1).mean()
            for at, z in zip(some, code, strict=True)
        ]
        rows.append(
            {
                "part": "coding",
                "contender": name,
                "seconds": spent,
                "error": float(np.mean(left[:: 1 if name.startswith("scikit") else EVERY])),
            }
        )
    return rows


def codes_of(name, calls, solved, atoms, place) -> list[np.ndarray]:
    """Codes [p k] of each channel."""
    if name.startswith("ours"):
        code = np.asarray(solved[name.removeprefix("ours ")](atoms, place).code)
        return list(code.reshape(ATOMS, -1, code.shape[-1]).transpose(2, 1, 0).astype(np.float64))
    return [
        np.asarray(z.T.todense()) if name.startswith("spams") else np.asarray(z)
        for z in calls[name]()
    ]


def learning(maps: np.ndarray, state, repeats: int) -> list[dict]:
    """Rows of the learners: all channels see the patches of all images once.

    Ours takes them as one minibatch, as the detector does. SPAMS is given minibatches of that
    size, of one image and of one patch, which is its algorithm as published.
    """
    solve = learning_solver(config_of("lasso").method)

    def ours(key, state, maps):
        return learn_channels(key, state, maps, STRIDE, solve, sum_by_image)[0]

    compiled, placed = jax.jit(ours), jax.device_put(maps)
    cut = np.stack([np.asarray(extract(jnp.asarray(each), SIZE, STRIDE)) for each in maps])
    cut = cut.reshape(-1, SIZE * SIZE, maps.shape[-1]).transpose(2, 1, 0)
    columns = [np.asfortranarray(each, np.float64) for each in cut]
    patches = cut.shape[2]

    def peer(size: int, threads: int, every: int = 1):
        settings = {"K": ATOMS, "lambda1": PENALTY, "mode": 2, "verbose": False}
        settings |= {"batchsize": size, "iter": patches // size, "numThreads": threads}
        return lambda: [spams.trainDL(each, **settings) for each in columns[::every]]

    whole = {
        "ours": lambda: compiled(jax.random.key(0), state, placed).dictionary,
        f"spams trainDL, {patches} at a time": peer(patches, os.cpu_count()),
    }
    small = {  # threads do not pay for few patches
        "spams trainDL, 121 at a time": peer(121, 1, EVERY),
        "spams trainDL, 1 at a time": peer(1, 1, EVERY),
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


def torch_network(params, image: np.ndarray, channels_last: bool):
    """The same network in PyTorch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def place(array):
        return torch.tensor(np.ascontiguousarray(array)).to(memory_format=layout)

    names = [f"conv{b}_{i}" for b, n in ((1, 2), (2, 2), (3, 3), (4, 3)) for i in range(1, n + 1)]
    layers = [
        (
            name,
            place(np.asarray(params[name]["kernel"]).transpose(3, 2, 0, 1)),
            torch.tensor(np.asarray(params[name]["bias"])),
        )
        for name in names
    ]
    start = place(image.transpose(0, 3, 1, 2))
    relu, pool = torch.nn.functional.relu, torch.nn.functional.max_pool2d

    def forward():
        with torch.inference_mode():
            x = start
            for name, kernel, bias in layers:
                x = pool(x, 2) if name in ("conv2_1", "conv3_1", "conv4_1") else x
                out = torch.nn.functional.conv2d(x, kernel, bias, padding=1)
                x = relu(out)
            return out.numpy()

    return forward


def network(repeats: int, seed: int) -> list[dict]:
    """Rows of the network in JAX and in PyTorch."""
    weights = load_weights("vgg16")
    net = build_backbone("vgg16", ("conv2_2", "conv3_3", "conv4_3"))
    image = (images(1, seed) - weights.mean) / weights.std
    forward = jax.jit(lambda params, x: net.apply({"params": params}, x))
    params, placed = jax.device_put((weights.params, image.astype(np.float32)))
    calls = {"ours": lambda: forward(params, placed)}
    for name, channels_last in (("torch, contiguous", False), ("torch, channels last", True)):
        peer = torch_network(weights.params, image.astype(np.float32), channels_last)
        if peer:
            calls[name] = peer
            same = np.asarray(forward(params, placed)["conv4_3"])
            apart = np.abs(peer().transpose(0, 2, 3, 1) - same).max() / np.abs(same).max()
            if apart > 1e-4:
                raise SystemExit(f"{name} differs from ours by {apart:.1e} of the largest value")
    operations = sum(2 * 9 * side**2 * ins * outs for side, ins, outs in CONVOLUTIONS)
    rate = peers.matmul_rate()
    return [
        {
            "part": "network",
            "contender": name,
            "seconds": spent,
            "floor s": operations / rate,
            "over floor": spent * rate / operations,
        }
        for name, spent in medians(calls, repeats).items()
    ]


def whole(repeats: int, seed: int) -> list[dict]:
    """Rows of image -> score and of fitting, each against the feature extraction it contains."""
    rows = []
    batch = images(IMAGES, seed)
    for solver in ("lasso", "omp", "exact_l0"):
        config = config_of(solver)
        method = methods.build(config)
        score = stages.scoring(method)
        maps = method.features.extract(batch)
        key = jax.random.key(seed)
        state = jax.jit(method.init)(key, maps)
        update = jax.jit(method.update)
        params = jax.jit(method.finish)(key, update(key, state, maps)[0])
        calls = {
            "features, 1 image": lambda m=method: m.features.extract(batch[:1]),
            f"image -> score, {solver}": lambda s=score, p=params: s(p, batch[:1]).image,
            f"features, {IMAGES} images": lambda m=method: m.features.extract(batch),
            f"fitting, {IMAGES} images, {solver}": lambda m=method, u=update, s=state, k=key: u(
                k, s, m.features.extract(batch)
            )[1],
        }
        spent = medians(calls, repeats)
        (one, scoring), (many, fitting) = (list(spent.items())[at : at + 2] for at in (0, 2))
        for (_, base), (name, seconds) in ((one, scoring), (many, fitting)):
            rows.append(
                {
                    "part": "whole",
                    "contender": name,
                    "seconds": seconds,
                    "over features": seconds / base,
                    "features s": base,
                }
            )
    return rows


def main() -> None:
    parser = peers.arguments(__doc__, "mlf_sc")
    parser.set_defaults(repeats=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's, of convergence: errors are reported anyway
    start = time.monotonic()
    method = methods.build(config_of("lasso"))
    batch = images(IMAGES, options.seed)
    maps = standardised(method.features.extract(batch))
    key = jax.random.key(options.seed)
    state = jax.jit(method.init)(key, method.features.extract(batch))
    update = jax.jit(method.update)
    for step in range(4):
        state, _ = update(jax.random.fold_in(key, step), state, method.features.extract(batch))
    learned = [layer.learned for layer in state.values()]
    joined = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves, -1) if leaves[0].ndim else leaves[0], *learned
    )
    dictionary = np.asarray(joined.dictionary)
    rows = coding(maps[0], dictionary, options.repeats)
    rows += learning(maps, joined, options.repeats)
    rows += network(options.repeats, options.seed)
    rows += whole(options.repeats, options.seed)
    patches = 11 * 11 * maps.shape[-1]
    floor = {  # of coding: correlations and energies; the map in, the errors out
        "operations": 2.0 * patches * SIZE * SIZE * (ATOMS + 1),
        "bytes": 4.0 * (maps[0].size + dictionary.size + patches),
    }
    rate, bandwidth = peers.matmul_rate(), peers.copy_rate()
    floor["seconds"] = max(floor["operations"] / rate, floor["bytes"] / bandwidth)
    names = ("part", "contender", "seconds", "error", "over floor", "over features", "over ours")
    for row in rows:
        if row["part"] == "coding" and row["contender"].startswith("ours"):
            row["over floor"] = row["seconds"] / floor["seconds"]
    peers.record(
        options.output,
        rows,
        seed=options.seed,
        columns=names,
        floor=floor,
        matmul_operations_per_second=rate,
        copy_bytes_per_second=bandwidth,
        seconds=time.monotonic() - start,
    )


if __name__ == "__main__":
    main()
