"""Images made for tests."""

import numpy as np

SIZE = 24


def stripes(count: int, seed: int, channels: int = 1, size: int = SIZE) -> np.ndarray:
    """Images 0..1 of diagonal stripes, shifted at random, with a little noise: all normal."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    phase = rng.uniform(0.0, 6.0, (count, 1, 1, 1))
    tint = np.linspace(1.0, 0.6, channels)
    images = 0.5 + 0.3 * np.sin((rows + columns)[..., None] + phase) * tint
    return (images + 0.01 * rng.normal(size=images.shape)).clip(0, 1).astype(np.float32)


def with_defects(images: np.ndarray) -> np.ndarray:
    """The middle ninth of each image has its stripes in the other direction."""
    damaged, third = images.copy(), images.shape[1] // 3
    middle = slice(third, 2 * third)
    damaged[:, middle, middle] = damaged[:, middle, middle][:, :, ::-1]
    return damaged
