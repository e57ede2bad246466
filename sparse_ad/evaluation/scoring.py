"""Scores whole data sets in batches: collects unreadable images, times the calls."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.errors import UserError
from sparse_ad.evaluation.results import Cost, Skipped
from sparse_ad.methods.compiled import Score
from sparse_ad.types import (
    NO_DIAGNOSTICS,
    Batch,
    Diagnostics,
    Example,
    Params,
    Scores,
)


@runtime_checkable
class Readable(Protocol):
    """An image, and why it could not be read."""

    @property
    def example(self) -> Example: ...

    @property
    def problem(self) -> str: ...


REPEATS = 2  # calls that are repeated to be timed, where a data set fits in one batch


class ScoredImage(NamedTuple):
    """One image and its scores; NaN and zeros where it could not be read."""

    example: Example
    image: Float[np.ndarray, "h w c"]  # 0..1
    mask: Bool[np.ndarray, "h w"]
    score: float
    map: Float[np.ndarray, "h w"]
    info: Diagnostics  # of plain numbers
    problem: str  # why it could not be read; "" if it could
    ignored: Bool[np.ndarray, "h w"]  # pixels that were filled in


def score_images(
    score: Score,
    params: Params,
    examples: Sequence[Example],
    images: Images,
    batch_size: int,
    title: str | None,
    seconds: list[float] | None = None,
    *,
    strict: bool = True,
) -> Iterator[ScoredImage]:
    """Scores `examples` in batches of one size, and yields them one by one, in their order.

    Holds one batch at a time. Appends to `seconds`, if given, how long every call of `score` took
    (until its result was there, decoding not counted); the first call compiles.
    `title`: of the progress bar; None: without one. A score or map that is not finite is an error
    where `strict`, or else the problem of its image.
    Raises: UserError naming the image.
    """
    programs = set()  # (masked, unmasked images): each compiles at its first batch
    quiet = title is None
    with tqdm(total=len(examples), desc=title, unit="image", delay=1, disable=quiet) as bar:
        for batch in scoring_batches(examples, images, batch_size):
            masked = batch.ignored.any(axis=(1, 2))
            inputs = (batch.image, batch.ignored) if masked.any() else (batch.image,)
            scores, spent = _timed(score, params, *inputs)
            if programs and seconds is not None and (masked.any(), masked.all()) not in programs:
                spent = _timed(score, params, *inputs)[1]  # the first call compiled
            programs.add((masked.any(), masked.all()))
            if seconds is not None:
                seconds.append(spent)
                if len(examples) <= batch_size:  # only the compiling call would be timed
                    seconds += [_timed(score, params, *inputs)[1] for _ in range(REPEATS)]
            for row in np.flatnonzero(batch.index >= 0).tolist():
                image = _scored_image(examples[batch.index[row]], batch, scores, row)
                if strict and image.problem and batch.valid[row]:
                    raise UserError(image.problem)
                yield image
                bar.update()


def check_readable(images: Sequence[Readable], limit: float) -> tuple[Skipped, ...]:
    """Returns the images that could not be read. Their maps are not needed and may be dropped.

    Raises: UserError when they are more than the fraction `limit` of all images, or all of the
    normal or all of the anomalous images.
    """
    skipped = [image for image in images if image.problem]
    if not skipped:
        return ()
    first = f"first: {skipped[0].problem}"  # it names the file
    for label, name in ((0, "normal"), (1, "anomalous")):
        of_class = [image for image in images if image.example.label == label]
        if of_class and all(image.problem for image in of_class):
            problem = of_class[0].problem
            raise UserError(
                f"none of the {len(of_class)} {name} images can be read (first: {problem}): "
                "replace them"
            )
    if len(skipped) > limit * len(images):
        raise UserError(
            f"{len(skipped)} of {len(images)} images cannot be read ({first}): replace them, or "
            f"raise evaluation.max_unreadable = {limit}"
        )
    return tuple(Skipped(each.example.path, each.example.kind, each.problem) for each in skipped)


def measure_costs(seconds: Sequence[float], batch_size: int, params: Params) -> Cost:
    """Measures speed and memory. `seconds`: of the scoring calls, the first of which compiled.

    Speed is that of the other calls: images per second, and the median and 95th percentile over
    calls of milliseconds / batch size.
    """
    steady = np.asarray(seconds[1:])
    milliseconds = 1000 * steady / batch_size
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Cost(
        images_per_second=float(batch_size / steady.mean()),
        milliseconds_p50=float(np.quantile(milliseconds, 0.5)),
        milliseconds_p95=float(np.quantile(milliseconds, 0.95)),
        batch_size=batch_size,
        batches_timed=len(steady),
        compile_seconds=float(max(0.0, seconds[0] - np.median(steady))),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        peak_device_memory=_peak_device_memory(),
        params=int(sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(params))),
    )


def summarise_info(infos: Sequence[Diagnostics]) -> dict[str, float]:
    """Returns the diagnostics of all images: means, and the largest values as "largest_NAME"."""
    first = infos[0]
    mean = {name: float(np.mean([info.mean[name] for info in infos])) for name in first.mean}
    largest = {
        f"largest_{name}": float(np.max([info.largest[name] for info in infos]))
        for name in first.largest
    }
    return mean | largest


def _timed(score: Score, params: Params, *inputs: np.ndarray) -> tuple[Scores, float]:
    start = time.perf_counter()
    scores = jax.tree.map(np.asarray, score(params, *inputs))  # waits for the result
    return scores, time.perf_counter() - start


def _scored_image(example: Example, batch: Batch, scores: Scores, row: int) -> ScoredImage:
    image, mask, ignored = batch.image[row], batch.mask[row], batch.ignored[row]
    if not batch.valid[row]:
        blank, problem = np.zeros_like(scores.map[row]), batch.problem[row]
        return ScoredImage(example, image, mask, np.nan, blank, NO_DIAGNOSTICS, problem, ignored)
    value, anomaly_map = float(scores.image[row]), np.asarray(scores.map[row])
    if not (np.isfinite(value) and np.isfinite(anomaly_map).all()):
        problem, blank = (
            not_finite(example, value, anomaly_map, ignored),
            np.zeros_like(anomaly_map),
        )
        return ScoredImage(example, image, mask, np.nan, blank, NO_DIAGNOSTICS, problem, ignored)
    info = jax.tree.map(lambda column: float(column[row]), scores.info)
    return ScoredImage(example, image, mask, value, anomaly_map, info, "", ignored)


def not_finite(example: Example, score: float, anomaly_map: np.ndarray, ignored: np.ndarray) -> str:
    """Returns why an image has no score."""
    if ignored.any() and np.isnan(score) and np.isfinite(anomaly_map).all():
        return (
            f"{example.path}: no patch lies on pixels that are not ignored (data.ignore): ignore "
            "fewer pixels, or make patches smaller"
        )
    return (
        f"{example.path}: score {score} or its map is not finite: look for broken pixels in the "
        "image; if all images do this, fit again with a larger penalty"
    )


def _peak_device_memory() -> int | None:
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")
