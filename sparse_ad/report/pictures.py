"""The few images that a report shows, scored a second time: maps are not kept while measuring."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from sparse_ad.batching import batched
from sparse_ad.data.decode import image_shape
from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.devices import by_image
from sparse_ad.evaluation.results import ScoreRow
from sparse_ad.evaluation.scoring import score_images
from sparse_ad.methods.compiled import Score
from sparse_ad.types import Example, Explanation, Method, NormalMaps, Params

PER_GROUP = 3  # pictures
SAMPLED = 32  # images of each class whose layers and latents are shown
SIDE = 64  # pixels along a side of a map that its layer's colour scale is set by, at most

Explanations = dict[str, Explanation]  # of one image, by layer


class Picture(NamedTuple):
    """One image to show."""

    row: ScoreRow
    image: Float[np.ndarray, "h w c"]  # 0..1
    map: Float[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]  # all False where none is known
    ignored: Bool[np.ndarray, "h w"]  # pixels that were filled in
    reconstruction: Float[np.ndarray, "h w c"] | None  # of the first picture of each group
    layers: Explanations | None = None  # of the first picture of each group
    shape: tuple[int, int] | None = None  # (height, width) before the resize; None: as it is


class Layer(NamedTuple):
    """One layer in the sampled test images."""

    normal: Float[np.ndarray, "n p"]  # patch errors
    anomalous: Float[np.ndarray, "m p"]
    low: float  # median of the maps of the normal images; NaN: there are none
    high: float  # their 99.5 % quantile
    channels: Float[np.ndarray, "n c"]  # what each channel adds in each normal image


class Pictures(NamedTuple):
    """What a report shows, each group from its most to its least extreme score."""

    highest_normal: tuple[Picture, ...]
    lowest_anomalous: tuple[Picture, ...]
    highest_anomalous: tuple[Picture, ...]
    lowest_normal: tuple[Picture, ...]
    atoms: Float[np.ndarray, "k h w c"] | None
    layers: dict[str, Layer] | None = None  # where the method can explain
    latents: tuple[Float[np.ndarray, "_ l"], ...] | None = None  # of sampled normal, anomalous ones
    normal: NormalMaps | None = None  # of a calibrated detector


class Viewer(NamedTuple):
    """A fitted detector, and how images are read for it."""

    method: Method
    params: Params
    images: Images
    batch_size: int


def gather_pictures(
    method: Method,
    score: Score,
    params: Params,
    examples: Sequence[Example],
    rows: Sequence[ScoreRow],
    images: Images,
    batch_size: int,
) -> Pictures:
    """Gathers the best and the worst of the test images that `rows` lists.

    `score` is the compiled scoring function of the method, best called with the batch size that it
    was compiled for. The first picture of each group is reconstructed and explained, where the
    method can.
    """
    viewer = Viewer(method, params, images, batch_size)
    groups = choose_rows(rows)
    chosen = {row.path: row for group in groups.values() for row in group}
    firsts = {group[0].path for group in groups.values() if group}
    explanations, layers = gather_layers(viewer, examples, rows, firsts)
    reconstructions = reconstruct_images(viewer, _select(examples, firsts))
    pictures = {}
    scored = score_images(score, params, _select(examples, chosen), images, batch_size, "pictures")
    for image in scored:
        path = image.example.path
        shown = image.image, image.map, image.mask, image.ignored
        shape = image_shape(image.example.image, path, images)
        extras = reconstructions.get(path), explanations.get(path), shape
        pictures[path] = Picture(chosen[path], *shown, *extras)
    atoms, normal = method.views.atoms, method.views.normal
    return Pictures(
        **{name: tuple(pictures[row.path] for row in group) for name, group in groups.items()},
        atoms=np.asarray(atoms(params)) if atoms else None,
        layers=layers,
        latents=gather_latents(viewer, examples, rows),
        normal=jax.device_get(normal(params)) if normal else None,
    )


def choose_rows(rows: Sequence[ScoreRow]) -> dict[str, list[ScoreRow]]:
    """Chooses the rows of each group of Pictures: PER_GROUP at most, no image twice."""
    ordered = sorted(rows, key=_score)
    normal, anomalous = ([row for row in ordered if row.label == label] for label in (0, 1))
    # A small class is divided between both groups, so that its best is not also its worst.
    half_normal, half_anomalous = ((len(half) + 1) // 2 for half in (normal, anomalous))
    return {
        "highest_normal": normal[::-1][: min(PER_GROUP, half_normal)],
        "lowest_anomalous": anomalous[: min(PER_GROUP, len(anomalous) - half_anomalous)],
        "highest_anomalous": anomalous[::-1][: min(PER_GROUP, half_anomalous)],
        "lowest_normal": normal[: min(PER_GROUP, len(normal) - half_normal)],
    }


def _score(row: ScoreRow) -> float:
    assert row.score is not None  # a test image that could be read
    return row.score


def choose_sample(rows: Sequence[ScoreRow]) -> dict[str, int]:
    """Chooses at most SAMPLED images of each class, spread evenly over `rows`: {path: label}."""
    chosen = {}
    for label in (0, 1):
        paths = [row.path for row in rows if row.label == label]
        index = np.linspace(0, len(paths) - 1, min(SAMPLED, len(paths))).round().astype(int)
        chosen |= {paths[position]: label for position in index}
    return chosen


def reconstruct_images(
    viewer: Viewer, examples: Sequence[Example]
) -> dict[str, Float[np.ndarray, "h w c"]]:
    """Returns the reconstructions by path; none where the method makes none."""
    view = viewer.method.views.reconstruct
    return dict(view_images(viewer, view, examples, "reconstructions")) if view else {}


def gather_layers(
    viewer: Viewer, examples: Sequence[Example], rows: Sequence[ScoreRow], firsts: set[str]
) -> tuple[dict[str, Explanations], dict[str, Layer] | None]:
    """Explains a sample of the test images, and those whose paths are in `firsts`.

    Returns: (explanations of `firsts` by path, layers by name); ({}, None) where the method cannot.
    Keeps the whole maps of `firsts`, and of other images only SIDE x SIDE pixels.
    """
    explain = viewer.method.views.explain
    if explain is None:
        return {}, None
    labels = choose_sample(rows)
    chosen = _select(examples, firsts | labels.keys())
    kept, sample = {}, {0: [], 1: []}
    for path, explanations in view_images(viewer, explain, chosen, "layers"):
        if path in firsts:
            kept[path] = explanations
        if path in labels:
            sample[labels[path]].append(_with_small_maps(explanations))
    names = next(iter(sample[0] + sample[1]), {})
    return kept, {name: _layer(name, sample[0], sample[1]) for name in names}


def gather_latents(
    viewer: Viewer, examples: Sequence[Example], rows: Sequence[ScoreRow]
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "m l"]] | None:
    """Returns the latents of a sample of the normal and anomalous test images; None without any."""
    latent = viewer.method.views.latent
    if latent is None:
        return None
    labels, codes = choose_sample(rows), {0: [], 1: []}
    for path, code in view_images(viewer, latent, _select(examples, labels), "latents"):
        codes[labels[path]].append(code)
    length = len((codes[0] + codes[1])[0])
    normal, anomalous = (np.array(each, np.float32).reshape(-1, length) for each in codes.values())
    return normal, anomalous


def view_images(
    viewer: Viewer, view: Callable[..., Any], examples: Sequence[Example], title: str
) -> Iterator[tuple[str, Any]]:
    """Yields the path and the view of each image that can be read; `view`: one of `Views`."""
    method = viewer.method
    compiled = by_image(batched(view, method.together))
    with tqdm(total=len(examples), desc=title, unit="image", delay=1) as bar:
        for batch in scoring_batches(examples, viewer.images, viewer.batch_size):
            values = compiled(viewer.params, method.features.extract(batch.image))
            values = jax.tree.map(np.asarray, values)
            for row in np.flatnonzero(batch.valid):
                value = jax.tree.map(lambda leaf, row=row: leaf[row].copy(), values)
                yield examples[batch.index[row]].path, value
            bar.update(int(np.sum(batch.index >= 0)))


def _select(examples: Sequence[Example], paths) -> list[Example]:
    return [example for example in examples if example.path in paths]


def _with_small_maps(explanations: Explanations) -> Explanations:
    return {
        name: each._replace(map=_thin(np.asarray(each.map))) for name, each in explanations.items()
    }


def _thin(anomaly_map: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "rows columns"]:
    """Every so many rows and columns of a map, so that at most SIDE of each are left."""
    down, across = (-(-length // SIDE) for length in anomaly_map.shape)
    return anomaly_map[down // 2 :: down, across // 2 :: across].copy()


def _layer(name: str, normal: Sequence[Explanations], anomalous: Sequence[Explanations]) -> Layer:
    """Collects one layer of images of both classes, of which one may be empty."""
    low = high = np.nan
    if normal:
        maps = np.stack([each[name].map for each in normal])
        low, high = (float(value) for value in np.quantile(maps, (0.5, 0.995)))
    like = (*normal, *anomalous)[0][name]
    return Layer(
        normal=_stack(name, "errors", normal, like),
        anomalous=_stack(name, "errors", anomalous, like),
        low=low,
        high=high,
        channels=_stack(name, "channels", normal, like),
    )


def _stack(
    name: str, field: str, images: Sequence[Explanations], like: Explanation
) -> Float[np.ndarray, "n m"]:
    """One field of a layer in several images, or no rows of the right length."""
    rows = [getattr(each[name], field) for each in images]
    return np.stack(rows) if rows else np.empty((0, *getattr(like, field).shape))
