"""Sparse coding by exemplars: the dictionary is a choice of normal patches as they are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require, within
from sparse_ad.methods.lifts.maps import Shape, map_shapes
from sparse_ad.methods.lifts.patchwise import patchwise
from sparse_ad.methods.moments import (
    Whitening,
    add_vectors,
    apply_whitening,
    begin_moments,
    whiten,
)
from sparse_ad.normalisation import Normalise
from sparse_ad.patches import Patches, Pool
from sparse_ad.sparse.exemplars import (
    ExemplarCoder,
    Exemplars,
    add_exemplars,
    begin_exemplars,
    errors_of_one,
    exemplar_coder,
)
from sparse_ad.sparse.problems import Coder, require_fewer, unit
from sparse_ad.types import NO_DIAGNOSTICS, Diagnostics, Features, Key, Method, VectorModel

WEIGHTS = (1e-6, 1e6)  # of layers: beyond them float32 loses one layer beside another


@dataclass(frozen=True)
class ExemplarCoding:
    """Patches that a few exemplars, chosen from normal patches, cannot code.

        error of a patch x = min over z of ||y - zD||^2 / ||y||^p,   ||z||_0 <= coder.nonzeros
        y = (x - mean) W,   W^T C W = C (C + shrinkage tr(C)/d I)^-1    or, not whitened,   y = x

    With p = 0 errors are those of the code, and grow with the square of a patch's contrast; with
    p = 1 they are the geometric mean of this error and of the fraction of the patch that is not
    coded, and grow with its contrast.

    Rows of D are normal patches, chosen so that none is coded badly by all of them: see
    `sparse.exemplars`. mean and C are mean and covariance of the first batch of patches.

    Source: ours; for patches of 1x1 positions of a deep layer it is MLF-SC (Imamura et al.) with
    all channels of a position coded together, by exemplars in place of learned atoms.
    """

    patches: Patches = Patches(size=16, stride=4)
    normalise: Normalise = Normalise()
    coder: ExemplarCoder = ExemplarCoder()
    # exemplars that are kept at most: of every layer, or of each of several, as (2000, 6000)
    atoms: tuple[int, ...] = (6000,)
    weights: tuple[float, ...] = (1.0,)  # of each of several layers in the sum of their errors
    whiten: bool = False  # divide out the covariance of the first batch of patches
    # if whitened: added to the covariance, as a fraction of its mean variance
    shrinkage: float = 0.1
    relative: float = 0.0  # p: the power of a patch's length that its error is divided by, 0 to 2
    pool: Pool = Pool()

    def __post_init__(self):
        require(0 <= self.relative <= 2, "relative", self.relative, "give a power from 0 to 2")
        good = bool(self.atoms) and min(self.atoms) >= 1
        remedy = "give a number of 1 or more, (6000,), or one for each layer, (2000, 6000)"
        require(good, "atoms", self.atoms, remedy)
        low, high = WEIGHTS
        good = bool(self.weights) and all(low <= weight <= high for weight in self.weights)
        remedy = (
            f"give a number from {low:g} to {high:g}, (1.0,), or one for each layer, (1.0, 0.5)"
        )
        require(good, "weights", self.weights, remedy)
        finite = 0 < self.shrinkage < math.inf
        require(finite, "shrinkage", self.shrinkage, "must be positive and finite")
        with within("coder"):
            require_fewer(self.coder.nonzeros, min(self.atoms))

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`.

        Raises: FieldError for numbers of atoms that are not those of the layers; as `patchwise`.
        """
        layers = map_shapes(features, shape)
        remedy = f"give one number, or one for each of {', '.join(layers)}"
        for name in ("atoms", "weights"):
            given = getattr(self, name)
            require(len(given) in (1, len(layers)), name, given, remedy)
        atoms, weights = by_layer(self.atoms, layers), by_layer(self.weights, layers)
        models = {name: vector_model(self, count) for name, count in atoms.items()}
        options = self.patches, self.normalise, self.pool
        return patchwise(models, *options, features, shape, weights)


class WhitenedExemplars(NamedTuple):
    """Exemplars, and the linear map from vectors to the space in which they are coded."""

    whitening: Whitening
    exemplars: Exemplars


def by_layer(values: tuple[Any, ...], layers: Iterable[str]) -> dict[str, Any]:
    """Returns the value of each layer, given one for all, or one for each."""
    return dict(zip(layers, values if len(values) > 1 else repeat(*values), strict=False))


def vector_model(options: ExemplarCoding, atoms: int) -> VectorModel:
    """Returns the model of vectors, of so many exemplars at most."""
    coder = exemplar_coder(options.coder)
    return VectorModel(
        init=partial(init, options, atoms),
        update=partial(update, options.whiten),
        finish=finish,
        errors=partial(errors, coder, options.whiten, options.relative),
    )


def to_signals(
    whitened: bool, whitening: Whitening, vectors: Float[Array, "m d"]
) -> Float[Array, "m d"]:
    """Returns the vectors in the space in which they are coded."""
    return apply_whitening(whitening, vectors) if whitened else vectors


def init(
    options: ExemplarCoding, atoms: int, key: Key, vectors: Float[Array, "m d"]
) -> WhitenedExemplars:
    """Returns no exemplars yet, and the whitening of the first vectors."""
    length, dtype = vectors.shape[-1], vectors.dtype
    if options.whiten:
        moments = add_vectors(begin_moments(length, dtype), vectors)
        whitening = whiten(moments, options.shrinkage)
    else:
        whitening = Whitening(jnp.zeros((length,), dtype), jnp.eye(length, dtype=dtype))
    return WhitenedExemplars(whitening, begin_exemplars(atoms, length, dtype))


def update(
    whitened: bool, key: Key, state: WhitenedExemplars, vectors: Float[Array, "m d"]
) -> tuple[WhitenedExemplars, dict[str, Float[Array, ""]]]:
    """Returns the exemplars with those that a batch of vectors adds, and what to log."""
    signals = to_signals(whitened, state.whitening, vectors)
    exemplars = add_exemplars(state.exemplars, signals)
    info = {
        "error": jnp.mean(errors_of_one(exemplars.atoms, signals)),
        "atoms": exemplars.count.astype(jnp.float32),
        "radius": exemplars.radius,
    }
    return state._replace(exemplars=exemplars), info


def finish(key: Key, state: WhitenedExemplars) -> WhitenedExemplars:
    """Returns the exemplars at length 1."""
    atoms = unit(state.exemplars.atoms)
    return state._replace(exemplars=state.exemplars._replace(atoms=atoms))


def errors(
    coder: Coder,
    whitened: bool,
    power: float,
    params: WhitenedExemplars,
    vectors: Float[Array, "p d"],
) -> tuple[Float[Array, " p"], Diagnostics]:
    """Returns the squared residuals of the codes, divided by a power of the signals' lengths."""
    signals = to_signals(whitened, params.whitening, vectors)
    error = coder(params.exemplars.atoms, signals).error
    if power == 0:
        return error, NO_DIAGNOSTICS
    energy = jnp.sum(signals**2, axis=-1)  # the error of a signal of no length is 0
    return error / jnp.where(energy > 0.0, energy, 1.0) ** (power / 2), NO_DIAGNOSTICS
