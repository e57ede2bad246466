"""Sparse coding of patches: the error of a patch is what a sparse code leaves of it.

Source: Imamura et al., "MLF-SC: Incorporating multi-layer features to sparse coding for anomaly
detection", 2021, section 3.1.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparse_ad.errors import require
from sparse_ad.methods.lifts.maps import Shape
from sparse_ad.methods.lifts.patchwise import patchwise
from sparse_ad.normalisation import Normalise
from sparse_ad.patches import Patches, Pool
from sparse_ad.sparse.coder import LassoCoder, lasso_coder
from sparse_ad.sparse.dictionary import Statistics, begin_dictionary, learn
from sparse_ad.sparse.problems import Coder, product
from sparse_ad.types import Diagnostics, Features, Key, Method, VectorModel


@dataclass(frozen=True)
class SparseCoding:
    """Patches that a dictionary, learned from normal patches, cannot code sparsely.

        min over D, z:  sum over patches x of 1/2 ||x - zD||^2 + penalty ||z||_1,   ||d_j|| = 1
        error of a patch = ||x - zD||^2 at its sparse code z

    Source: Imamura et al., section 3.1, Eqs. (1) and (2); `coder.penalty` is their alpha, in the
    scaling of Eq. (1).
    Differs: the dictionary is learned online, one minibatch of patches after the other; see
    `sparse.dictionary`.
    """

    patches: Patches = Patches(size=16, stride=4)
    normalise: Normalise = Normalise()
    coder: LassoCoder = LassoCoder()
    atoms: int = 200  # of the dictionary
    minibatch: int = 512  # patches between two updates of the dictionary
    pool: Pool = Pool()

    def __post_init__(self):
        require(self.atoms >= 1, "atoms", self.atoms, "must be at least 1")
        require(self.minibatch >= 1, "minibatch", self.minibatch, "must be at least 1")

    def build(self, features: Features, shape: Shape) -> Method:
        """Returns the detector of images of `shape`. Raises: as `patchwise`."""
        model = vector_model(self)
        return patchwise(model, self.patches, self.normalise, self.pool, features, shape)


class Dictionary(NamedTuple):
    """What scoring needs."""

    atoms: Float[Array, "k d"]


def vector_model(options: SparseCoding) -> VectorModel:
    """Returns the model of vectors: one dictionary."""
    coder = lasso_coder(options.coder)
    return VectorModel(
        init=partial(init, options.atoms),
        update=partial(update, coder, options.minibatch),
        finish=finish,
        errors=partial(errors, coder),
        reconstruct=partial(reconstruct, coder),
        atoms=atoms,
    )


def own_key(key: Key) -> Key:
    """Returns the key that draws for a dictionary: that with which results/ were recorded."""
    return jax.random.split(key, 1)[0]


def init(atoms: int, key: Key, vectors: Float[Array, "m d"]) -> Statistics:
    """Returns a dictionary of vectors, and empty statistics."""
    return begin_dictionary(own_key(key), vectors, atoms)


def update(
    coder: Coder, minibatch: int, key: Key, state: Statistics, vectors: Float[Array, "m d"]
) -> tuple[Statistics, dict[str, Float[Array, ""]]]:
    """Returns the dictionary after all minibatches of vectors, and what to log: its means."""
    count = max(1, vectors.shape[0] // minibatch)
    batches = vectors[: vectors.shape[0] // count * count]
    batches = batches.reshape(count, -1, *vectors.shape[1:])
    keys = jax.random.split(key, count)
    state, info = jax.lax.scan(partial(take_minibatch, coder), state, (keys, batches))
    return state, jax.tree.map(jnp.mean, info)


def take_minibatch(
    coder: Coder, state: Statistics, batch: tuple[Key, Float[Array, "m d"]]
) -> tuple[Statistics, dict[str, Float[Array, ""]]]:
    """Returns the dictionary after one minibatch, and what to log."""
    key, vectors = batch
    return learn(own_key(key), state, vectors, coder)


def finish(key: Key, state: Statistics) -> Dictionary:
    """Returns the dictionary."""
    return Dictionary(state.dictionary)


def errors(
    coder: Coder, params: Dictionary, vectors: Float[Array, "p d"]
) -> tuple[Float[Array, " p"], Diagnostics]:
    """Returns the squared residuals, and how well the codes are known to be solved."""
    solution = coder(params.atoms, vectors)
    mean = {
        "converged": jnp.mean(solution.converged.astype(vectors.dtype)),
        "nonzeros": jnp.mean(jnp.sum(solution.code != 0.0, axis=-1).astype(vectors.dtype)),
        "steps": jnp.mean(solution.steps.astype(vectors.dtype)),
    }
    return solution.error, Diagnostics(mean, {"gap": jnp.max(solution.gap)})


def reconstruct(
    coder: Coder, params: Dictionary, vectors: Float[Array, "p d"]
) -> Float[Array, "p d"]:
    """Returns zD of every vector."""
    return product(coder(params.atoms, vectors).code, params.atoms)


def atoms(params: Dictionary) -> Float[Array, "k d"]:
    """Returns the atoms."""
    return params.atoms
