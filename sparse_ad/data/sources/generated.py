"""Generated textures with planted defects: they show that a method works, not how good it is.

Every image is a function of (seed, category, split, kind, index, size) alone.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from sparse_ad.data.images import Images
from sparse_ad.data.sources.defects import DEFECTS
from sparse_ad.data.sources.textures import TEXTURES
from sparse_ad.errors import require, require_choice
from sparse_ad.types import Example, Loaded

SMALLEST = 32  # pixels: defects need room


@dataclass(frozen=True)
class Generated(Images):
    """Textures with planted defects, generated from the seed; one number as `size`: square."""

    category: str = "carpet"  # carpet | grid | leather | tile | wood
    # training, normal test and anomalous test images; the kinds of defects take turns
    count: tuple[int, int, int] = (100, 20, 40)

    def __post_init__(self):
        super().__post_init__()
        require_choice("category", self.category, TEXTURES)
        remedy = "give three counts: training, normal test and anomalous test images"
        require(min(self.count) >= 0, "count", self.count, remedy)
        remedy = f"generated images need {SMALLEST} or more"
        require(min(self.size) >= SMALLEST, "size", self.size, remedy)

    @property
    def exact(self) -> tuple[int, int]:
        """(height, width) of the images, which are generated at it."""
        return self.size[0], self.size[-1]

    def load(self, seed: int) -> Loaded:
        """Returns (train, test)."""
        train, good, anomalous = self.count
        kinds = [list(DEFECTS)[index % len(DEFECTS)] for index in range(anomalous)]
        names = [("train", "good", index) for index in range(train)]
        names += [("test", "good", index) for index in range(good)]
        names += [("test", kind, index) for index, kind in enumerate(kinds)]
        progress = tqdm(names, desc="generate", unit="image", delay=1)
        examples = [_example(self.category, *name, self.pair, seed) for name in progress]
        return Loaded(tuple(examples[:train]), tuple(examples[train:]))


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
