"""The auto-encoder of configs/cae_sparse.py beside the same network in PyTorch.

  python -m benchmarks.autoencoder [--rounds=5] [--repeats=5] [--batch=64] [--size=128]

Both begin with the same weights, and must agree in scores and in the loss of the third step.
Contenders take turns, each in a process of its own, as many as there are rounds: the threads of one
are not in the way of the other's. Images a second are of medians, compilation apart. Training takes
STEPS steps a call, ours in one compiled loop as the fit does; scoring takes a batch a call, ours
`together` images at a time, as evaluation does. PyTorch runs eagerly, in both of its memory
layouts, on as many threads as there are cores, or on its GPU where JAX has one: pip install
torch==2.13.0.

Share of peak: the products' operations at this machine's best rate of float32 products of
1024x256x256, which on a GPU is its rate in JAX's default precision.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from configs.cae import CAE
from configs.cae_sparse import PENALTIES
from sparse_ad.batching import for_each
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.nets.blocks import Blocks, grid
from sparse_ad.types import PIXELS, Key, Maps, Method, Params, State

STEPS = 4
DETECTOR = replace(CAE, penalty=PENALTIES["ham10000"])
LAYOUTS = {"torch, contiguous": "contiguous_format", "torch, channels last": "channels_last"}


class Ours:
    """Our detector, its compiled training and scoring."""

    def __init__(self, images: np.ndarray):
        self.method = DETECTOR.build(PIXELS, images.shape[1:])
        self.maps = jax.device_put({"pixels": images})
        self.start = jax.jit(self.method.init)(jax.random.key(0), self.maps)
        self.state = self.start
        self.run = jax.jit(partial(take_steps, self.method.update, jax.random.key(1)))
        self.scoring = jax.jit(partial(score_all, self.method))

    def train(self, count: int = STEPS):
        self.state, loss = self.run(self.state, self.maps, count)
        return loss

    def score(self):
        return self.scoring(self.method.finish(None, self.start), self.maps)


def take_steps(update: Callable, key: Key, state: State, maps: Maps, count: int):
    """Returns the state after so many steps, and the loss of the last."""

    def step(_, loop):
        state, info = update(key, loop[0], maps)
        return state, info["loss"]

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))


def score_all(method: Method, params: Params, maps: Maps):
    """Returns the scores of all images."""
    return for_each(partial(method.score, params), maps, method.together).image


class Peer:
    """The same network in PyTorch, from the same weights."""

    def __init__(self, options: Reconstruction, params: Params, images: np.ndarray, layout: str):
        import torch

        self.torch, self.penalty = torch, options.penalty
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        device, memory = "cuda" if on_gpu else "cpu", getattr(torch, layout)
        down = grid(options.net, images.shape[1:3])
        shape = (options.net.widths[-1], *down)
        self.encoder = torch_encoder(torch.nn, options.net, images.shape[3], shape)
        self.decoder = torch_decoder(torch.nn, options.net, images.shape[3], shape)
        self.load(params, shape)
        both = torch.nn.ModuleList([self.encoder, self.decoder])
        self.both = both.to(device, memory_format=memory)
        adam = options.optimizer
        self.adam = torch.optim.Adam(both.parameters(), adam.learning_rate, (0.9, 0.999), 1e-8)
        self.adam.param_groups[0]["weight_decay"] = adam.weight_decay
        pixels = torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.pixels = pixels.to(device, memory_format=memory)

    def load(self, params: Params, shape: tuple[int, int, int]) -> None:
        """Copies our weights; channels come first there, also where a grid is one long vector."""
        channels, height, width = shape
        index = np.arange(math.prod(shape)).reshape(height, width, channels)
        order = index.transpose(2, 0, 1).ravel()
        for ours, theirs in ((params["encoder"], self.encoder), (params["decoder"], self.decoder)):
            convolutions = iter(range(99))
            for layer in theirs:
                name = type(layer).__name__
                if getattr(layer, "bias", None) is not None:
                    self.torch.nn.init.zeros_(layer.bias)  # as ours begin
                if name in ("Conv2d", "ConvTranspose2d"):
                    part = ours[f"Convolution_{next(convolutions)}"]
                    self.put(layer.weight, np.asarray(part["kernel"]).transpose(3, 2, 0, 1))
                elif name == "Linear":
                    kernel = np.asarray(ours["Dense_0"]["kernel"])
                    inward = len(kernel) == len(order)
                    self.put(layer.weight, (kernel[order] if inward else kernel[:, order]).T)

    def put(self, weight, values: np.ndarray) -> None:
        weight.data = self.torch.tensor(np.ascontiguousarray(values))

    def train(self, count: int = STEPS):
        self.both.train()
        target = 2.0 * self.pixels - 1.0
        for _ in range(count):
            self.adam.zero_grad()
            code = self.encoder(target)
            error = ((self.decoder(code) - target) ** 2).mean()
            loss = error + self.penalty * code.abs().sum(1).mean()
            loss.backward()
            self.adam.step()
        return loss.item()  # waits for the device

    def score(self):
        self.both.eval()
        with self.torch.inference_mode():
            target = 2.0 * self.pixels - 1.0
            apart = (self.decoder(self.encoder(target)) - target) ** 2
            return apart.mean((1, 2, 3)).cpu().numpy()


def torch_encoder(nn, net: Blocks, channels: int, shape: tuple[int, int, int]):
    """Returns our encoder as a module of PyTorch; `shape` is that of its deepest block."""
    layers, ends = [], zip([channels, *net.widths[:-1]], net.widths, strict=True)
    for index, (ins, outs) in enumerate(ends):
        layers.append(nn.Conv2d(ins, outs, 4, 2, 1, bias=index == 0))
        layers += [nn.BatchNorm2d(outs)] * (index > 0) + [nn.LeakyReLU(net.slope)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(math.prod(shape), net.latent), nn.Sigmoid()
    )


def torch_decoder(nn, net: Blocks, channels: int, shape: tuple[int, int, int]):
    """Returns our decoder as a module of PyTorch."""
    layers = [nn.Linear(net.latent, math.prod(shape), bias=False), nn.Unflatten(1, shape)]
    widths = [*net.widths[::-1], channels]
    for index, (ins, outs) in enumerate(pairwise(widths), start=1):
        layers += [nn.BatchNorm2d(ins), nn.LeakyReLU(net.slope)]
        layers.append(nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=index == len(net.widths)))
    return nn.Sequential(*layers, nn.Tanh())


def operations(size: int, net: Blocks) -> float:
    """Operations of the products of one image's way through the network, one multiply-add two."""
    side, ins, total = size, 3, 0.0
    for width in net.widths:
        side //= 2
        total += 16.0 * side**2 * ins * width
        ins = width
    return 4.0 * (total + side**2 * ins * net.latent)  # encoder and decoder


def agree(ours: Ours, peer: Peer) -> None:
    """Ends the program unless both score alike, and lose alike after some steps."""
    score = np.abs(peer.score() / np.asarray(ours.score()) - 1).max()
    loss = abs(peer.train(3) / float(ours.train(3)) - 1)
    if max(score, loss) > 1e-3:
        raise SystemExit(f"the networks differ: scores by {score:.1e}, losses by {loss:.1e}")


def build(name: str, images: np.ndarray) -> Ours | Peer:
    """Returns a contender; a peer begins with our weights, and must agree with us."""
    ours = Ours(images)
    if name == "ours":
        return ours
    peer = Peer(DETECTOR, ours.start.params, images, LAYOUTS[name])
    agree(ours, peer)
    return peer


def measure(name: str, options: argparse.Namespace) -> dict:
    """Returns the images a second of each part of a contender, and our rate of products."""
    rng = np.random.default_rng(options.seed)
    images = rng.random((options.batch, options.size, options.size, 3), np.float32)
    contender, speeds = build(name, images), {}
    for part, count in (("train", STEPS * options.batch), ("score", options.batch)):
        call = getattr(contender, part)
        spent = [peers.seconds_of(call)[0] for _ in range(options.repeats + 1)][1:]
        speeds[part] = count / float(np.median(spent))
    return speeds | {"contender": name, "rate": peers.matmul_rate() if name == "ours" else 0.0}


def measure_apart(name: str, options: argparse.Namespace) -> dict:
    """Returns what `measure` does, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "round.json"
        flags = [f"--{flag}={getattr(options, flag)}" for flag in ("repeats", "batch", "size")]
        flags += [f"--seed={options.seed}", f"--contender={name}", f"--output={output}"]
        command = [sys.executable, "-m", "benchmarks.autoencoder", *flags]
        subprocess.run(command, check=True, cwd=peers.ROOT)
        return json.loads(output.read_text())


def summarise(rounds: list[dict], operations_per_image: float) -> list[dict]:
    """Returns a row for each part and contender: the median of rounds, and how far they go."""
    rate = max(one["rate"] for one in rounds)
    speeds_of = defaultdict(list)
    for part in ("train", "score"):
        for one in rounds:
            speeds_of[part, one["contender"]].append(one[part])
    return [
        row(part, name, speeds, operations_per_image / rate)
        for (part, name), speeds in speeds_of.items()
    ]


def row(part: str, name: str, speeds: list[float], seconds_at_peak: float) -> dict:
    """Returns a row of the table; `seconds_at_peak`: of one image forward, by its operations."""
    ways = 3 if part == "train" else 1  # a step of training: once forward, twice backward
    return {
        "part": part,
        "contender": name,
        "images/s": float(np.median(speeds)),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "share of peak": float(np.median(speeds)) * ways * seconds_at_peak,
    }


def arguments() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = peers.arguments(__doc__, "autoencoder")
    parser.set_defaults(repeats=5)
    parser.add_argument("--rounds", type=int, default=5, help="processes [%(default)s]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # one round of it alone
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.contender:
        options.output.write_text(json.dumps(measure(options.contender, options)))
        return
    names = ["ours", *LAYOUTS]
    if find_spec("torch") is None:
        print("PyTorch is not installed: ours alone")
        names = ["ours"]
    begin = time.monotonic()
    rounds = [measure_apart(name, options) for _ in range(options.rounds) for name in names]
    per_image = operations(options.size, DETECTOR.net)
    peers.record(
        options.output,
        summarise(rounds, per_image),
        seed=options.seed,
        batch=options.batch,
        size=options.size,
        rounds=rounds,
        operations_per_image=per_image,
        threads=os.cpu_count(),
        seconds=time.monotonic() - begin,
    )


if __name__ == "__main__":
    main()
