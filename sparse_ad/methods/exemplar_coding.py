"""Sparse coding by exemplars: the dictionary is a choice of normal patches as they are."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require, within
from sparse_ad.methods.lifts.maps import Shape
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
    atoms: int = 6000  # exemplars that are kept at most
    whiten: bool = False  # divide out the covariance of the first batch of patches
    # if whitened: added to the covariance, as a fraction of its mean variance
    shrinkage: float = 0.1
    relative: float = 0.0  # p: the power of a patch's length that its error is divided by, 0 to 2
    pool: Pool = Pool()

    def __post_init__(self):
        require(0 <= self.relative <= 2, "relative", self.relative, "give a power from 0 to 2")
        require(self.atoms >= 1, "atoms", self.atoms, "must be at least 1")
        require(self.shrinkage > 0, "shrinkage", self.shrinkage, "must be positive")
        with within("coder"):
            require_fewer(self.coder.nonzeros, self.atoms)

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`. Raises: as `patchwise`."""
        model = vector_model(self)
        return patchwise(model, self.patches, self.normalise, self.pool, features, shape)


class WhitenedExemplars(NamedTuple):
    """Exemplars, and the linear map from vectors to the space in which they are coded."""

    whitening: Whitening
    exemplars: Exemplars


def vector_model(options: ExemplarCoding) -> VectorModel:
    """Returns the model of vectors."""
    coder = exemplar_coder(options.coder)
    return VectorModel(
        init=partial(init, options),
        update=partial(update, options.whiten),
        finish=finish,
        errors=partial(errors, coder, options.whiten, options.relative),
    )


def to_signals(
    whitened: bool, whitening: Whitening, vectors: Float[Array, "m d"]
) -> Float[Array, "m d"]:
    """Returns the vectors in the space in which they are coded."""
    return apply_whitening(whitening, vectors) if whitened else vectors


def init(options: ExemplarCoding, key: Key, vectors: Float[Array, "m d"]) -> WhitenedExemplars:
    """Returns no exemplars yet, and the whitening of the first vectors."""
    length, dtype = vectors.shape[-1], vectors.dtype
    if options.whiten:
        moments = add_vectors(begin_moments(length, dtype), vectors)
        whitening = whiten(moments, options.shrinkage)
    else:
        whitening = Whitening(jnp.zeros((length,), dtype), jnp.eye(length, dtype=dtype))
    return WhitenedExemplars(whitening, begin_exemplars(options.atoms, length, dtype))


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
