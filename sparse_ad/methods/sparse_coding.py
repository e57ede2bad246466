"""Sparse coding of patches: the error of a patch is what a sparse code leaves of it.

Source: Imamura et al., "MLF-SC: Incorporating multi-layer features to sparse coding for anomaly
detection", 2021, section 3.1.
"""

from collections.abc import Callable
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
from sparse_ad.sparse.problems import Coder, Solution, product
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


class Dictionaries(NamedTuple):
    """What scoring needs."""

    dictionary: Float[Array, "g k d"]


def vector_model(options: SparseCoding) -> VectorModel:
    """Returns the model of vectors: one dictionary for each group."""
    coder = lasso_coder(options.coder)
    return VectorModel(
        init=partial(init, options.atoms),
        update=partial(update, coder, options.minibatch),
        finish=finish,
        errors=partial(errors, coder),
        reconstruct=partial(reconstruct, coder),
        atoms=atoms,
    )


def by_group(function: Callable, in_axes: tuple[int, ...], out_axes: int) -> Callable:
    """Returns the function mapped over groups, which lie along the given axes.

    One group is computed without a group axis: XLA's CPU code for products and gathers with a
    batch axis of one is several times slower than without.
    """
    return partial(map_groups, function, in_axes, out_axes)


def map_groups(function: Callable, in_axes: tuple[int, ...], out_axes: int, *trees):
    """Returns function(*trees) of every group; see `by_group`."""
    if jax.tree.leaves(trees[0])[0].shape[in_axes[0]] > 1:
        return jax.vmap(function, in_axes, out_axes)(*trees)
    only = [
        jax.tree.map(lambda leaf, axis=axis: leaf[(slice(None),) * axis + (0,)], tree)
        for axis, tree in zip(in_axes, trees, strict=True)
    ]
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, out_axes), function(*only))


def init(atoms: int, key: Key, vectors: Float[Array, "m g d"]) -> Statistics:
    """Returns dictionaries of vectors, and empty statistics."""
    keys = jax.random.split(key, vectors.shape[1])
    return by_group(partial(begin_dictionary, atoms=atoms), (0, 1), 0)(keys, vectors)


def update(
    coder: Coder, minibatch: int, key: Key, state: Statistics, vectors: Float[Array, "m g d"]
) -> tuple[Statistics, dict[str, Float[Array, ""]]]:
    """Returns the dictionaries after all minibatches of vectors, and what to log: its means."""
    count = max(1, vectors.shape[0] // minibatch)
    batches = vectors[: vectors.shape[0] // count * count]
    batches = batches.reshape(count, -1, *vectors.shape[1:])
    keys = jax.random.split(key, count)
    state, info = jax.lax.scan(partial(take_minibatch, coder), state, (keys, batches))
    return state, jax.tree.map(jnp.mean, info)


def take_minibatch(
    coder: Coder, state: Statistics, batch: tuple[Key, Float[Array, "m g d"]]
) -> tuple[Statistics, dict[str, Float[Array, " g"]]]:
    """Returns the dictionaries after one minibatch, and what to log, by group."""
    key, vectors = batch
    keys = jax.random.split(key, vectors.shape[1])
    return by_group(partial(learn, coder=coder), (0, 0, 1), 0)(keys, state, vectors)


def finish(key: Key, state: Statistics) -> Dictionaries:
    """Returns the dictionaries."""
    return Dictionaries(state.dictionary)


def solve(coder: Coder, params: Dictionaries, vectors: Float[Array, "p g d"]) -> Solution:
    """Returns the codes of vectors, [p g ...]."""
    return by_group(coder, (0, 1), 1)(params.dictionary, vectors)


def errors(
    coder: Coder, params: Dictionaries, vectors: Float[Array, "p g d"]
) -> tuple[Float[Array, "p g"], Diagnostics]:
    """Returns the squared residuals, and how well the codes are known to be solved."""
    solution = solve(coder, params, vectors)
    mean = {
        "converged": jnp.mean(solution.converged.astype(vectors.dtype)),
        "nonzeros": jnp.mean(jnp.sum(solution.code != 0.0, axis=-1).astype(vectors.dtype)),
        "steps": jnp.mean(solution.steps.astype(vectors.dtype)),
    }
    return solution.error, Diagnostics(mean, {"gap": jnp.max(solution.gap)})


def reconstruct(
    coder: Coder, params: Dictionaries, vectors: Float[Array, "p g d"]
) -> Float[Array, "p g d"]:
    """Returns zD of every vector."""
    code = solve(coder, params, vectors).code
    return by_group(product, (1, 0), 1)(code, params.dictionary)


def atoms(params: Dictionaries) -> Float[Array, "k d"]:
    """Returns the dictionary of the first group."""
    return params.dictionary[0]
