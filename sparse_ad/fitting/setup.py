"""What a fit needs to know: the detector, how images are read, the schedule, the seed."""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_ad.data.images import Images
from sparse_ad.devices import fit_batch
from sparse_ad.errors import require
from sparse_ad.fitting.augmentation import Augmentation
from sparse_ad.types import Key, Method, State


@dataclass(frozen=True)
class Fit:
    """The schedule of a fit. A network's learning rate is an option of its detector."""

    # images in a step, all where there are fewer; a multiple of the number of devices
    batch_size: int = 16
    epochs: float = 4.0  # over the training images; may be a fraction
    checkpoint_seconds: float = 60.0  # between two checkpoints; 0: after every step
    # decoded images, in GB, that stay on the devices; larger sets are streamed; 0: always streamed
    resident_gb: float = 2.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        finite = 0 < self.epochs < math.inf
        require(finite, "epochs", self.epochs, "must be positive and finite")
        remedy = "must be 0 (each step) or more"
        between = self.checkpoint_seconds
        require(between >= 0, "checkpoint_seconds", between, remedy)
        remedy = "must be 0 (keep no images) or more"
        require(self.resident_gb >= 0, "resident_gb", self.resident_gb, remedy)

    def steps(self, count: int) -> int:
        """Returns how many batches the epochs over `count` images take."""
        return math.ceil(self.epochs * count / self.batch_size)


def fit_keys(seed: int) -> tuple[Key, Key, Key]:
    """Returns the keys of the beginning, of all steps, and of the end of a fit."""
    first, steps, last = jax.random.split(jax.random.key(seed), 3)
    return first, steps, last


class Setup(NamedTuple):
    """A fit before it has seen any data."""

    method: Method
    images: Images  # how they are read: size, color, workers
    options: Fit
    seed: int

    def steps(self, count: int) -> int:
        """Returns how many batches the epochs over `count` images take."""
        return self.options.steps(count)

    def for_images(self, count: int) -> "Setup":
        """Returns the fit on `count` images, with batches no larger than that."""
        size = fit_batch(self.options.batch_size, count)
        return self._replace(options=replace(self.options, batch_size=size))

    def keys(self) -> tuple[Key, Key, Key]:
        """Returns the keys of the beginning, of all steps, and of the end of the fit."""
        return fit_keys(self.seed)

    def state_like(self) -> State:
        """Returns the shapes and types of the detector's state, without any data.

        Raises: UserError where images and detector do not go together.
        """
        shape = (self.options.batch_size, *self.images.shape)
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        maps = jax.eval_shape(self.method.features.extract, images)
        return jax.eval_shape(self.method.init, jax.random.key(0), maps)
