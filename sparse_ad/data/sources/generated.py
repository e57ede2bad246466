"""Generated textures with planted defects: they show that a method works, not how good it is.

Every image is a function of (seed, category, split, kind, index, size) alone.
"""

import zlib

import numpy as np
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from sparse_ad.data.sources.defects import DEFECTS
from sparse_ad.data.sources.textures import TEXTURES
from sparse_ad.errors import require, require_choice
from sparse_ad.types import Example

SMALLEST = 32  # pixels: defects need room


def load(config, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): `config.count` = (training, normal test, anomalous test) images.

    `config.category` is one of TEXTURES; the kinds of DEFECTS take turns.
    Raises UserError for an unknown category, a negative count, or a size below 32 pixels.
    """
    require_choice("data.category", config.category, TEXTURES)
    count, size = tuple(config.count), tuple(config.size)
    remedy = "give three counts: training, normal test and anomalous test images"
    require(len(count) == 3 and min(count) >= 0, "data.count", count, remedy)
    require(min(size) >= SMALLEST, "data.size", size, f"generated images need {SMALLEST} or more")
    kinds = [list(DEFECTS)[index % len(DEFECTS)] for index in range(count[2])]
    wanted = [("train", "good", index) for index in range(count[0])]
    wanted += [("test", "good", index) for index in range(count[1])]
    wanted += [("test", kind, index) for index, kind in enumerate(kinds)]
    shown = tqdm(wanted, desc="generate", unit="image", delay=1)
    made = [_example(config.category, *which, size, seed) for which in shown]
    return tuple(made[: count[0]]), tuple(made[count[0] :])


def generate(
    category: str, split: str, kind: str, index: int, size: tuple[int, int], seed: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Returns one image and its mask: texture, defect (unless "good"), light, sensor noise."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{category}/{split}/{kind}".encode()), index])
    image, mask = TEXTURES[category](rng, size), np.zeros(size, bool)
    if kind != "good":
        image, mask = DEFECTS[kind](rng, image)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    slope = rng.uniform(-0.06, 0.06, 2)
    light = rng.uniform(0.94, 1.06) + slope[0] * y[:, None] + slope[1] * x
    noise = 0.012 * rng.standard_normal((*size, 3), dtype=np.float32)
    image = image * light[..., None] + noise
    return np.round(255 * image.clip(0, 1)).astype(np.uint8), mask


def _example(
    category: str, split: str, kind: str, index: int, size: tuple[int, int], seed: int
) -> Example:
    image, mask = generate(category, split, kind, index, size, seed)
    path = f"generated/{category}/{split}/{kind}/{index:03d}"
    return Example(image, int(kind != "good"), kind, None if kind == "good" else mask, path, path)
