"""What every detector keeps to: checks of one that was fitted to images of stripes."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import stripes, with_defects
from helpers.networks import THIN
from jax.sharding import AxisType

from sparse_ad import devices, methods
from sparse_ad.batching import batched
from sparse_ad.features import Network, Pixels, backbones, pyramid
from sparse_ad.features.weights import Weights
from sparse_ad.methods.compiled import compile_score
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.types import Features, Scores

KEY = jax.random.key(0)
SIDE = 24  # of images
COUNT = 8  # images in a batch: one for each device


class HandMade(NamedTuple):
    """Maps made of pixels, which compile at once: as many layers of two channels as asked for."""

    layers: int = 1

    def build(self, size) -> Features:
        def extract(images):
            images = jnp.asarray(images)
            shifts = {f"layer{n}": jnp.roll(images, n + 1, axis=1) for n in range(self.layers)}
            return {
                name: jnp.concatenate([images, images - other], axis=-1)
                for name, other in shifts.items()
            }

        return Features(extract, f"hand-made {self.layers}")


class Case(NamedTuple):
    """A detector to be fitted, and what is particular to it."""

    options: Any
    features: Pixels | Network | HandMade = Pixels()
    tiles: Tiles = Tiles()
    channels: int = 1
    side: int = SIDE
    steps: int = 6  # of the fit
    fresh: bool = False  # every step sees other images, as a network needs
    views: tuple[str, ...] = ()  # that it has
    grid: bool = False  # its errors lie on one grid
    draws: bool = True  # at random, when fitting
    spots: str = "stripes"  # sees stripes in another direction; "bright": a bright block only
    gain: float = 1.2  # mean score of images with a bright block, over that without, at least
    near: float = 0.1  # error of the reconstruction of training images, of their variance
    close: float = 0.0  # relative tolerance of scores by eight devices; 0: the same bits


class Fit:
    """A detector fitted to stripes; nothing of it changes afterwards."""

    def __init__(self, case: Case):
        self.case = case
        self.method = build(case)
        self.update = jax.jit(self.method.update)
        self.scoring = jax.jit(batched(self.method.score, self.method.together))
        maps = self.look(self.images(0))
        state, info = jax.jit(self.method.init)(KEY, maps), {}
        for step in range(case.steps):
            maps = self.look(self.images(100 + step)) if case.fresh else maps
            state, info = self.update(jax.random.fold_in(KEY, step), state, maps)
        self.state, self.info = state, info
        self.params = jax.jit(self.method.finish)(KEY, state)

    @cached_property
    def normal(self) -> Scores:
        """Scores of normal images that it was not fitted to."""
        return self.score(self.images(1))

    def images(self, seed: int, count: int = COUNT) -> np.ndarray:
        return stripes(count, seed, self.case.channels, self.case.side)

    def look(self, images):
        """The maps of images, on no device."""
        return jax.device_get(self.method.features.extract(images))

    def score(self, images) -> Scores:
        return self.scoring(self.params, self.look(images))

    def view(self, name: str, images):
        """What a view, which is of one image, shows of many."""
        view = batched(getattr(self.method.views, name), self.method.together)
        return jax.jit(view)(self.params, self.look(images))


def random_weights(name: str, path: str) -> Weights:
    """Weights of the network of that name, of which none is zero, the same each time."""
    module = backbones.BACKBONES[name].module(tuple(backbones.BACKBONES[name].layers))
    like = jax.eval_shape(module.init, KEY, np.zeros((1, 64, 64, 3), np.float32))["params"]
    rng = np.random.default_rng(1)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) == 4 else 0.1
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    return Weights(jax.tree.map(draw, like), mean, std, "random")


@pytest.fixture(scope="module", autouse=True)
def thin_backbones():
    """Thin networks whose weights are random: to be imported by tests that fit a `Case`."""
    thin = {
        name: backbones.BACKBONES[name]._replace(module=module) for name, module in THIN.items()
    }
    with (
        mock.patch.dict(backbones.BACKBONES, thin),
        mock.patch.object(pyramid, "load_weights", random_weights),
    ):
        yield


def build(case: Case):
    shape = (case.side, case.side, case.channels)
    features = case.features.build(case.tiles.part(shape)[:2])
    return methods.build(case.options, features, shape, case.tiles)


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def rows(tree, *index):
    """The rows of every leaf of a tree."""
    return jax.tree.map(lambda leaf: leaf[slice(*index)], tree)


def check_types(fit: Fit):
    scores, side = fit.normal, fit.case.side
    assert isinstance(scores, Scores)
    assert scores.image.shape == (COUNT,)
    assert scores.map.shape == (COUNT, side, side)  # the resolution of the images
    for values in scores.info:  # diagnostics: the mean ones, the largest ones
        assert all(value.shape == (COUNT,) for value in values.values())
    assert all(value.shape == () for value in fit.info.values())
    for leaf in jax.tree.leaves((fit.state, fit.info, fit.params, scores)):
        assert np.isfinite(leaf).all()
        assert leaf.dtype in (jnp.float32, jnp.int32)


def check_what_it_has(fit: Fit):
    """Views and a grid, as the case says: else checks of them would not be made."""
    views = fit.method.views._asdict()
    assert {name for name, view in views.items() if view is not None} == set(fit.case.views)
    assert (fit.method.grid is not None) == fit.case.grid


def check_state_keeps_its_shape(fit: Fit):
    """Else it could not be restored, nor fitting be streamed."""
    shape = (COUNT, fit.case.side, fit.case.side, fit.case.channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    maps = jax.eval_shape(fit.method.features.extract, images)
    first = jax.eval_shape(fit.method.init, KEY, maps)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), t) for t in (first, fit.state)]
    assert shapes[0] == shapes[1]


def check_fit_is_deterministic_and_follows_its_key(fit: Fit):
    """But where nothing is drawn."""
    maps = fit.look(fit.images(0))
    same, _ = fit.update(KEY, fit.state, maps)
    assert_same_bits(fit.update(KEY, fit.state, maps)[0], same)
    init = jax.jit(fit.method.init)
    begun, other = (jax.tree.leaves(init(key, maps)) for key in (KEY, jax.random.key(9)))
    pairs = zip(begun, other, strict=True)
    differ = any((np.asarray(one) != np.asarray(two)).any() for one, two in pairs)
    assert differ == fit.case.draws


def check_score_does_not_see_other_images(fit: Fit):
    images, others = fit.images(1), fit.images(2)
    mixed = np.concatenate([images[:3], others[3:]])
    assert_same_bits(rows(fit.score(mixed), 3), rows(fit.normal, 3))
    assert_same_bits(fit.score(images[::-1]).image, fit.normal.image[::-1])


def check_batch_of_one_is_batch_of_eight(fit: Fit):
    maps = fit.look(fit.images(1))
    for index in (0, 5):
        alone = fit.scoring(fit.params, rows(maps, index, index + 1))
        assert_same_bits(alone, rows(fit.normal, index, index + 1))


def check_eight_devices_score_as_one(fit: Fit):
    assert devices.mesh().size == 8
    images = fit.images(1)  # one each
    spread = compile_score(fit.method)(devices.replicate(fit.params), images)
    assert len(spread.image.sharding.device_set) == 8
    if not fit.case.close:
        assert_same_bits(spread, fit.normal)
    close = {"rtol": fit.case.close, "atol": fit.case.close}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), spread, fit.normal)


def check_eight_devices_fit_as_one(fit: Fit):
    """To the order of float32 sums, which an exact solver does not amplify."""
    maps, state = fit.look(fit.images(3)), jax.device_get(fit.state)
    shared = fit.update(KEY, devices.replicate(state), devices.spread(maps))
    alone = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.local_devices()[:1])
    with mock.patch.object(devices, "mesh", lambda: alone):
        by_one = jax.jit(lambda *batch: fit.method.update(*batch))(KEY, state, maps)
    for leaf, other in zip(jax.tree.leaves(shared), jax.tree.leaves(by_one), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-3)


def check_stripes_in_another_direction_score_higher(fit: Fit):
    normal = fit.images(4)
    good, bad = fit.score(normal), fit.score(with_defects(normal))
    assert bad.image.min() > good.image.max()
    inside = bad.map[:, 10:14, 10:14].mean((1, 2))
    outside = bad.map[:, :3].mean((1, 2))
    assert (inside > 2.0 * outside).all()


def check_a_bright_block_scores_higher(fit: Fit):
    """The mean over images: where random weights, a search or a mean see less."""
    good, third = fit.score(fit.images(4)), fit.case.side // 3
    damaged = fit.images(4)  # other memory: a score may still be computed when it changes
    damaged[:, third : 2 * third, third : 2 * third] = 0.9
    bad = fit.score(damaged)
    assert bad.image.mean() > fit.case.gain * good.image.mean()
    assert bad.map.mean() > good.map.mean()


def check_training_images_are_reconstructed(fit: Fit):
    images = fit.images(0)
    shown = fit.view("reconstruct", images)
    assert shown.shape == images.shape
    assert np.mean((shown - images) ** 2) < fit.case.near * images.var()
    shifted = np.mean((shown - np.roll(images, 1, axis=1)) ** 2)
    assert shifted > 0.3 * images.var()  # and it is these images, not any


def check_atoms_are_images(fit: Fit):
    atoms, options = fit.method.views.atoms(fit.params), fit.case.options
    assert atoms.shape[1:3] == (options.patches.size,) * 2
    assert atoms.shape[0] % options.atoms == 0 and atoms.shape[3] in (1, fit.case.channels)
    lengths = jnp.linalg.norm(atoms.reshape(len(atoms), -1), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)  # float32 square roots


def check_layers_explain_the_score(fit: Fit):
    layers, maps = fit.view("explain", fit.images(1)), fit.look(fit.images(1))
    assert layers.keys() == maps.keys()
    total = sum(layer.map for layer in layers.values())
    np.testing.assert_allclose(total, fit.normal.map, rtol=1e-4)  # another order of float32 sums
    for name, layer in layers.items():
        # None where the channels of a position are coded together.
        assert layer.channels.shape in ((COUNT, maps[name].shape[-1]), (COUNT, 0))
        assert layer.errors.shape[0] == COUNT and (layer.errors >= 0).all()


def check_latents_are_of_images(fit: Fit):
    latents = np.asarray(fit.view("latent", fit.images(1)))
    assert latents.shape[0] == COUNT and latents.ndim == 2
    assert (latents[0] != latents[1]).any()


def check_grid_gives_the_scores(fit: Fit):
    """Errors of an image, pooled and as a map, are what `score` says."""
    grid, maps = fit.method.grid, rows(fit.look(fit.images(1)), 1)
    errors, _ = batched(grid.errors)(fit.params, maps)
    axes = 4 if fit.case.tiles.size else 3
    assert all(leaf.ndim == axes and (leaf >= 0).all() for leaf in errors.values())
    own = {name: leaf[0] for name, leaf in errors.items()}
    close = {"rtol": 1e-4, "atol": 1e-6}  # eager and compiled sums round otherwise
    np.testing.assert_allclose(grid.pool(own), fit.normal.image[0], **close)
    np.testing.assert_allclose(grid.to_map(own), fit.normal.map[0], **close)


CHECKS: tuple[Callable[[Fit], None], ...] = (
    check_types,
    check_what_it_has,
    check_state_keeps_its_shape,
    check_fit_is_deterministic_and_follows_its_key,
    check_score_does_not_see_other_images,
    check_batch_of_one_is_batch_of_eight,
    check_eight_devices_score_as_one,
    check_eight_devices_fit_as_one,
)
SPOTS = {  # one of them for every detector
    "stripes": check_stripes_in_another_direction_score_higher,
    "bright": check_a_bright_block_scores_higher,
}
VIEWS = {
    "reconstruct": check_training_images_are_reconstructed,
    "atoms": check_atoms_are_images,
    "explain": check_layers_explain_the_score,
    "latent": check_latents_are_of_images,
}


def checks_of(case: Case) -> tuple[Callable[[Fit], None], ...]:
    """The checks that a case is to pass."""
    views = tuple(VIEWS[name] for name in case.views)
    grid = (check_grid_gives_the_scores,) if case.grid else ()
    return (*CHECKS, SPOTS[case.spots], *views, *grid)
