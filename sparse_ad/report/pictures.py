"""The few images that a report shows, scored a second time: maps are not kept while measuring."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.devices import by_image
from sparse_ad.evaluation.scoring import Score, ScoredImage, score_images
from sparse_ad.types import Example, Explanation, Method, Params

EACH = 3  # pictures in each group
SAMPLED = 32  # images of each class whose layers are looked at
SIDE = 64  # pixels along a side of a map that its layer's colour scale is set by, at most


class Picture(NamedTuple):
    """One image to show."""

    row: dict[str, Any]  # of scores.csv
    image: Float[np.ndarray, "h w c"]  # 0..1
    map: Float[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]  # all False where none is known
    reconstruction: Float[np.ndarray, "h w c"] | None
    layers: dict[str, Explanation] | None = None  # without the axis n; of the first of each group


class Layer(NamedTuple):
    """What one layer says of the sampled test images."""

    normal: Float[np.ndarray, "n p"]  # patch errors
    anomalous: Float[np.ndarray, "m p"]
    low: float | None  # median of the maps of the normal images; None: there are none
    high: float | None  # their 99.5 % quantile
    channels: Float[np.ndarray, "n c"]  # what each channel adds in each normal image


class Pictures(NamedTuple):
    """What a report shows, each group from its most to its least extreme score."""

    false_alarms: tuple[Picture, ...]  # the highest-scored normal images
    misses: tuple[Picture, ...]  # the lowest-scored anomalous ones
    hits: tuple[Picture, ...]  # the highest-scored anomalous ones
    calm: tuple[Picture, ...]  # the lowest-scored normal ones
    atoms: Float[np.ndarray, "k h w c"] | None
    layers: dict[str, Layer] | None = None  # where the method can explain
    latents: tuple[Float[np.ndarray, "n l"], ...] | None = None  # of sampled normal, anomalous ones


def gather_pictures(
    method: Method,
    score: Score,
    params: Params,
    examples: Sequence[Example],
    rows: Sequence[dict[str, Any]],
    config: Any,
) -> Pictures:
    """Gathers the best and the worst of the test images that `rows` tells of.

    `score` is the jitted `method.score`; it meets the batch shape that it was compiled for. The
    first picture of each group is reconstructed and explained, where the method can.
    """
    groups = choose_rows(rows)
    named = {row["path"]: row for group in groups for row in group}
    chosen = [example for example in examples if example.path in named]
    firsts = {group[0]["path"] for group in groups if group}
    explained, layers = gather_layers(method, params, examples, rows, firsts, config)
    reconstruct = jax.jit(method.reconstruct) if method.reconstruct else None

    def picture(image: ScoredImage) -> Picture:
        path, shown = image.example.path, None
        if reconstruct and path in firsts:
            shown = np.asarray(reconstruct(params, method.features.extract(image.image[None])))[0]
        apart = explained.get(path)
        return Picture(named[path], image.image, image.map, image.mask, shown, apart)

    scored: Iterable[ScoredImage] = score_images(score, params, chosen, config, "pictures")
    shown = {image.example.path: picture(image) for image in scored}
    atoms = np.asarray(method.atoms(params)) if method.atoms else None
    groups = (tuple(shown[row["path"]] for row in group) for group in groups)
    return Pictures(*groups, atoms, layers, gather_latents(method, params, examples, rows, config))


def choose_rows(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], ...]:
    """Chooses false alarms, misses, hits and calm images: EACH at most, no image twice."""
    ordered = sorted(rows, key=lambda row: row["score"])
    normal, anomalous = ([row for row in ordered if row["label"] == value] for value in (0, 1))
    # A small class is shared out from both ends, so that its best is not also its worst.
    worst, best = ((len(some) + 1) // 2 for some in (normal, anomalous))
    return (
        normal[::-1][: min(EACH, worst)],
        anomalous[: min(EACH, len(anomalous) - best)],
        anomalous[::-1][: min(EACH, best)],
        normal[: min(EACH, len(normal) - worst)],
    )


def gather_layers(
    method: Method,
    params: Params,
    examples: Sequence[Example],
    rows: Sequence[dict[str, Any]],
    firsts: set[str],
    config: Any,
) -> tuple[dict[str, dict[str, Explanation]], dict[str, Layer] | None]:
    """Explains a sample of the test images, and those whose paths are in `firsts`.

    Returns: (explanations of `firsts` by path, layers by name); ({}, None) where the method cannot.
    Keeps the maps of `firsts`, and of other images but SIDE x SIDE pixels.
    """
    if method.explain is None:
        return {}, None
    labels = choose_sample(rows)
    wanted = [each for each in examples if each.path in firsts or each.path in labels]
    kept, sample = {}, {0: [], 1: []}
    for path, explanation in explain_images(method, params, wanted, config):
        if path in firsts:
            kept[path] = explanation
        if path in labels:
            thin = {name: each._replace(map=_thin(each.map)) for name, each in explanation.items()}
            sample[labels[path]].append(thin)
    names = next(iter(sample[0] + sample[1]), {})
    return kept, {name: _layer(name, sample[0], sample[1]) for name in names}


def gather_latents(
    method: Method,
    params: Params,
    examples: Sequence[Example],
    rows: Sequence[dict[str, Any]],
    config: Any,
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "m l"]] | None:
    """Returns the latents of a sample of the normal and anomalous test images; None without any."""
    if method.latent is None:
        return None
    labels = choose_sample(rows)
    wanted = [each for each in examples if each.path in labels]
    latent, found = by_image(method.latent), {0: [], 1: []}
    for batch in scoring_batches(wanted, config.data, config.evaluation.batch_size):
        codes = np.asarray(latent(params, method.features.extract(batch.image)))
        for row in np.flatnonzero(batch.valid):
            found[labels[wanted[batch.index[row]].path]].append(codes[row])
    return tuple(np.array(each).reshape(len(each), codes.shape[1]) for each in found.values())


def choose_sample(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Chooses at most SAMPLED images of each class, spread evenly over `rows`: {path: label}."""
    chosen = {}
    for label in (0, 1):
        some = [row["path"] for row in rows if row["label"] == label]
        places = np.linspace(0, len(some) - 1, min(SAMPLED, len(some))).round().astype(int)
        chosen |= {some[place]: label for place in places}
    return chosen


def explain_images(
    method: Method, params: Params, examples: Sequence[Example], config: Any
) -> Iterator[tuple[str, dict[str, Explanation]]]:
    """Yields path and explanation (without the axis n) of each image that can be read."""
    explain = by_image(method.explain)
    batches = scoring_batches(examples, config.data, config.evaluation.batch_size)
    with tqdm(total=len(examples), desc="layers", unit="image", delay=1) as bar:
        for batch in batches:
            found = explain(params, method.features.extract(batch.image))
            found = jax.tree.map(np.asarray, found)
            for row in np.flatnonzero(batch.valid):
                one = jax.tree.map(lambda leaf, row=row: leaf[row].copy(), found)
                yield examples[batch.index[row]].path, one
            bar.update(int(np.sum(batch.index >= 0)))


def _thin(anomaly_map: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "rows columns"]:
    """Every so many rows and columns of a map, so that SIDE of each are left at most."""
    down, across = (-(-length // SIDE) for length in anomaly_map.shape)
    return anomaly_map[down // 2 :: down, across // 2 :: across].copy()


def _layer(name: str, normal: Sequence[dict], anomalous: Sequence[dict]) -> Layer:
    """Puts together what layer `name` says of images of both classes, of which one may be empty."""
    like = (*normal, *anomalous)[0][name]

    def stack(field: str, images: Sequence[dict]) -> np.ndarray:
        rows = [getattr(each[name], field) for each in images]
        return np.stack(rows) if rows else np.empty((0, *getattr(like, field).shape))

    low = high = None
    if normal:
        low, high = (float(each) for each in np.quantile(stack("map", normal), (0.5, 0.995)))
    errors = stack("errors", normal), stack("errors", anomalous)
    return Layer(*errors, low, high, stack("channels", normal))
