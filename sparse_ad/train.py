"""The one loop that fits every detector: resumes bit for bit, stops cleanly, shards by images."""

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from sparse_ad.checkpoint import Checkpoints
from sparse_ad.data.decode import CHANNELS
from sparse_ad.data.pipeline import training_batches
from sparse_ad.devices import check_batch, everywhere, replicate, spread
from sparse_ad.errors import UserError, require
from sparse_ad.files import read_json, write_json
from sparse_ad.metrics_log import MetricsLog
from sparse_ad.stopping import Stopped, StopSignals
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
    require(0 < passes < math.inf, "fit.passes", passes, "must be positive and finite")
    require(between >= 0, "fit.checkpoint_seconds", between, "must be 0 (each step) or more")


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

    Step t draws its randomness from a key of its own, and the checkpoint holds the state and the
    position in the data: a fit that was killed and started again ends with the same bits.

    Returns the parameters and a record of the fit. Errors: UserError on an unreadable training
    image, a full disk, a value that is no longer finite (naming the step), or other training
    images than the checkpoint saw. Raises `Stopped` on a signal, after saving a checkpoint.
    """
    steps = total_steps(config, len(examples))
    first_key, step_key, last_key = keys(config)
    checkpoints = Checkpoints(workdir / "checkpoints")
    batches = training_batches(examples, config.data, config.fit.batch_size, config.seed)
    place = _begin(method, config, first_key, batches, checkpoints, examples)
    done, state, seconds = place.step, replicate(place.state), place.seconds
    log = MetricsLog(workdir / "metrics.jsonl", done)
    saved, saved_at = done, time.monotonic()
    started = saved_at - seconds
    # Every device holds the whole state after each step, as after a resume: the same program.
    update = jax.jit(method.update, donate_argnums=1, out_shardings=everywhere())

    def save() -> None:
        nonlocal saved, saved_at, seconds
        log.flush()
        seconds = time.monotonic() - started
        checkpoints.save(done, state, _position(batches, examples, seconds))
        saved, saved_at = done, time.monotonic()

    with StopSignals() as stop, tqdm(total=steps, initial=done, desc="fit", unit="step") as bar:
        while done < steps and not stop.asked:
            maps = spread(method.features.extract(next(batches).image))
            state, info = update(jax.random.fold_in(step_key, done), state, maps)
            done += 1
            log.add(done, info)
            bar.update()
            if time.monotonic() - saved_at > config.fit.checkpoint_seconds:
                save()
        if done > saved:
            save()
    checkpoints.close()
    if stop.asked:
        raise Stopped(stop.asked, f"stopped at step {done} of {steps}, checkpoint saved")
    record = {"steps": steps, "images": len(examples), "seconds": seconds, "last": log.last}
    write_json(workdir / "fit.json", record)
    return jax.jit(method.finish)(last_key, state), record


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


def _begin(method, config, key, batches, checkpoints: Checkpoints, examples) -> Place:
    """Returns a fresh start or the newest checkpoint's place, with `batches` set to it."""
    step = checkpoints.latest()
    if step is None:
        fresh = batches.get_state()
        state = jax.jit(method.init)(key, spread(method.features.extract(next(batches).image)))
        batches.set_state(fresh)
        return Place(0, state, 0.0)
    state, position = checkpoints.restore(step, state_like(method, config))
    _check_same_images(checkpoints, step, position, examples)
    batches.set_state(position["data"])
    return Place(step, state, position["seconds"])


def _check_same_images(checkpoints: Checkpoints, step: int, position, examples) -> None:
    if position["images"] != _fingerprint(examples):
        raise UserError(
            f"{checkpoints.folder / str(step)}: was made with other training images than the "
            f"{len(examples)} of now; bring them back, or delete the workdir to begin anew"
        )


def _position(batches, examples: Sequence[Example], seconds: float) -> dict:
    return {"data": batches.get_state(), "images": _fingerprint(examples), "seconds": seconds}


def _fingerprint(examples: Sequence[Example]) -> str:
    """Returns a hash of the names of the images, in their order."""
    names = "\n".join(example.path for example in examples)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
