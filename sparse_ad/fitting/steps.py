"""The steps of a fit, on images that stay on the devices or on a stream of batches.

Either way step t (from 0) sees batch t of `training_order`, and draws from fold_in(key, t).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from sparse_ad.data.pipeline import training_batches, training_order
from sparse_ad.data.resident import hold_images, to_float
from sparse_ad.devices import everywhere, replicate, room, share, spread
from sparse_ad.fitting.setup import Setup
from sparse_ad.types import Batch, Example, Key, Maps, Method, State

MAX_STEPS = 1024  # of one call
CALL_SECONDS = 1.0  # how long a call should take: signals, checkpoints and the log wait so long

Info = Mapping[str, Array | np.ndarray]


class Steps(NamedTuple):
    """How a fit proceeds."""

    first: Callable[[], Maps]  # the first batch, which the state is initialised with
    # (state, steps done, max steps) -> (state, info, steps taken). The state passed in is donated;
    # the call is asynchronous. info has one entry per step; entries beyond the steps taken are
    # padding.
    advance: Callable[[State, int, int], tuple[State, Info, int]]


def make_steps(setup: Setup, examples: Sequence[Example], key: Key, done: int) -> Steps:
    """Returns the steps of a fit after `done` steps.

    Images stay on the devices where the detector looks at pixels, and where they take, decoded, no
    more than `resident_gb`, nor half of a device's memory. Raises: UserError for an unreadable
    image.
    """
    if setup.method.features.raw and setup.options.resident_gb:
        limit = min(setup.options.resident_gb * 1e9, room() / 2)
        images = hold_images(examples, setup.images, limit)
        if images is not None:
            return resident_steps(setup.method, images, setup.options.batch_size, setup.seed, key)
    return streamed_steps(setup, examples, key, done)


def streamed_steps(setup: Setup, examples: Sequence[Example], key: Key, done: int) -> Steps:
    """Returns steps on batches that are decoded in the background: one a call, from `done` on."""
    size = setup.options.batch_size
    batches = training_batches(examples, setup.images, size, setup.seed, done)
    # Every device holds the whole state after each step, as after a resume: the same program.
    update = jax.jit(setup.method.update, donate_argnums=1, out_shardings=everywhere())
    extract = setup.method.features.extract
    return Steps(
        partial(_first_of_stream, batches, extract),
        partial(_advance_stream, batches, extract, update, key),
    )


def _first_of_stream(batches: grain.DatasetIterator[Batch], extract: Callable) -> Maps:
    start = batches.get_state()
    maps = spread(extract(next(batches).image))
    batches.set_state(start)
    return maps


def _advance_stream(batches, extract, update, key: Key, state: State, done: int, most: int):
    maps = spread(extract(next(batches).image))
    state, info = update(jax.random.fold_in(key, done), state, maps)
    return state, info, 1


def resident_steps(
    method: Method,
    images: Shaped[np.ndarray, "n h w c"],
    batch_size: int,
    seed: int,
    key: Key,
) -> Steps:
    """Returns steps on images that every device holds: as many a call as are asked for.

    However many these are, they run as one compiled loop, with the same bits.
    """
    order = training_order(len(images), seed)
    held = replicate(images)
    take = jax.jit(partial(take_steps, method), donate_argnums=0, out_shardings=everywhere())
    return Steps(
        partial(_first_resident, method, held, order, batch_size),
        partial(_advance_resident, take, held, order, batch_size, key),
    )


def _first_resident(method: Method, images, order, batch_size: int) -> Maps:
    indices = batch_indices(order, 0, 1, batch_size)[0]
    return jax.jit(partial(batch_of, method))(images, indices)


def _advance_resident(take, images, order, batch_size, key, state: State, done: int, most: int):
    count = min(most, MAX_STEPS)
    indices = np.zeros((MAX_STEPS, batch_size), np.int32)
    indices[:count] = batch_indices(order, done, count, batch_size)
    state, info = take(state, images, indices, key, done, count)
    return state, info, count


def batch_indices(order: Any, step: int, count: int, size: int) -> Int[np.ndarray, "count n"]:
    """Returns which images the batches of `count` steps consist of."""
    positions = range(step * size, (step + count) * size)
    return np.array([order[at] for at in positions], np.int32).reshape(count, size)


def batch_of(method: Method, images: Shaped[Array, "m h w c"], indices: Int[Array, " n"]) -> Maps:
    """Returns what the detector sees of a batch of the images, split over the devices."""
    batch = images.at[indices].get(mode="promise_in_bounds")
    maps = method.features.extract(share(to_float(batch)))
    return jax.tree.map(jnp.asarray, maps)  # on the devices already


def take_steps(
    method: Method,
    state: State,
    images: Shaped[Array, "m h w c"],
    indices: Int[Array, "t n"],
    key: Key,
    done: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[State, dict[str, Float[Array, " t"]]]:
    """Takes `count` steps after `done`; returns the state, and info, padded by 0.

    The compiler does not know `count`: with a known length it might unroll and fuse the loop, and
    round differently.
    """

    def step(state: State, turn: Int[Array, ""]) -> tuple[State, Info]:
        batch = batch_of(method, images, indices[turn])
        return method.update(jax.random.fold_in(key, done + turn), state, batch)

    def body(turn, carry):
        state, info = carry
        state, metrics = step(state, turn)
        info = {name: info[name].at[turn].set(value) for name, value in metrics.items()}
        return lax.with_sharding_constraint(state, everywhere()), info

    like = jax.eval_shape(step, state, jnp.zeros((), jnp.int32))[1]
    info = {name: jnp.zeros(len(indices), value.dtype) for name, value in like.items()}
    return lax.fori_loop(0, count, body, (state, info))


class Pace:
    """Chooses how many steps a call takes, so that it lasts about `seconds`."""

    def __init__(self, seconds: float):
        self.seconds, self.steps = seconds, 1
        self.since: float | None = None

    def note(self, finished: int) -> None:
        """Notes that `finished` steps have ended since the last note."""
        now = time.monotonic()
        if finished and self.since is not None:
            fitting = finished * self.seconds / max(now - self.since, 1e-9)
            self.steps = int(min(max(fitting, 1), 2 * self.steps, MAX_STEPS))
        self.since = now
