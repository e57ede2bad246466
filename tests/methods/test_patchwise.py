"""Models of vectors on the patches of one layer, and of several that add up, against NumPy.

Maps are resized by Pillow, whose bilinear filter is the same one, written by others.
"""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from sparse_ad.batching import batched
from sparse_ad.errors import FieldError
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.methods.lifts.calibrated import Calibrated, NormalErrors, calibrated
from sparse_ad.methods.lifts.grid import count_positions, score_kept
from sparse_ad.methods.lifts.patchwise import patchwise
from sparse_ad.methods.lifts.tiles import Tiles, tiled
from sparse_ad.normalisation import Normalise
from sparse_ad.patches import Patches, Pool
from sparse_ad.types import PIXELS, Diagnostics, Features, VectorModel

KEY = jax.random.key(3)
SHAPE = (24, 32, 1)
COUNT = 2  # images
CELLS = {"fine": 2, "coarse": 4}  # pixels from one position to the next
POOL = Pool("top_mean", fraction=0.1)
PLAIN = Normalise(remove_mean=False, scale="none")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order


def images_of(seed: int = 0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(COUNT, *shape)).astype(np.float32)


def blocks(images, cell: int):
    """Mean and largest pixel of each cell: [n h w 2]."""
    count, height, width, _ = images.shape
    parts = jnp.reshape(images, (count, height // cell, cell, width // cell, cell))
    return jnp.stack([parts.mean((2, 4)), parts.max((2, 4))], axis=-1)


def features_of(*names: str, border: int = 0) -> Features:
    def extract(images):
        maps = {name: blocks(jnp.asarray(images), CELLS[name]) for name in names}
        cut = slice(border, -border if border else None)
        return {name: layer[:, cut, cut] for name, layer in maps.items()}

    return Features(extract, "blocks", border)


def around_a_point() -> VectorModel:
    """Its errors are squared distances from a mean, and from something drawn at random."""

    def init(key, vectors):
        return {"mean": vectors.mean(0), "drawn": jax.random.uniform(key, vectors.shape[1:])}

    def update(key, state, vectors):
        mean = 0.5 * (state["mean"] + vectors.mean(0)) + 0.01 * jax.random.uniform(key)
        return state | {"mean": mean}, {"length": jnp.linalg.norm(mean)}

    def errors(params, vectors):
        found = ((vectors - (params["mean"] + params["drawn"])[None]) ** 2).sum(-1)
        return found, Diagnostics({"mean": found.mean()}, {"largest": found.max()})

    def finish(key, state):
        return state | {"drawn": state["drawn"] + 0.1 * jax.random.uniform(key)}

    return VectorModel(init, update, finish, errors)


MODEL = around_a_point()


def build(*names: str, size=1, stride=1, border=0, pooling=POOL, normalise=PLAIN):
    patches = Patches(size, stride, per_image=0)
    return patchwise(MODEL, patches, normalise, pooling, features_of(*names, border=border), SHAPE)


def fit_to(method, keys, maps):
    """State, what is logged, and parameters after a step; `keys`: of init, update and finish."""
    state, info = method.update(keys[1], method.init(keys[0], maps), maps)
    return state, info, method.finish(keys[2], state)


def fit(method, keys):
    maps = method.features.extract(images_of(1))
    return jax.jit(partial(fit_to, method))(keys, maps)


KEYS = jax.random.split(KEY, 3)


def errors_in(method, params, maps):
    return jax.jit(jax.vmap(method.grid.errors, in_axes=(None, 0)))(params, maps)


def score(method, params, images, ignored=None):
    return scoring(method, ignored is not None)(params, method.features.extract(images), ignored)


@cache
def scoring(method, ignoring: bool):
    """As `methods.compiled` scores: on one device, which compiles sooner."""
    if not ignoring:
        return jax.jit(lambda params, maps, _: jax.vmap(partial(method.score, params))(maps))
    kept = partial(score_kept, method)
    return jax.jit(lambda params, *images: jax.vmap(partial(kept, params))(images))


@cache
def fitted(size=1, stride=1, border=0):
    method = build("fine", "coarse", size=size, stride=stride, border=border)
    return method, fit(method, KEYS)[2]


@cache
def errors_of(size=1, stride=1, border=0) -> dict[str, np.ndarray]:
    """The errors of all images by a detector of each layer alone, fitted with the layer's keys."""
    keys = jax.vmap(partial(jax.random.split, num=len(CELLS)))(KEYS)

    @jax.jit
    def run(train, images):
        found = {}
        for index, name in enumerate(sorted(CELLS)):
            method = build(name, size=size, stride=stride, border=border)
            params = fit_to(method, keys[:, index], {name: train[name]})[2]
            errors = jax.vmap(partial(method.grid.errors, params))({name: images[name]})[0]
            found |= errors
        return found

    extract = features_of(*CELLS, border=border).extract
    return jax.device_get(run(extract(images_of(1)), extract(images_of())))


def resized(values: np.ndarray, shape) -> np.ndarray:
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def spread(errors: np.ndarray, size: int, stride: int, shape) -> np.ndarray:
    """The mean error of the patches over each position; without any, that of the nearest."""
    total, count = np.zeros(shape), np.zeros(shape)
    for row, column in np.ndindex(errors.shape):
        there = np.s_[row * stride : row * stride + size, column * stride : column * stride + size]
        total[there] += errors[row, column]
        count[there] += 1
    assert count.all()  # the sizes of these tests leave no position out
    return total / count


def added(errors, row: int, shape, size=1, stride=1, border=0) -> np.ndarray:
    """The sum of the error maps of one image at a size, linear in between."""
    sides = {name: np.array(SHAPE[:2]) // cell - 2 * border for name, cell in CELLS.items()}
    maps = [spread(errors[name][row], size, stride, sides[name]) for name in errors]
    return np.sum([resized(np.pad(each, border, "edge"), shape) for each in maps], axis=0)


def largest(values: np.ndarray, fraction: float) -> float:
    ordered = np.sort(values, axis=None)[::-1]
    return ordered[: max(1, round(fraction * values.size))].mean()


def test_one_layer_is_the_model_applied_by_hand():
    images, patches = images_of(), Patches(size=4, stride=4, per_image=0)
    method = patchwise(MODEL, patches, PLAIN, POOL, PIXELS, SHAPE)
    params = fit(method, KEYS)[2]
    assert list(params) == ["pixels"]
    scores = score(method, params, images)
    model = params["pixels"].model
    point = np.asarray(model["mean"] + model["drawn"], np.float64)
    parts = images.reshape(COUNT, 6, 4, 8, 4).swapaxes(2, 3).reshape(COUNT, 48, 16)
    errors = ((parts - point) ** 2).sum(-1)
    assert_allclose(scores.image, [largest(each, 0.1) for each in errors], **CLOSE)
    expected = np.kron(errors.reshape(COUNT, 6, 8), np.ones((4, 4)))
    assert_allclose(scores.map, expected, **CLOSE)
    assert_allclose(scores.info.mean["mean"], errors.mean(1), **CLOSE)
    assert_allclose(scores.info.largest["largest"], errors.max(1), **CLOSE)


def test_one_layer_is_pooled_on_its_own_grid():
    """Not as a map: where patches overlap, that would pool means of several errors."""
    method = build("fine", size=3, pooling=Pool("max"))
    params = fit(method, KEYS)[2]
    errors, _ = errors_in(method, params, method.features.extract(images_of()))
    scores = score(method, params, images_of())
    assert_allclose(scores.image, errors["fine"].max((1, 2)), rtol=1e-6)


SIZES = [{}, {"size": 2, "border": 1}]  # of patches; positions cut off


@pytest.mark.parametrize("sizes", SIZES)
def test_several_layers_add_up(sizes):
    method, params = fitted(**sizes)
    maps = method.features.extract(images_of())
    errors, _ = errors_in(method, params, maps)
    alone = errors_of(**sizes)
    for name in CELLS:
        assert_allclose(errors[name], alone[name], rtol=1e-6)
    scores = score(method, params, images_of())
    finest = tuple(maps["fine"].shape[1:3])
    for row in range(COUNT):
        expected = largest(added(alone, row, finest, **sizes), POOL.fraction)
        assert_allclose(scores.image[row], expected, **CLOSE)
        assert_allclose(scores.map[row], added(alone, row, SHAPE[:2], **sizes), **CLOSE)


def test_the_order_of_layers_changes_no_score():
    """The finest grid is the one with the most positions, wherever its layer stands."""
    method, params = fitted()
    turned = build("coarse", "fine")
    scores = [score(each, params, images_of()) for each in (method, turned)]
    assert_allclose(scores[0].image, scores[1].image, rtol=1e-6)
    assert_allclose(scores[0].map, scores[1].map, rtol=1e-6)


def test_diagnostics_are_those_of_all_layers():
    method, params = fitted()
    info = score(method, params, images_of()).info
    alone = errors_of()
    expected = np.mean([each.mean((1, 2)) for each in alone.values()], axis=0)
    assert_allclose(info.mean["mean"], expected, **CLOSE)
    expected = np.max([each.max((1, 2)) for each in alone.values()], axis=0)
    assert_allclose(info.largest["largest"], expected, **CLOSE)


def test_what_is_logged_names_its_layer():
    method = build("fine", "coarse")
    assert fit(method, KEYS)[1].keys() == {"length_fine", "length_coarse"}
    assert fit(build("fine"), KEYS)[1].keys() == {"length"}


def test_each_layer_has_a_unit_of_its_own():
    maps = build("fine", "coarse").features.extract(images_of(1))
    state = fit(build("fine", "coarse", normalise=Normalise(remove_mean=False)), KEYS)[0]
    for name, layer in maps.items():
        assert_allclose(state[name].unit, np.sqrt(np.mean(np.square(layer))), rtol=1e-5)


def test_the_state_goes_on_where_it_was_left():
    """As arrays and back, as it is saved: the next step has the same bits."""
    method = build("fine", "coarse")
    state = fit(method, KEYS)[0]
    maps = jax.device_get(method.features.extract(images_of(2)))
    leaves, structure = jax.tree.flatten(state)
    shapes = jax.eval_shape(method.init, KEY, maps)
    assert structure == jax.tree.structure(shapes)
    back = jax.tree.unflatten(structure, [np.array(leaf) for leaf in leaves])
    update = jax.jit(method.update)
    one, two = (update(KEY, each, maps)[0] for each in (state, back))
    jax.tree.map(assert_array_equal, one, two)


def test_a_batch_at_once_is_each_image_by_itself():
    method, params = fitted()
    maps = method.features.extract(images_of())
    at_once = score(method, params, images_of())
    one = jax.jit(method.score)
    for row in range(COUNT):
        alone = one(params, jax.tree.map(lambda leaf, row=row: leaf[row], maps))
        assert_allclose(at_once.image[row], alone.image, rtol=1e-5)
        assert_allclose(at_once.map[row], alone.map, rtol=1e-5, atol=1e-6)


def explained(method, params):
    maps = method.features.extract(images_of())
    return jax.jit(jax.vmap(method.views.explain, in_axes=(None, 0)))(params, maps)


def test_layers_explain_the_map():
    method, params = fitted()
    layers = explained(method, params)
    assert layers.keys() == CELLS.keys()
    scores, alone = score(method, params, images_of()), errors_of()
    assert_allclose(sum(layer.map for layer in layers.values()), scores.map, rtol=1e-6)
    for name, layer in layers.items():
        assert_allclose(layer.errors, alone[name].reshape(COUNT, -1), rtol=1e-6)
        assert layer.channels.shape == (COUNT, 0)
    assert build("fine").views.explain is None  # there is nothing to tell apart


def normal_errors(seed=5, shapes=None) -> NormalErrors:
    rng = np.random.default_rng(seed)
    shapes = shapes or {name: each.shape[1:] for name, each in errors_of().items()}
    mean, std = (
        {name: rng.uniform(0.1, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(2)
    )
    return NormalErrors(mean, std)


def test_calibrated_layers_add_up_in_units():
    """A layer that is loud in normal images adds no more than a quiet one."""
    plain, params = fitted()
    method, normal = calibrated(plain, plain.grid), normal_errors()
    scores = score(method, Calibrated(params, normal), images_of())
    units = {
        name: (each - normal.mean[name]) / normal.std[name] for name, each in errors_of().items()
    }
    for row in range(COUNT):
        expected = largest(added(units, row, units["fine"].shape[1:]), POOL.fraction)
        assert_allclose(scores.image[row], expected, rtol=1e-4, atol=1e-4)  # std down to 0.1
        assert_allclose(scores.map[row], added(units, row, SHAPE[:2]), rtol=1e-4, atol=1e-4)
    layers = explained(method, Calibrated(params, normal))
    total = sum(layer.map for layer in layers.values())
    assert_allclose(total, scores.map, rtol=1e-4, atol=1e-4)
    shown = method.views.normal(Calibrated(params, normal))
    for found, part in zip(shown, normal, strict=True):
        expected = sum(resized(each, SHAPE[:2]) for each in part.values())
        assert_allclose(found, expected, rtol=1e-5)


IGNORED = np.zeros(SHAPE[:2], bool)
IGNORED[8:16, 4:12] = True


def score_ignoring(method, params, images, ignored=IGNORED):
    return score(method, params, images, jnp.broadcast_to(ignored, images.shape[:3]))


@pytest.mark.parametrize(
    ("sizes", "in_units"),
    [
        (SIZES[0], False),
        (SIZES[1], True),
        pytest.param(SIZES[0], True, marks=pytest.mark.slow),
        pytest.param(SIZES[1], False, marks=pytest.mark.slow),
    ],
)
def test_ignored_pixels_have_no_influence(sizes, in_units):
    method, params = fitted(**sizes)
    if in_units:
        shapes = {name: each.shape[1:] for name, each in errors_of(**sizes).items()}
        method = calibrated(method, method.grid)
        params = Calibrated(params, normal_errors(shapes=shapes))
    garbage = np.where(IGNORED[None, ..., None], 50.0 * images_of(7), images_of())
    one, two = (score_ignoring(method, params, each) for each in (images_of(), garbage))
    assert_array_equal(one.image, two.image)
    assert_array_equal(one.map, two.map)
    assert not np.asarray(one.map)[:, IGNORED].any()
    plain = score(method, params, images_of())
    far = np.s_[:, :, 24:]  # no position that is ignored reaches so far
    assert_allclose(one.map[far], plain.map[far], **CLOSE)


def test_a_defect_beside_ignored_pixels_counts():
    method, params = fitted()
    damaged = images_of()
    damaged[:, 20:24, 24:32] = 5.0
    good, bad = (score_ignoring(method, params, each) for each in (images_of(), damaged))
    assert (bad.image > 2 * good.image).all()
    top = np.reshape(bad.map, (COUNT, -1)).argmax(1)
    rows, columns = np.unravel_index(top, SHAPE[:2])
    assert (rows >= 18).all() and (columns >= 22).all()


def test_layers_keep_their_sum_beside_ignored_pixels():
    """Errors of 1 and of 3, whatever is ignored."""
    method, _ = fitted()
    errors = {"fine": jnp.ones((12, 16)), "coarse": jnp.full((6, 8), 3.0)}
    count = jax.jit(partial(count_positions, method.grid, errors))
    pool = jax.jit(method.grid.pool)
    for ignored in (IGNORED, np.roll(IGNORED, 3, axis=(0, 1)), np.zeros_like(IGNORED)):
        assert_allclose(pool(errors, count(jnp.asarray(ignored))), 4.0, rtol=1e-5)


def test_nothing_ignored_is_the_plain_score():
    method, params = fitted()
    none = score_ignoring(method, params, images_of(), np.zeros(SHAPE[:2], bool))
    plain = score(method, params, images_of())
    assert_allclose(none.image, plain.image, rtol=1e-5)
    assert_allclose(none.map, plain.map, rtol=1e-5)


def test_without_any_pixel_there_is_no_score():
    method, params = fitted()
    scores = score_ignoring(method, params, images_of(), np.ones(SHAPE[:2], bool))
    assert np.isnan(scores.image).all()
    assert not np.asarray(scores.map).any()


def test_several_layers_in_tiles():
    """The score is that of the worst tile, by layers that explain it."""
    part, params = fitted()
    whole = (SHAPE[0], 2 * SHAPE[1])
    method = tiled(part, whole, Tiles(SHAPE[:2], overlap=0.0))
    images = np.concatenate([images_of(), images_of(2)], axis=2)
    scores = score(method, params, images)
    halves = [score(part, params, images_of(seed)) for seed in (0, 2)]
    assert_allclose(scores.image, np.maximum(*(half.image for half in halves)), rtol=1e-5)
    assert_allclose(scores.map, np.concatenate([half.map for half in halves], 2), rtol=1e-5)
    layers = jax.jit(batched(method.views.explain))(params, method.features.extract(images))
    assert_allclose(sum(layer.map for layer in layers.values()), scores.map, rtol=1e-5)
    assert layers["fine"].channels.shape == (COUNT, 0)


def test_patches_larger_than_the_smallest_layer_are_named():
    with pytest.raises(FieldError, match=r"patches.size = 7: exceeds the image side of 6"):
        build("fine", "coarse", size=7)


def test_layers_are_weighed():
    """In score and map alike; where pixels are ignored, too."""
    names, weights = ("fine", "coarse"), {"fine": 1.0, "coarse": 0.25}
    options = Patches(1, 1, per_image=0), PLAIN, POOL, features_of(*names), SHAPE
    plain, weighed = patchwise(MODEL, *options), patchwise(MODEL, *options, weights)
    maps = plain.features.extract(jnp.asarray(images_of()))
    params = fit(plain, KEYS)[2]
    one = jax.tree.map(lambda layer: layer[0], maps)
    errors, _ = jax.jit(plain.grid.errors)(params, one)
    scaled = {name: weights[name] * values for name, values in errors.items()}
    score = jax.jit(weighed.score)(params, one)
    pool, to_map = jax.jit(plain.grid.pool), jax.jit(plain.grid.to_map)
    assert_allclose(score.image, pool(scaled), **CLOSE)
    assert_allclose(score.map, to_map(scaled), **CLOSE)
    ignored = jnp.zeros(SHAPE[:2], bool).at[:8].set(True)
    counted, other = (
        jax.jit(partial(count_positions, each.grid))(errors, ignored) for each in (plain, weighed)
    )
    assert_allclose(jax.jit(weighed.grid.pool)(errors, counted), pool(scaled, counted), **CLOSE)
    jax.tree.map(assert_array_equal, counted, other)


def test_atoms_are_those_of_their_layers():
    """In the order in which the layers were asked for, which is not that of the alphabet."""
    features = features_of("fine", "coarse")._replace(layers=("fine", "coarse"))
    patches = Patches(1, 1, per_image=0)
    options = ExemplarCoding(patches, PLAIN, atoms=(5, 3), weights=(1.0, 0.5))
    method = options.build(features, SHAPE)
    state = method.init(KEY, features.extract(jnp.asarray(images_of())))
    atoms = {name: len(layer.model.exemplars.atoms) for name, layer in state.items()}
    assert atoms == {"fine": 5, "coarse": 3}
    with pytest.raises(
        FieldError, match=r"atoms = \(5, 3, 1\): give one number, or one for each of"
    ):
        replace(options, atoms=(5, 3, 1)).build(features, SHAPE)
