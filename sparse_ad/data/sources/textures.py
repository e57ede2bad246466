"""Generated textures: what carpet, grid, leather, tile and wood look like, near enough.

Each function takes (rng, shape) and returns float32 [h w 3] around 0..1, without light and sensor
noise. Feature sizes are in pixels, so a larger image shows more texture, not a coarser one. Each
image has its own phase, jitter and slow distortion, as photographs of one material have.
"""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Shape = tuple[int, int]
Image = Float[np.ndarray, "h w 3"]


def smooth_noise(
    rng: np.random.Generator, shape: Shape, sigma: float | tuple[float, float]
) -> Float[np.ndarray, "h w"]:
    """Returns Gaussian noise smoothed over `sigma` pixels (rows, columns), of std 1."""
    step = max(1, int(np.min(sigma)) // 3)  # very smooth noise is made on a coarse grid: cheap
    coarse = rng.standard_normal([side // step + 3 for side in shape], dtype=np.float32)
    smooth = ndimage.gaussian_filter(coarse, np.divide(sigma, step), mode="wrap", truncate=3)
    fine = ndimage.zoom(smooth, step, order=1) if step > 1 else smooth
    field = np.asarray(fine)[: shape[0], : shape[1]]
    return (field - field.mean()) / (field.std() + 1e-6)


def coordinates(
    rng: np.random.Generator, shape: Shape, wobble: float, angle: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Returns (y, x) in pixels, float32 [h w], with a random origin, slowly distorted.

    `wobble`: std of the distortion in pixels. `angle`: largest rotation in radians.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn = rng.uniform(-angle, angle)
    y, x = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    origin = rng.uniform(0, 1000, 2)
    return (
        y + origin[0] + wobble * smooth_noise(rng, shape, 30.0),
        x + origin[1] + wobble * smooth_noise(rng, shape, 30.0),
    )


def _colour(value: Float[np.ndarray, "h w"], dark, light) -> Image:
    """Maps 0..1 to the line between two RGB colours (0..1)."""
    dark, light = np.float32(dark), np.float32(light)
    return dark + value[..., None] * (light - dark)


def carpet(rng: np.random.Generator, shape: Shape) -> Image:
    """A plain weave: yarns of 8 pixels that pass over and under, with fibres along them."""
    y, x = coordinates(rng, shape, wobble=0.6, angle=0.02)
    row, column = y / 8, x / 8
    over = (np.floor(row) + np.floor(column)) % 2 == 0  # the horizontal yarn is on top
    across = np.where(over, row, column) % 1 - 0.5
    along = np.where(over, column, row) % 1 - 0.5
    height = np.sqrt(np.clip(1 - 3.6 * across**2, 0, 1)) * (1 - 1.6 * along**2)
    fibres = np.where(
        over, smooth_noise(rng, shape, (0.6, 2.0)), smooth_noise(rng, shape, (2.0, 0.6))
    )
    value = 0.15 + 0.7 * height + 0.05 * fibres
    return _colour(value, (0.16, 0.14, 0.15), (0.72, 0.66, 0.60))


def grid(rng: np.random.Generator, shape: Shape) -> Image:
    """A wire mesh: round wires of 5 pixels, 18 apart, woven over a dark ground."""
    y, x = coordinates(rng, shape, wobble=0.5, angle=0.03)
    pitch, radius = 18.0, 2.6
    row, column = y / pitch, x / pitch
    lift = np.cos(np.pi * np.round(row)) * np.cos(np.pi * column)  # of the horizontal wire

    def wire(position, height):
        offset = (position - np.round(position)) * pitch / radius
        return np.sqrt(np.clip(1 - offset**2, 0, 1)) * (0.75 + 0.25 * height)

    crossing = -np.cos(np.pi * np.round(column)) * np.cos(np.pi * row)
    value = np.maximum(wire(row, lift), wire(column, crossing))
    value = ndimage.gaussian_filter(value, 0.6) + 0.02 * smooth_noise(rng, shape, 1.0)
    return _colour(value, (0.10, 0.10, 0.11), (0.82, 0.83, 0.85))


def leather(rng: np.random.Generator, shape: Shape) -> Image:
    """Tanned hide: a net of dark creases between grains of about 9 pixels."""
    field = smooth_noise(rng, shape, 2.2) - 0.5 * smooth_noise(rng, shape, 5.0)
    crease = np.exp(-((field / 0.28) ** 2))
    value = 0.62 - 0.26 * ndimage.gaussian_filter(crease, 0.7)
    value += 0.05 * smooth_noise(rng, shape, 12.0) + 0.02 * smooth_noise(rng, shape, 0.8)
    return _colour(value, (0.10, 0.04, 0.02), (0.66, 0.40, 0.24))


def tile(rng: np.random.Generator, shape: Shape) -> Image:
    """Glazed tiles of 64 pixels with bevelled edges, grey joints and dark speckles."""
    y, x = coordinates(rng, shape, wobble=0.15, angle=0.01)
    pitch = 64.0
    edge = np.minimum(
        np.abs((y + pitch / 2) % pitch - pitch / 2), np.abs((x + pitch / 2) % pitch - pitch / 2)
    )
    glaze = np.clip((edge - 2) / 3, 0, 1)
    speckle = 1 / (1 + np.exp(-6 * (smooth_noise(rng, shape, 1.3) - 1.5)))
    value = 0.35 + glaze * (0.45 - 0.22 * speckle) + 0.01 * smooth_noise(rng, shape, 1.0)
    return _colour(value, (0.20, 0.19, 0.18), (0.86, 0.87, 0.84))


def wood(rng: np.random.Generator, shape: Shape) -> Image:
    """A planed board: dark annual lines along the columns, fine pores between them."""
    rings = (np.arange(shape[1], dtype=np.float32) + rng.uniform(0, 1000)) / 11
    rings = rings + 0.45 * smooth_noise(rng, shape, (60.0, 14.0))
    late = (rings % 1) ** 3  # wood darkens slowly through the year, then starts again
    late = ndimage.gaussian_filter(late, (2, 0.8))
    pores = smooth_noise(rng, shape, (9.0, 0.7))
    value = 0.78 - 0.36 * late - 0.05 * pores + 0.04 * smooth_noise(rng, shape, (80.0, 25.0))
    return _colour(value, (0.22, 0.11, 0.05), (0.84, 0.64, 0.42))


TEXTURES = {"carpet": carpet, "grid": grid, "leather": leather, "tile": tile, "wood": wood}
