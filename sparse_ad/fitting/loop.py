"""The one loop that fits every detector: resumes bit for bit, stops cleanly, shards by images.

How a kill is handled: system/signals.py.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from sparse_ad.data.reading import size_of
from sparse_ad.devices import check_batch, replicate
from sparse_ad.errors import UserError
from sparse_ad.fitting.checkpoint import Checkpoints, Position
from sparse_ad.fitting.metrics_log import REMEDY, MetricsLog
from sparse_ad.fitting.record import FitRecord
from sparse_ad.fitting.setup import Setup
from sparse_ad.fitting.steps import CALL_SECONDS, Pace, make_steps
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.signals import Stopped, StopSignals
from sparse_ad.types import Encoded, Example, Params, State


class Progress(NamedTuple):
    """Where a fit stands."""

    step: int
    state: State
    seconds: float  # spent so far


def fit(setup: Setup, examples: Sequence[Example], workdir: Path) -> tuple[Params, FitRecord]:
    """Fits on the examples, from the newest checkpoint if there is one.

    What a step sees and draws depends on its number alone, and a checkpoint holds state and
    number: a fit that was killed and started again ends with the same bits.

    Returns the parameters and a record of the fit. Raises: UserError on an unreadable training
    image, a full disk, a value that is no longer finite (naming the step), or other training
    images than the checkpoint saw; `Stopped` on a signal, after saving a checkpoint.
    """
    check_batch("fit.batch_size", setup.options.batch_size)
    setup = setup.for_images(len(examples))
    images = fingerprint(examples)
    steps = setup.steps(len(examples))
    with closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        progress = _restore(setup, checkpoints, examples)
        log = MetricsLog(workdir / "metrics.jsonl", progress.step if progress else 0)
        if progress is None or progress.step < steps:
            progress = _continue(setup, examples, images, progress, checkpoints, log)
    record = FitRecord(steps, len(examples), progress.seconds, log.last, setup.images.pair)
    write_json(workdir / "fit.json", record)
    return _finish(setup, progress.state), record


def load(setup: Setup, workdir: Path, examples: Sequence[Example] | None = None) -> Params:
    """Returns the parameters of a finished fit.

    Raises: UserError where there is none, or where `examples`, the training images of now, are not
    those that it was made with: the held-out ones may then be among them.
    """
    record = read_json(workdir / "fit.json", FitRecord)
    setup, steps = setup.for_images(record.images), record.steps
    with closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        if checkpoints.latest() != steps:
            raise UserError(
                f"{checkpoints.folder}: the checkpoint of step {steps}, the last of the fit, is "
                "not there; run --mode=fit again"
            )
        state, position = checkpoints.restore(steps, setup.state_like())
        if examples is not None:
            _check_same_images(checkpoints, steps, position, examples)
    return _finish(setup, replicate(state))


def check_images(workdir: Path, examples: Sequence[Example]) -> None:
    """Raises UserError where the newest checkpoint was made with other training images."""
    folder = workdir / "checkpoints"
    if folder.is_dir():
        with closing(Checkpoints(folder)) as checkpoints:
            step = checkpoints.latest()
            if step is not None:
                _check_same_images(checkpoints, step, checkpoints.position(step), examples)


def _finish(setup: Setup, state: State) -> Params:
    """Returns the parameters; waits for them, so that their time counts as fitting."""
    return jax.block_until_ready(jax.jit(setup.method.finish)(setup.keys()[2], state))


def _restore(setup: Setup, checkpoints: Checkpoints, examples) -> Progress | None:
    """Returns the progress that the newest checkpoint holds; None where there is none."""
    step = checkpoints.latest()
    if step is None:
        return None
    state, position = checkpoints.restore(step, setup.state_like())
    _check_same_images(checkpoints, step, position, examples)
    _check_same_size(checkpoints, step, position, setup)
    return Progress(step, replicate(state), position.seconds)


def _continue(
    setup: Setup,
    examples: Sequence[Example],
    images: str,
    progress: Progress | None,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> Progress:
    """Takes the remaining steps, or those until a signal; returns the last, saved progress."""
    started = time.monotonic() - (progress.seconds if progress else 0.0)
    first_key, step_key, _ = setup.keys()
    steps, between = setup.steps(len(examples)), setup.options.checkpoint_seconds
    size = setup.images.pair
    source = make_steps(setup, examples, step_key, progress.step if progress else 0)
    if progress is None:
        state = jax.jit(setup.method.init)(first_key, source.first())
        progress = Progress(0, replicate(state), 0.0)
    saved_at, pace = time.monotonic(), Pace(min(CALL_SECONDS, between))
    bar = tqdm(total=steps, initial=progress.step, desc="fit", unit="step")
    asked = 0  # polled once per iteration; a later signal is handled in the next one
    with StopSignals() as stop, bar, closing(log):
        while progress.step < steps and not asked:
            most = min(pace.steps, steps - progress.step)
            state, info, taken = source.advance(progress.state, progress.step, most)
            stop.unsaved()
            pace.note(log.add(progress.step + 1, info, taken))
            progress = Progress(progress.step + taken, state, progress.seconds)
            bar.update(taken)
            due, asked = time.monotonic() - saved_at > between, stop.asked()
            if due or asked or progress.step == steps:
                log.sync()  # first: a step that went wrong is not saved
                progress = progress._replace(seconds=time.monotonic() - started)
                _save(checkpoints, progress, Position(images, progress.seconds, size))
                saved_at = time.monotonic()
    if stop.noted:
        raise Stopped(stop.noted, f"stopped at step {progress.step} of {steps}, checkpoint saved")
    return progress


def _save(checkpoints: Checkpoints, progress: Progress, position: Position) -> None:
    """Saves a checkpoint. Raises: UserError where the state holds a number that is not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(progress.state):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.isfinite(leaf).all():
            name = jax.tree_util.keystr(path)
            raise UserError(f"step {progress.step}: state{name} is no longer finite; {REMEDY}")
    checkpoints.save(progress.step, progress.state, position)


def _check_same_images(
    checkpoints: Checkpoints, step: int, position: Position, examples: Sequence[Example]
) -> None:
    if position.images != fingerprint(examples):
        raise UserError(
            f"{checkpoints.folder / str(step)}: was made with other training images than the "
            f"{len(examples)} of now; restore them, or delete the workdir to start again"
        )


def _check_same_size(checkpoints: Checkpoints, step: int, position: Position, setup: Setup) -> None:
    """Raises UserError where a checkpoint was made with images of another size than those of now.

    Where data.size is one number, files of the same names and lengths may have another aspect.
    """
    size = setup.images.pair
    if position.size and tuple(position.size) != size:
        made = " x ".join(map(str, position.size))
        raise UserError(
            f"{checkpoints.folder / str(step)}: was made with images at {made}, those of now "
            f"are at {size[0]} x {size[1]}, by their aspect; restore them, or delete the workdir "
            "to start again"
        )


def fingerprint(examples: Sequence[Example]) -> str:
    """Returns a hash of the names and sizes of the images, in their order, wherever they lie.

    Those of their ignore masks are part of it, where there are any.
    """
    names = "\n".join(f"{example.path} {size_of(example.image)}" for example in examples)
    masks = ((example.path, example.ignore) for example in examples)
    ignored = [
        f"\n{path} ignores {name_of(mask)} {size_of(mask)}"
        for path, mask in masks
        if mask is not None
    ]
    names += "".join(ignored)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


def name_of(image: Encoded) -> str:
    """Returns the name of a file, without its folder; "" for what is no file."""
    return image.name if isinstance(image, Path) else ""
