"""The auto-encoder of configs/cae_sparse.py beside the same network in PyTorch.

  python benchmarks/autoencoder.py [--rounds=5] [--repeats=5] [--batch=64] [--size=128]

Both begin with the same weights, and must agree in scores and in the loss of the third step.
Contenders take turns, each in a process of its own, as many as there are rounds: the threads of one
are not in the way of the other's. Images a second are of medians, compilation apart. Training takes
STEPS steps a call, ours in one compiled loop as the fit does; scoring takes a batch a call, ours
net.at_a_time images at a time, as evaluation does. PyTorch runs eagerly, in both of its memory
layouts, on as many threads as there are cores, or on its GPU where JAX has one: pip install
torch==2.13.0.

Share of peak: the products' operations at this machine's best rate of float32 products of
1024x256x256, which on a GPU is its rate in JAX's default precision.
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import peers

from sparse_ad import methods

STEPS = 4
LAYOUTS = {"torch, contiguous": "contiguous_format", "torch, channels last": "channels_last"}


def config_of(size: int):
    config = importlib.import_module("configs.cae_sparse").get_config("ham10000")
    config.data.size = (size, size)
    return config


class Ours:
    """Our detector, its compiled training and scoring."""

    def __init__(self, config, images: np.ndarray):
        self.method, self.maps = methods.build(config), jax.device_put({"pixels": images})
        self.start = jax.jit(self.method.init)(jax.random.key(0), self.maps)
        self.key, self.state = jax.random.key(1), self.start

        def steps(state, maps, count):
            def step(_, loop):
                state, _ = loop
                state, info = self.method.update(self.key, state, maps)
                return state, info["loss"]

            return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))

        self.run = jax.jit(steps)
        self.scoring = jax.jit(self.method.score)

    def train(self, count: int = STEPS):
        self.state, loss = self.run(self.state, self.maps, count)
        return loss

    def score(self):
        return self.scoring(self.method.finish(None, self.start), self.maps).image


class Peer:
    """The same network in PyTorch, from the same weights."""

    def __init__(self, config, params, images: np.ndarray, layout: str):
        import torch

        self.torch, nn, net = torch, torch.nn, config.net
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.layout = getattr(torch, layout)
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        depth, widths, slope = len(net.widths), list(net.widths), net.slope
        side = config.data.size[0] // math.prod(net.strides)
        grid = (widths[-1], side, side)
        ends = list(zip([3, *widths[:-1]], widths, strict=True))
        layers = []
        for at, (ins, outs) in enumerate(ends):
            layers.append(nn.Conv2d(ins, outs, 4, 2, 1, bias=at == 0))
            layers += [nn.BatchNorm2d(outs)] * (at > 0) + [nn.LeakyReLU(slope)]
        units = math.prod(grid)
        middle = [nn.Flatten(), nn.Linear(units, net.latent), nn.Sigmoid()]
        self.encoder = nn.Sequential(*layers, *middle)
        layers = [nn.Linear(net.latent, units, bias=False), nn.Unflatten(1, grid)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.LeakyReLU(slope)]
        for at, (outs, ins) in enumerate(reversed(ends)):
            last = at == depth - 1
            layers.append(nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=last))
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(outs), nn.LeakyReLU(slope)]
        self.decoder, self.penalty = nn.Sequential(*layers), net.penalty
        self.load(params, grid)
        both = nn.ModuleList([self.encoder, self.decoder])
        self.both = both.to(self.device, memory_format=self.layout)
        fit = config.fit
        self.adam = torch.optim.Adam(both.parameters(), fit.learning_rate, (0.9, 0.999), 1e-8)
        self.adam.param_groups[0]["weight_decay"] = fit.weight_decay
        pixels = torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.pixels = pixels.to(self.device, memory_format=self.layout)

    def load(self, params, grid: tuple[int, int, int]) -> None:
        """Copies our weights; channels come first there, also where a grid is one long vector."""
        channels, height, width = grid
        places = np.arange(math.prod(grid)).reshape(height, width, channels)
        order = places.transpose(2, 0, 1).ravel()
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


def operations(config) -> float:
    """Operations of the products of one image's way through the network, one multiply-add two."""
    side, ins, total = config.data.size[0], 3, 0.0
    for width in config.net.widths:
        side //= 2
        total += 16.0 * side**2 * ins * width
        ins = width
    return 4.0 * (total + side**2 * ins * config.net.latent)  # encoder and decoder


def agree(ours: Ours, peer: Peer) -> None:
    """Ends the program unless both score alike, and lose alike after some steps."""
    score = np.abs(peer.score() / np.asarray(ours.score()) - 1).max()
    loss = abs(peer.train(3) / float(ours.train(3)) - 1)
    ours.state = ours.start
    if max(score, loss) > 1e-3:
        raise SystemExit(f"the networks differ: scores by {score:.1e}, losses by {loss:.1e}")


def build(name: str, config, images: np.ndarray):
    """Returns a contender; a peer begins with our weights, and must agree with us."""
    ours = Ours(config, images)
    if name == "ours":
        return ours
    peer = Peer(config, ours.start.params, images, LAYOUTS[name])
    agree(ours, peer)
    return peer


def measure(name: str, options) -> dict:
    """Returns the images a second of each part of a contender, and our rate of products."""
    rng = np.random.default_rng(options.seed)
    images = rng.random((options.batch, options.size, options.size, 3), np.float32)
    contender, found = build(name, config_of(options.size), images), {}
    for part, count in (("train", STEPS * options.batch), ("score", options.batch)):
        call = getattr(contender, part)
        spent = [peers.seconds_of(call)[0] for _ in range(options.repeats + 1)][1:]
        found[part] = count / float(np.median(spent))
    return found | {"contender": name, "rate": peers.matmul_rate() if name == "ours" else 0.0}


def measure_apart(name: str, options) -> dict:
    """Returns what `measure` does, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "round.json"
        flags = [f"--{each}={getattr(options, each)}" for each in ("repeats", "batch", "size")]
        flags += [f"--seed={options.seed}", f"--contender={name}", f"--output={found}"]
        subprocess.run([sys.executable, __file__, *flags], check=True)
        return json.loads(found.read_text())


def summarise(rounds: list[dict], config) -> list[dict]:
    """Returns a row for each part and contender: the median of rounds, and how far they go."""
    rate, each = max(one["rate"] for one in rounds), operations(config)
    found = defaultdict(list)
    for part in ("train", "score"):
        for one in rounds:
            found[part, one["contender"]].append(one[part])
    return [
        {
            "part": part,
            "contender": name,
            "images/s": float(np.median(speeds)),
            "slowest": min(speeds),
            "fastest": max(speeds),  # a step of training: once forward, twice backward
            "share of peak": np.median(speeds) * each * (3 if part == "train" else 1) / rate,
        }
        for (part, name), speeds in found.items()
    ]


def main() -> None:
    parser = peers.arguments(__doc__, "autoencoder")
    parser.set_defaults(repeats=5)
    parser.add_argument("--rounds", type=int, default=5, help="processes [%(default)s]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # one round of it alone
    options = parser.parse_args()
    if options.contender:
        options.output.write_text(json.dumps(measure(options.contender, options)))
        return
    names = ["ours", *LAYOUTS]
    if find_spec("torch") is None:
        print("PyTorch is not installed: ours alone")
        names = ["ours"]
    begin = time.monotonic()
    rounds = [measure_apart(name, options) for _ in range(options.rounds) for name in names]
    config = config_of(options.size)
    peers.record(
        options.output,
        summarise(rounds, config),
        seed=options.seed,
        batch=options.batch,
        size=options.size,
        rounds=rounds,
        operations_per_image=operations(config),
        threads=os.cpu_count(),
        seconds=time.monotonic() - begin,
    )


if __name__ == "__main__":
    main()
