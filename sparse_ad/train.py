"""The one loop that fits every detector: resumes bit for bit, stops cleanly, shards by images."""

import math
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sparse_ad.checkpoint import Checkpoints
from sparse_ad.data.pipeline import training_batches
from sparse_ad.devices import check_batch, replicate, spread
from sparse_ad.errors import UserError, require
from sparse_ad.files import append_line, write_json, write_text
from sparse_ad.types import Example, Method, Params, State


class Stopped(SystemExit):
    """A signal asked the fit to end; it did so after saving a checkpoint."""


def total_steps(config, count: int) -> int:
    """Returns how many batches the fit takes for `passes` over `count` images."""
    check_batch("fit.batch_size", config.fit.batch_size)
    require(config.fit.passes > 0, "fit.passes", config.fit.passes, "must be positive")
    return math.ceil(config.fit.passes * count / config.fit.batch_size)


def channels(config) -> int:
    return 3 if config.data.color == "rgb" else 1


def state_like(method: Method, config) -> State:
    """Returns the shapes and types of the method's state, without any data."""
    shape = (config.fit.batch_size, *config.data.size, channels(config))
    return jax.eval_shape(method.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def fit(
    method: Method, config, examples: tuple[Example, ...], workdir: Path
) -> tuple[Params, dict]:
    """Fits on the examples, from the newest checkpoint if there is one.

    Step t draws its randomness from fold_in(seed, t), and the checkpoint holds the state and the
    position in the data: a fit that was killed and started again ends with the same bits.

    Returns the parameters and a record of the fit. Errors: UserError on an unreadable training
    image, a full disk, or a value that is no longer finite (naming the step).
    """
    steps = total_steps(config, len(examples))
    key = jax.random.key(config.seed)
    checkpoints = Checkpoints(workdir / "checkpoints")
    batches = iter(training_batches(examples, config.data, config.fit.batch_size, config.seed))
    done = checkpoints.latest()
    if done is None:
        done, seconds = 0, 0.0
        fresh = batches.get_state()
        state = jax.jit(method.init)(key, spread(next(batches).image))
        batches.set_state(fresh)
    else:
        state, position = checkpoints.restore(done, state_like(method, config))
        batches.set_state(position["data"])
        seconds = position["seconds"]
    state = replicate(state)
    log = MetricsLog(workdir / "metrics.jsonl", done)
    started = time.monotonic() - seconds
    saved_at = time.monotonic()
    update = jax.jit(method.update, donate_argnums=1)

    def save(step: int) -> None:
        log.flush()
        elapsed = time.monotonic() - started
        checkpoints.save(step, state, {"data": batches.get_state(), "seconds": elapsed})

    with StopSignals() as stop, tqdm(total=steps, initial=done, desc="fit", unit="step") as bar:
        for step in range(done, steps):
            images = spread(next(batches).image)
            state, info = update(jax.random.fold_in(key, step), state, images)
            log.add(step + 1, info)
            bar.update()
            late = time.monotonic() - saved_at > config.fit.checkpoint_seconds
            if stop.asked or late or step + 1 == steps:
                save(step + 1)
                saved_at = time.monotonic()
            if stop.asked and step + 1 < steps:
                print(f"stopped at step {step + 1} of {steps}; the same command goes on from there")
                raise Stopped(128 + stop.asked)
    jax.block_until_ready(state)
    record = {
        "steps": steps,
        "images": len(examples),
        "seconds": time.monotonic() - started if done < steps else seconds,
        "last": log.last,
    }
    checkpoints.close()
    write_json(workdir / "fit.json", record)
    return jax.jit(method.finish)(key, state), record


def load(method: Method, config, workdir: Path) -> Params:
    """Returns the parameters of a finished fit. Errors: UserError where there is none."""
    if not (workdir / "fit.json").exists():
        raise UserError(
            f"{workdir}: holds no finished fit; run --mode=fit with this --workdir first"
        )
    checkpoints = Checkpoints(workdir / "checkpoints")
    state, _ = checkpoints.restore(checkpoints.latest(), state_like(method, config))
    checkpoints.close()
    return jax.jit(method.finish)(jax.random.key(config.seed), replicate(state))


class StopSignals:
    """Notes SIGTERM and SIGINT, so that the loop can end between two steps."""

    def __enter__(self):
        self.asked = 0
        self.before = {s: signal.signal(s, self.note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def note(self, number, _frame):
        self.asked = number

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class MetricsLog:
    """Lines of {"step": ..., name: value}; written a step late, so that no step is waited for."""

    def __init__(self, path: Path, done: int):
        self.path, self.pending, self.last = path, None, {}
        if path.exists():  # lines past the checkpoint belong to steps that will be done again
            lines = path.read_text().splitlines(keepends=True)
            write_text(path, "".join(lines[:done]))

    def add(self, step: int, info: dict) -> None:
        self.flush()
        self.pending = step, info

    def flush(self) -> None:
        if self.pending is None:
            return
        step, info = self.pending
        self.last = {name: float(value) for name, value in info.items()}
        wrong = [name for name, value in self.last.items() if not np.isfinite(value)]
        if wrong:
            raise UserError(
                f"step {step}: {wrong[0]} is {self.last[wrong[0]]}; "
                "lower the learning rate, or look for corrupt images"
            )
        append_line(self.path, {"step": step, **self.last})
        self.pending = None
