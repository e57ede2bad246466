"""Scores of whole data sets, a batch at a time: unreadable images told apart, calls timed."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.errors import UserError
from sparse_ad.types import Batch, Example, Params, Scores

Score = Callable[[Params, Float[np.ndarray, "n h w c"]], Scores]

REPEATS = 2  # calls made again for their time, where a data set fits in one batch


class ScoredImage(NamedTuple):
    """One image and what the detector says of it; NaN and zeros where it could not be read."""

    example: Example
    image: Float[np.ndarray, "h w c"]  # 0..1
    mask: Bool[np.ndarray, "h w"]
    score: float
    map: Float[np.ndarray, "h w"]
    info: dict[str, float]
    problem: str  # why it could not be read; "" where all is well


def score_images(
    score: Score,
    params: Params,
    examples: Sequence[Example],
    config: Any,
    title: str,
    seconds: list[float] | None = None,
) -> Iterator[ScoredImage]:
    """Scores `examples` in batches of one size, and yields them one by one, in their order.

    Holds one batch at a time. Appends the seconds of every call of `score` (result awaited,
    decoding not counted) to `seconds`, where that is wanted; the first call compiles.
    Raises: UserError naming the image when a score or map is not finite.
    """
    size = config.evaluation.batch_size
    batches = scoring_batches(examples, config.data, size)
    with tqdm(total=len(examples), desc=title, unit="image", delay=1) as bar:
        for batch in batches:
            scores, spent = _timed(score, params, batch.image)
            if seconds is not None:
                seconds.append(spent)
                if len(examples) <= size:  # nothing but the compiling call would be timed
                    seconds += [_timed(score, params, batch.image)[1] for _ in range(REPEATS)]
            for row in np.flatnonzero(batch.index >= 0):
                yield _scored_image(examples[batch.index[row]], batch, scores, row)
                bar.update()


def check_readable(images: Sequence[ScoredImage], limit: float) -> list[dict[str, str]]:
    """Lists the images that could not be read, as [{"path", "kind", "problem"}].

    Maps are not needed: pass images with theirs dropped.
    Raises: UserError when they are more than the share `limit`, or all normal or all anomalous
    images that there are.
    """
    skipped = [image for image in images if image.problem]
    if not skipped:
        return []
    first = f"first: {skipped[0].problem}"  # it names the file
    for label, name in ((0, "normal"), (1, "anomalous")):
        of_class = [image for image in images if image.example.label == label]
        if of_class and all(image.problem for image in of_class):
            raise UserError(
                f"none of the {len(of_class)} {name} images can be read ({first}): replace them"
            )
    if len(skipped) > limit * len(images):
        raise UserError(
            f"{len(skipped)} of {len(images)} images cannot be read ({first}): replace them, or "
            f"raise evaluation.max_unreadable = {limit}"
        )
    return [
        {"path": image.example.path, "kind": image.example.kind, "problem": image.problem}
        for image in skipped
    ]


def measure_costs(seconds: Sequence[float], batch_size: int, params: Params) -> dict[str, Any]:
    """Sums up speed and memory.

    `seconds`: of the scoring calls, the first of which compiled. All else is the steady state:
    images per second (decoding not counted), and the median and 95th percentile over calls of
    milliseconds / batch size. Memory in bytes: `peak_memory` of this process since it started,
    `peak_device_memory` where the device tells (else None), `params` of the fitted arrays.
    """
    steady = np.asarray(seconds[1:])
    each = 1000 * steady / batch_size
    return {
        "images_per_second": float(batch_size / steady.mean()),
        "milliseconds_p50": float(np.quantile(each, 0.5)),
        "milliseconds_p95": float(np.quantile(each, 0.95)),
        "batch_size": batch_size,
        "batches_timed": len(steady),
        "compile_seconds": float(max(0.0, seconds[0] - np.median(steady))),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        "peak_device_memory": _peak_device_memory(),
        "params": int(sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(params))),
    }


def _timed(score: Score, params: Params, images) -> tuple[Scores, float]:
    start = time.perf_counter()
    scores = jax.tree.map(np.asarray, score(params, images))  # waits for the result
    return scores, time.perf_counter() - start


def _scored_image(example: Example, batch: Batch, scores: Scores, row: int) -> ScoredImage:
    image, mask = batch.image[row], batch.mask[row]
    if not batch.valid[row]:
        return ScoredImage(
            example, image, mask, np.nan, np.zeros_like(scores.map[row]), {}, batch.problem[row]
        )
    value, anomaly_map = float(scores.image[row]), scores.map[row]
    if not (np.isfinite(value) and np.isfinite(anomaly_map).all()):
        raise UserError(
            f"{example.path}: score {value} or its map is not finite: look for broken pixels in "
            "the image; if all images do this, fit again with a larger method.penalty"
        )
    info = {name: float(column[row]) for name, column in scores.info.items()}
    return ScoredImage(example, image, mask, value, anomaly_map, info, "")


def _peak_device_memory() -> int | None:
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")
