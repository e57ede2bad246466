"""The few images that a report shows, scored a second time: maps are not kept while measuring."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from sparse_ad.scoring import Score, ScoredImage, score_images
from sparse_ad.types import Example, Method, Params

EACH = 3  # pictures in each group


class Picture(NamedTuple):
    """One image to show."""

    row: dict[str, Any]  # of scores.csv
    image: Float[np.ndarray, "h w c"]  # 0..1
    map: Float[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]  # all False where none is known
    reconstruction: Float[np.ndarray, "h w c"] | None


class Pictures(NamedTuple):
    """What a report shows, each group from its most to its least extreme score."""

    false_alarms: tuple[Picture, ...]  # the highest-scored normal images
    misses: tuple[Picture, ...]  # the lowest-scored anomalous ones
    hits: tuple[Picture, ...]  # the highest-scored anomalous ones
    calm: tuple[Picture, ...]  # the lowest-scored normal ones
    atoms: Float[np.ndarray, "k h w c"] | None


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
    first picture of each group is reconstructed, where the method can.
    """
    groups = choose_rows(rows)
    named = {row["path"]: row for group in groups for row in group}
    chosen = [example for example in examples if example.path in named]
    firsts = {group[0]["path"] for group in groups if group}
    reconstruct = jax.jit(method.reconstruct) if method.reconstruct else None

    def picture(image: ScoredImage) -> Picture:
        path, shown = image.example.path, None
        if reconstruct and path in firsts:
            shown = np.asarray(reconstruct(params, method.features.extract(image.image[None])))[0]
        return Picture(named[path], image.image, image.map, image.mask, shown)

    scored: Iterable[ScoredImage] = score_images(score, params, chosen, config, "pictures")
    shown = {image.example.path: picture(image) for image in scored}
    atoms = np.asarray(method.atoms(params)) if method.atoms else None
    return Pictures(*(tuple(shown[row["path"]] for row in group) for group in groups), atoms)


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
