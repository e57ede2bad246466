"""The one loop that fits every detector: resumes bit for bit, stops cleanly, shards by images."""

import hashlib
import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from sparse_ad.data.decode import CHANNELS
from sparse_ad.devices import check_batch, replicate
from sparse_ad.errors import UserError, require
from sparse_ad.fitting.checkpoint import Checkpoints
from sparse_ad.fitting.metrics_log import REMEDY, MetricsLog
from sparse_ad.fitting.steps import CALL_SECONDS, Pace, steps_of
from sparse_ad.system.files import read_json, write_json
from sparse_ad.system.signals import Stopped, StopSignals
from sparse_ad.types import Example, Key, Method, Params, State


class Place(NamedTuple):
    """Where a fit stands."""

    step: int
    state: State
    seconds: float  # that it took so far


def check(config) -> None:
    """Raises UserError for a field of the `fit` section that is out of range."""
    check_batch("fit.batch_size", config.fit.batch_size)
    passes, between = config.fit.passes, config.fit.checkpoint_seconds
    resident = config.fit.resident_gb
    require(0 < passes < math.inf, "fit.passes", passes, "must be positive and finite")
    require(between >= 0, "fit.checkpoint_seconds", between, "must be 0 (each step) or more")
    require(resident >= 0, "fit.resident_gb", resident, "must be 0 (keep no images) or more")


def total_steps(config, count: int) -> int:
    """Returns how many batches the fit takes for `passes` over `count` images."""
    return math.ceil(config.fit.passes * count / config.fit.batch_size)


def state_like(method: Method, config) -> State:
    """Returns the shapes and types of the method's state, without any data.

    Errors: UserError where images and method do not go together.
    """
    shape = (config.fit.batch_size, *config.data.size, CHANNELS[config.data.color])
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    maps = jax.eval_shape(method.features.extract, images)
    return jax.eval_shape(method.init, jax.random.key(0), maps)


def fit(
    method: Method, config, examples: tuple[Example, ...], workdir: Path
) -> tuple[Params, dict]:
    """Fits on the examples, from the newest checkpoint if there is one.

    What a step sees and draws depends on its number alone, and the checkpoint holds state and
    number: a fit that was killed and started again ends with the same bits.

    Returns the parameters and a record of the fit. Errors: UserError on an unreadable training
    image, a full disk, a value that is no longer finite (naming the step), or other training
    images than the checkpoint saw. Raises `Stopped` on a signal, after saving a checkpoint.
    """
    steps = total_steps(config, len(examples))
    checkpoints = Checkpoints(workdir / "checkpoints")
    place = _restore(method, config, checkpoints, examples)
    log = MetricsLog(workdir / "metrics.jsonl", place.step if place else 0)
    if place is None or place.step < steps:
        place = _go_on(method, config, examples, place, checkpoints, log)
    checkpoints.close()
    record = {"steps": steps, "images": len(examples), "seconds": place.seconds, "last": log.last}
    write_json(workdir / "fit.json", record)
    return jax.jit(method.finish)(keys(config)[2], place.state), record


def keys(config) -> tuple[Key, Key, Key]:
    """Returns the keys of the beginning, of all steps, and of the end of a fit."""
    return tuple(jax.random.split(jax.random.key(config.seed), 3))


def load(method: Method, config, workdir: Path, examples: Sequence[Example] | None = None):
    """Returns the parameters of a finished fit.

    Errors: UserError where there is none, or where `examples`, the training images of now, are not
    those it was made with: the held-out ones may then be among them.
    """
    steps = read_json(workdir / "fit.json", ("steps", "last"))["steps"]
    checkpoints = Checkpoints(workdir / "checkpoints")
    if checkpoints.latest() != steps:
        raise UserError(
            f"{checkpoints.folder}: the checkpoint of step {steps}, the last of the fit, is not "
            "there; run --mode=fit again"
        )
    state, position = checkpoints.restore(steps, state_like(method, config))
    if examples is not None:
        _check_same_images(checkpoints, steps, position, examples)
    checkpoints.close()
    return jax.jit(method.finish)(keys(config)[2], replicate(state))


def _restore(method, config, checkpoints: Checkpoints, examples) -> Place | None:
    """Returns the place of the newest checkpoint; None where there is none."""
    step = checkpoints.latest()
    if step is None:
        return None
    state, position = checkpoints.restore(step, state_like(method, config))
    _check_same_images(checkpoints, step, position, examples)
    return Place(step, replicate(state), position["seconds"])


def _go_on(
    method, config, examples, place: Place | None, checkpoints: Checkpoints, log: MetricsLog
) -> Place:
    """Takes the steps that are left, or those until a signal, and returns the last, saved place."""
    started = time.monotonic() - (place.seconds if place else 0.0)
    first_key, step_key, _ = keys(config)
    steps, between = total_steps(config, len(examples)), config.fit.checkpoint_seconds
    source = steps_of(method, config, examples, step_key, place.step if place else 0)
    if place is None:
        place = Place(0, replicate(jax.jit(method.init)(first_key, source.first())), 0.0)
    saved_at, pace = time.monotonic(), Pace(min(CALL_SECONDS, between))
    bar = tqdm(total=steps, initial=place.step, desc="fit", unit="step")
    asked = False  # read once a turn: who asks between two looks is heard in the next turn
    with StopSignals() as stop, bar, closing(log.events):
        while place.step < steps and not asked:
            most = min(pace.steps, steps - place.step)
            state, info, taken = source.advance(place.state, place.step, most)
            pace.note(log.add(place.step + 1, info, taken))
            place = Place(place.step + taken, state, place.seconds)
            bar.update(taken)
            due, asked = time.monotonic() - saved_at > between, bool(stop.asked)
            if due or asked or place.step == steps:
                log.sync()  # first: a step that went wrong is not saved
                place = place._replace(seconds=time.monotonic() - started)
                _require_finite(place)
                checkpoints.save(place.step, place.state, _position(place, examples))
                saved_at = time.monotonic()
    if stop.asked:
        raise Stopped(stop.asked, f"stopped at step {place.step} of {steps}, checkpoint saved")
    return place


def _require_finite(place: Place) -> None:
    """Raises UserError where the state holds a number that is not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(place.state):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.isfinite(leaf).all():
            name = jax.tree_util.keystr(path)
            raise UserError(f"step {place.step}: state{name} is no longer finite; {REMEDY}")


def _check_same_images(checkpoints: Checkpoints, step: int, position, examples) -> None:
    if position["images"] != _fingerprint(examples):
        raise UserError(
            f"{checkpoints.folder / str(step)}: was made with other training images than the "
            f"{len(examples)} of now; bring them back, or delete the workdir to begin anew"
        )


def _position(place: Place, examples: Sequence[Example]) -> dict:
    return {"images": _fingerprint(examples), "seconds": place.seconds}


def _fingerprint(examples: Sequence[Example]) -> str:
    """Returns a hash of the names of the images, in their order."""
    names = "\n".join(example.path for example in examples)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
