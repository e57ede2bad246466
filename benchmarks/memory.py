"""Peak memory of a whole run on large images, at their full and at the default size.

  python -m benchmarks.memory [--images=1000] [--side=1024] [--record=FILE]

Writes grey PNG files, runs launch.py on them in a process of its own for each size, and reads
the peak resident memory of that process from the system. A wider stride and one epoch shorten the
runs; one more run, of few images, keeps the default stride, since memory for the patches of one
image depends on it. Target: under 3 GB.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.peers import ROOT
from sparse_ad.data.sources.textures import TEXTURES
from sparse_ad.system import environment
from sparse_ad.system.files import read_fields, write_json

TARGET = 3e9  # bytes

IMAGES = flags.DEFINE_integer("images", 1000, "How many: four fifths to train, one to test.")
SIDE = flags.DEFINE_integer("side", 1024, "Pixels along each side of an image.")
RECORD = flags.DEFINE_string("record", str(ROOT / "results/benchmarks/memory.json"), "Result file.")


def main(_) -> None:
    """Measures all runs and writes the record."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = measure_all(Path(scratch), IMAGES.value, SIDE.value)
    for name, run in runs.items():
        print(f"{name}: {run['images']} images, {run['peak_bytes'] / 1e9:.2f} GB")
    record = {
        "side": SIDE.value,
        "target_bytes": TARGET,
        "runs": runs,
        "reached": all(run["peak_bytes"] < TARGET for run in runs.values()),
        "environment": environment.describe(),
    }
    write_json(RECORD.value, record)


def measure_all(scratch: Path, images: int, side: int) -> dict[str, dict[str, Any]]:
    """Returns what each run measured, by its name."""
    texture = np.asarray(TEXTURES["tile"](np.random.default_rng(0), (side, side))[..., 1])
    many, few = scratch / "many", scratch / "few"
    write_images(many, texture, images)
    write_images(few, texture, min(10, images))
    full, stride = f"--config.data.size=({side},{side})", "--config.method.patches.stride"
    return {
        "full size": measure(many, full, f"{stride}=32"),
        "default size": measure(many, f"{stride}=16"),
        "full size, default stride": measure(few, full, "--config.evaluation.batch_size=2"),
    }


def write_images(root: Path, texture: np.ndarray, count: int) -> None:
    """Writes a data set: a texture, shifted, with noise; half of the test images have a square."""
    rng = np.random.default_rng(1)
    test = max(4, count // 5)
    for index in range(count):
        shifted = np.roll(texture, rng.integers(0, len(texture), 2), (0, 1)).astype(np.float32)
        pixels = (255 * shifted + rng.normal(0, 4, shifted.shape)).clip(0, 255).astype(np.uint8)
        kind = ("good", "square")[index % 2]
        if index >= test:
            save(root / "train" / "good" / f"{index:04d}.png", pixels)
            continue
        if kind == "square":
            mask = np.zeros_like(pixels)
            mask[100:150, 200:250] = 255
            save(root / "ground_truth" / kind / f"{index:04d}_mask.png", mask)
            pixels[mask > 0] = 255
        save(root / "test" / kind / f"{index:04d}.png", pixels)


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes a grey PNG file, compressed little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def measure(images: Path, *fields: str) -> dict[str, Any]:
    """Runs launch.py on the images; returns seconds, counts and the peak memory of its process."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, str(ROOT / "launch.py"), f"--workdir={workdir}"]
        command += ["--config=configs/sparse_patches.py", f"--config.data.root={images}"]
        command += ["--config.fit.epochs=1", *fields]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"launch.py ended with exit code {process.returncode}")
        counts = read_fields(Path(workdir, "results.json"), ["counts"])["counts"]
    return {
        "images": sum(counts.values()),
        "fields": fields,
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


if __name__ == "__main__":
    app.run(main)
