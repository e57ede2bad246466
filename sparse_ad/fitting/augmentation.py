"""Augmentation: training images are flipped, rotated and changed in brightness at random."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_ad.errors import require, require_choice
from sparse_ad.types import Key

FLIPS = ("none", "horizontal", "vertical", "both")
STREAM = 0x617567  # "aug": folded into the key of a step, from which detectors draw, too
FACTORS = 1025  # of brightness: a table, as a compiler may round the computation of one otherwise


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each training image in each step; images to be scored stay as they are.

    For defects that stay defects, and normal images that stay normal, under what is switched on.
    """

    # none | horizontal: left and right are swapped, or not | vertical: top and bottom | both: each
    flip: str = "none"
    rotate: bool = False  # by 0, 90, 180 or 270 degrees; images must be square
    # b: values are multiplied by a factor from 1 - b to 1 + b, then clipped to 0..1; 0 <= b < 1;
    # maps of a network then differ in each epoch: features.cache_gb stores them in vain
    brightness: float = 0.0

    def __post_init__(self):
        require_choice("flip", self.flip, FLIPS)
        remedy = "must be 0 or more, and less than 1"
        require(0 <= self.brightness < 1, "brightness", self.brightness, remedy)

    @property
    def on(self) -> bool:
        """Whether any image changes."""
        return self != Augmentation()

    def check(self, size: tuple[int, int]) -> None:
        """Raises FieldError unless images of this height and width can be augmented."""
        height, width = size
        remedy = f"images of {height} x {width} are not square: give False, or another data.size"
        require(not self.rotate or height == width, "rotate", self.rotate, remedy)


def augment(
    options: Augmentation, key: Key, images: Float[Array, "n h w c"]
) -> Float[Array, "n h w c"]:
    """Returns images of 0..1 augmented; `key`: that of the step, as the detector gets it.

    What an image becomes depends on the key, its position in the batch and itself, not on the other
    images. Raises: FieldError for a rotation of images that are not square.
    """
    if not options.on:
        return images
    options.check((images.shape[1], images.shape[2]))
    key = jax.random.fold_in(key, STREAM)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
    return jax.vmap(partial(augment_one, options))(keys, images)


def augment_one(
    options: Augmentation, key: Key, image: Float[Array, "h w c"]
) -> Float[Array, "h w c"]:
    """Returns one image of 0..1, flipped, rotated and made brighter or darker by the key."""
    horizontal_key, vertical_key, rotation_key, brightness_key = jax.random.split(key, 4)
    if options.flip in ("horizontal", "both"):
        image = jnp.where(jax.random.bernoulli(horizontal_key), image[:, ::-1], image)
    if options.flip in ("vertical", "both"):
        image = jnp.where(jax.random.bernoulli(vertical_key), image[::-1], image)
    if options.rotate:
        turns = [partial(jnp.rot90, k=quarters) for quarters in range(4)]
        image = jax.lax.switch(jax.random.randint(rotation_key, (), 0, 4), turns, image)
    if options.brightness:
        factors = 1 + np.linspace(-options.brightness, options.brightness, FACTORS)
        index = jax.random.randint(brightness_key, (), 0, FACTORS)
        factor = jnp.asarray(factors, image.dtype)[index]
        image = jnp.clip(image * factor, 0, 1)
    return image
