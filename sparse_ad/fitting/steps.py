"""The steps of a fit, on images that the devices hold or on a stream of batches.

Either way step t (from 0) sees batch t of `training_order`, and draws from fold_in(key, t).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from sparse_ad.data.pipeline import training_batches, training_order
from sparse_ad.data.resident import Held, hold_images, to_float
from sparse_ad.devices import everywhere, replicate, room, share, spread
from sparse_ad.types import Example, Key, Maps, Method, State

TURNS = 1024  # steps of a call at most
CALL_SECONDS = 1.0  # that calls are to last: signals, checkpoints and the log wait so long

Info = dict[str, Float[Array, "..."]]


class Steps(NamedTuple):
    """How a fit goes forward."""

    first: Callable[[], Maps]  # what the state begins with: the first batch
    # (state, steps done, steps at most) -> state, info, steps taken. The old state is gone, and
    # nothing is waited for. Info is of one step, or of several, [t] or more: the rest says nothing.
    advance: Callable[[State, int, int], tuple[State, Info, int]]


def steps_of(method: Method, config, examples: Sequence[Example], key: Key, done: int) -> Steps:
    """Returns the steps of a fit that has done so many.

    Images stay on the devices where the detector looks at pixels, and where decoded they take no
    more than fit.resident_gb, nor half of a device's memory.
    Errors: UserError for an unreadable image.
    """
    if method.features.cheap and config.fit.resident_gb:
        limit = min(config.fit.resident_gb * 1e9, room() / 2)
        held = hold_images(examples, config.data, limit)
        if held is not None:
            return resident_steps(method, config, held, key)
    return streamed_steps(method, config, examples, key, done)


def streamed_steps(method, config, examples: Sequence[Example], key: Key, done: int) -> Steps:
    """Returns steps on batches that are decoded meanwhile: one a call, from step `done` on."""
    batches = training_batches(examples, config.data, config.fit.batch_size, config.seed, done)
    # Every device holds the whole state after each step, as after a resume: the same program.
    update = jax.jit(method.update, donate_argnums=1, out_shardings=everywhere())

    def first() -> Maps:
        fresh = batches.get_state()
        maps = spread(method.features.extract(next(batches).image))
        batches.set_state(fresh)
        return maps

    def advance(state: State, done: int, most: int):
        maps = spread(method.features.extract(next(batches).image))
        state, info = update(jax.random.fold_in(key, done), state, maps)
        return state, info, 1

    return Steps(first, advance)


def resident_steps(method: Method, config, held: np.ndarray, key: Key) -> Steps:
    """Returns steps on images that every device holds: as many a call as are asked for.

    However many these are, it is one compiled loop, and the same bits.
    """
    order = training_order(len(held), config.seed)
    size = config.fit.batch_size
    images = replicate(held)
    look = jax.jit(partial(batch_of, method))
    take = jax.jit(partial(take_steps, method), donate_argnums=0, out_shardings=everywhere())

    def first() -> Maps:
        return look(images, places_of(order, 0, 1, size)[0])

    def advance(state: State, done: int, most: int):
        taken = min(most, TURNS)
        places = np.zeros((TURNS, size), np.int32)
        places[:taken] = places_of(order, done, taken, size)
        state, info = take(state, images, places, key, done, taken)
        return state, info, taken

    return Steps(first, advance)


def places_of(order, step: int, count: int, size: int) -> Int[np.ndarray, "count n"]:
    """Returns which images the batches of `count` steps consist of."""
    places = range(step * size, (step + count) * size)
    return np.array([order[place] for place in places], np.int32).reshape(count, size)


def batch_of(method: Method, images: Held, places: Int[Array, " n"]) -> Maps:
    """Returns what the detector sees of some of the images, each device its share of them."""
    some = images.at[places].get(mode="promise_in_bounds")
    return method.features.extract(share(to_float(some)))


def take_steps(
    method: Method,
    state: State,
    images: Held,
    places: Int[Array, "t n"],
    key: Key,
    done: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[State, dict[str, Float[Array, " t"]]]:
    """Takes `count` steps after `done`; returns the state, and info, whose rest is 0.

    That `count` is not known to the compiler keeps the loop a loop: of a known length it might be
    unrolled, fused and rounded otherwise.
    """

    def step(state: State, turn: Int[Array, ""]) -> tuple[State, Info]:
        batch = batch_of(method, images, places[turn])
        return method.update(jax.random.fold_in(key, done + turn), state, batch)

    def turn_once(turn, loop):
        state, info = loop
        state, found = step(state, turn)
        info = {name: info[name].at[turn].set(value) for name, value in found.items()}
        return lax.with_sharding_constraint(state, everywhere()), info

    like = jax.eval_shape(step, state, 0)[1]
    info = {name: jnp.zeros(len(places), value.dtype) for name, value in like.items()}
    return lax.fori_loop(0, count, turn_once, (state, info))


class Pace:
    """Chooses how many steps a call takes, so that it lasts about `seconds`."""

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.since = seconds, 1, None

    def note(self, finished: int) -> None:
        """Takes note that so many steps have come to their end since the last note."""
        now = time.monotonic()
        if finished and self.since is not None:
            fitting = finished * self.seconds / max(now - self.since, 1e-9)
            self.steps = int(min(max(fitting, 1), 2 * self.steps, TURNS))
        self.since = now
