"""The steps of a fit, on images that stay on the devices or on a stream of batches.

Either way step t (from 0) sees batch t of `training_order`, augmented, and draws from
fold_in(key, t).
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
from sparse_ad.fitting.augmentation import Augmentation, augment
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
    options = setup.options
    if setup.method.features.raw and options.resident_gb:
        limit = min(options.resident_gb * 1e9, room() / 2)
        images = hold_images(examples, setup.images, limit)
        if images is not None:
            schedule = options.batch_size, setup.seed, key, options.augmentation
            return resident_steps(setup.method, images, *schedule)
    return streamed_steps(setup, examples, key, done)


def streamed_steps(setup: Setup, examples: Sequence[Example], key: Key, done: int) -> Steps:
    """Returns steps on batches that are decoded in the background: one a call, from `done` on."""
    size = setup.options.batch_size
    batches = training_batches(examples, setup.images, size, setup.seed, done)
    # Every device holds the whole state after each step, as after a resume: the same program.
    update = jax.jit(setup.method.update, donate_argnums=1, out_shardings=everywhere())
    extract = partial(maps_of, setup.method, compile_augment(setup.options.augmentation))
    return Steps(
        partial(_first_of_stream, batches, extract, key),
        partial(_advance_stream, batches, extract, update, key),
    )


def compile_augment(options: Augmentation) -> Callable | None:
    """Returns the compiled `augment(key, images)`; None where no image changes."""
    return jax.jit(partial(augment, options)) if options.on else None


def maps_of(
    method: Method, augmented: Callable | None, key: Key, images: Float[np.ndarray, "n h w c"]
) -> Maps:
    """Returns what the detector sees of a decoded batch, augmented by the key of its step."""
    seen = images if augmented is None else augmented(key, spread(images))
    return spread(method.features.extract(seen))


def _first_of_stream(batches: grain.DatasetIterator[Batch], extract: Callable, key: Key) -> Maps:
    start = batches.get_state()
    maps = extract(jax.random.fold_in(key, 0), next(batches).image)
    batches.set_state(start)
    return maps


def _advance_stream(batches, extract, update, key: Key, state: State, done: int, most: int):
    step_key = jax.random.fold_in(key, done)
    state, info = update(step_key, state, extract(step_key, next(batches).image))
    return state, info, 1


def resident_steps(
    method: Method,
    images: Shaped[np.ndarray, "n h w c"],
    batch_size: int,
    seed: int,
    key: Key,
    augmentation: Augmentation = Augmentation(),
) -> Steps:
    """Returns steps on images that every device holds: as many a call as are asked for.

    However many these are, they run as one compiled loop, with the same bits.
    """
    order = training_order(len(images), seed)
    held = replicate(images)
    extract = partial(batch_of, method, augmentation)
    advance = jax.jit(
        partial(take_steps, method, extract), donate_argnums=0, out_shardings=everywhere()
    )
    return Steps(
        partial(_first_resident, extract, held, order, batch_size, key),
        partial(_advance_resident, advance, held, order, batch_size, key),
    )


def _first_resident(extract: Callable, images, order, batch_size: int, key: Key) -> Maps:
    indices = batch_indices(order, 0, 1, batch_size)[0]
    return jax.jit(extract)(jax.random.fold_in(key, 0), images, indices)


def _advance_resident(advance, images, order, batch_size, key, state: State, done: int, most: int):
    count = min(most, MAX_STEPS)
    indices = np.zeros((MAX_STEPS, batch_size), np.int32)
    indices[:count] = batch_indices(order, done, count, batch_size)
    state, info = advance(state, images, indices, key, done, count)
    return state, info, count


def batch_indices(order: Any, step: int, count: int, size: int) -> Int[np.ndarray, "count n"]:
    """Returns which images the batches of `count` steps consist of."""
    positions = range(step * size, (step + count) * size)
    return np.array([order[at] for at in positions], np.int32).reshape(count, size)


def batch_of(
    method: Method,
    augmentation: Augmentation,
    key: Key,
    images: Shaped[Array, "m h w c"],
    indices: Int[Array, " n"],
) -> Maps:
    """Returns what the detector sees of a batch of the images, split over the devices.

    `key`: of the step.
    """
    batch = images.at[indices].get(mode="promise_in_bounds")
    maps = method.features.extract(augment(augmentation, key, share(to_float(batch))))
    return jax.tree.map(jnp.asarray, maps)  # on the devices already


def take_steps(
    method: Method,
    extract: Callable,
    state: State,
    images: Shaped[Array, "m h w c"],
    indices: Int[Array, "t n"],
    key: Key,
    done: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[State, dict[str, Float[Array, " t"]]]:
    """Takes `count` steps after `done`; returns the state, and info, padded by 0.

    `extract`: `batch_of`, bound to the detector and to what augments its images.
    The compiler does not know `count`: with a known length it might unroll and fuse the loop, and
    round differently.
    """

    def step(state: State, turn: Int[Array, ""]) -> tuple[State, Info]:
        step_key = jax.random.fold_in(key, done + turn)
        return method.update(step_key, state, extract(step_key, images, indices[turn]))

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
