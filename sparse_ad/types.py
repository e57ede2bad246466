"""The types that every part speaks.

One axis alphabet: n images, h w pixels, c channels, p patches, d values in a patch,
k atoms, m vectors of a bank or batch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Key = jax.Array
Params = Any  # a pytree of arrays: all that scoring needs; computed from the state
State = Any  # a pytree of arrays: all that fitting needs to go on, and what is checkpointed

Encoded = Path | bytes | np.ndarray
"""An image not yet decoded: a file, the bytes of one, or pixels (uint8, uint16 or 0..1 float)."""


class Example(NamedTuple):
    """One image of a data set, before it is decoded."""

    image: Encoded
    label: int  # 0 normal, 1 anomalous
    kind: str  # "good", or the name of the defect or class
    mask: Encoded | None  # non-zero = anomalous; None = not known (or nothing to mark)
    group: str  # lesion, driver, item: never on both sides of a split
    path: str  # the name shown to people, unique within its data set
    ignore: Encoded | None = None  # non-zero = left out of all that is measured; None = nothing is


class LeftOut(NamedTuple):
    """Files of a data set that are not used, for one reason."""

    reason: str
    count: int
    example: str  # the first of them


class Loaded(NamedTuple):
    """What a source gives: its own split, and the files that it leaves out."""

    train: tuple[Example, ...]  # normal only
    test: tuple[Example, ...]
    left_out: tuple[LeftOut, ...] = ()


class Splits(NamedTuple):
    """A data set, split: fit on train, set the threshold on calibration, measure on test."""

    train: tuple[Example, ...]  # normal only
    calibration: tuple[Example, ...]  # normal only, held out from train
    test: tuple[Example, ...]
    left_out: tuple[LeftOut, ...] = ()  # files of the data set that are not used
    # test images that are copies of training or calibration images; None: not known
    copies: int | None = 0
    stretched: int = 0  # test images that the resize stretches by more than 1.25
    stretched_training: int = 0  # likewise, of at most 1000 training images drawn by seed


class Batch(NamedTuple):
    """Decoded images, padded to a fixed batch size."""

    image: Float[np.ndarray, "n h w c"]  # 0..1
    label: Int[np.ndarray, " n"]
    mask: Bool[np.ndarray, "n h w"]  # all False where no mask is known
    valid: Bool[np.ndarray, " n"]  # False: padding, or an image that could not be read
    index: Int[np.ndarray, " n"]  # position in the examples; -1 for padding
    problem: tuple[str, ...]  # why an image could not be read; "" where all is well
    ignored: Bool[np.ndarray, "n h w"]  # pixels that were filled in from others; see `data.ignored`


class Diagnostics(NamedTuple):
    """What a detector reports about its own work on an image; not used to decide anything."""

    mean: dict[str, Float[Array, "*n"]]  # averaged over tiles, then over images
    largest: dict[str, Float[Array, "*n"]]  # the largest over tiles, then over images


NO_DIAGNOSTICS = Diagnostics({}, {})


class Scores(NamedTuple):
    """The result of a detector for one image, or for n images; higher = more anomalous."""

    image: Float[Array, "*n"]
    map: Float[Array, "*n h w"]  # at the resolution of the images scored
    info: Diagnostics = NO_DIAGNOSTICS


Maps = Mapping[str, Float[Array, "... _ _ _"]]
"""What a detector looks at, by layer: {"pixels": images}, or the maps of a frozen network.

Of a batch [n h w c], or of one image [h w c]. Layers may differ in size.
"""

Extracted = Mapping[str, Float[Array | np.ndarray, "... _ _ _"]]
"""Maps as features give them: in the memory of the devices, or of the host."""


Errors = Mapping[str, Float[Array, "... _ _"]]
"""The errors of one image on the grid of each layer: [i j], or [t i j] of t tiles.

Detectors of one map have one layer. Layers may differ in size.
"""

Counted = Mapping[str, Bool[Array, "... _ _"]]
"""Which errors count, by layer: those of positions that lie on ignored pixels do not."""

HostErrors = Mapping[str, Float[np.ndarray, "... _ _"]]
"""Errors in the memory of the host."""


class Features(NamedTuple):
    """What is computed of images before a detector sees them. Nothing of it is fitted."""

    # compiled; holds the frozen weights
    extract: Callable[[Float[Array | np.ndarray, "n h w c"]], Extracted]
    identity: str  # of weights and preprocessing: equal text, equal maps
    border: int = 0  # positions that were cut from each side of the maps
    layers: tuple[str, ...] = ()  # names of the maps, in the order in which they were asked for
    raw: bool = False  # the pixels themselves: free, may be recomputed at every training step


PIXELS = Features(lambda images: {"pixels": images}, "pixels", raw=True)


class Explanation(NamedTuple):
    """What one layer contributes to the score of an image."""

    errors: Float[Array, "*n p"]  # of patches, summed over channels
    map: Float[Array, "*n h w"]  # its part of the anomaly map
    channels: Float[Array, "*n c"]  # what each channel adds: sum of its largest patch errors


class NormalMaps(NamedTuple):
    """Mean and std of the errors of normal images, drawn as anomaly maps are."""

    mean: Float[Array | np.ndarray, "h w"]
    std: Float[Array | np.ndarray, "h w"]


class Views(NamedTuple):
    """What there is to look at, where a detector has it. `maps` are those of one image."""

    reconstruct: Callable[[Params, Maps], Float[Array, "h w c"]] | None = None
    atoms: Callable[[Params], Float[Array, "k h w c"]] | None = None
    explain: Callable[[Params, Maps], dict[str, Explanation]] | None = None
    latent: Callable[[Params, Maps], Float[Array, " l"]] | None = None
    normal: Callable[[Params], NormalMaps] | None = None  # of a calibrated detector


class ErrorGrid(NamedTuple):
    """How a detector whose errors lie on a grid, one a layer, makes scores of them.

    `lifts.grid.one_map` makes the grid of a detector that has one map of errors.
    """

    errors: Callable[[Params, Maps], tuple[Errors, Diagnostics]]  # of one image
    pool: Callable[..., Float[Array, ""]]  # all errors, or (errors, counted) -> image score
    to_map: Callable[[Errors], Float[Array, "h w"]]  # -> anomaly map; linear


class Method(NamedTuple):
    """A detector: pure functions, bound to their options, that hold nothing that was fitted.

    `init` and `update` take a batch of maps [n ...]; `score` and the views take the maps of ONE
    image, but for `atoms` and `normal`, which take params alone. The caller loops over images,
    `together` at a time: see `batching.for_each`.
    """

    init: Callable[[Key, Maps], State]
    update: Callable[[Key, State, Maps], tuple[State, dict[str, Array]]]
    finish: Callable[[Key, State], Params]
    score: Callable[[Params, Maps], Scores]
    features: Features = PIXELS
    together: int = 1  # images scored at a time, as one vmap: memory against speed
    views: Views = Views()
    grid: ErrorGrid | None = None  # None: the errors do not lie on grids


class VectorModel(NamedTuple):
    """A model of vectors that knows nothing of images; `patchwise` lifts it to a Method.

    Functions take many vectors at a time, so that a model may order and chunk them, but the result
    of a vector does not depend on the others.
    """

    init: Callable[[Key, Float[Array, "m d"]], State]
    update: Callable[[Key, State, Float[Array, "m d"]], tuple[State, dict[str, Array]]]
    finish: Callable[[Key, State], Params]
    errors: Callable[[Params, Float[Array, "p d"]], tuple[Float[Array, " p"], Diagnostics]]
    reconstruct: Callable[[Params, Float[Array, "p d"]], Float[Array, "p d"]] | None = None
    atoms: Callable[[Params], Float[Array, "k d"]] | None = None
