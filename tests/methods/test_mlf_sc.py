"""MLF-SC on maps made by hand: scores from patch errors written out, and each of its options."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.batching import batched
from sparse_ad.methods.mlf_sc import Fitted, Fitting, MlfSc
from sparse_ad.methods.standardisation import MeanStd
from sparse_ad.patches import ChannelPatches, Pool
from sparse_ad.sparse.channels import ChannelLasso, ChannelOmp
from sparse_ad.sparse.dictionary import Statistics
from sparse_ad.types import Features

KEY = jax.random.key(0)
SIZE, STRIDE, ATOMS, TOP = 3, 2, 2, 3
SIDE = 16  # of images
CHANNELS = {"fine": 2, "coarse": 3}


def by_hand(images):
    """Two layers made of pixels [n 16 16 1]: on their grid, and on one half as fine."""
    down = images - jnp.roll(images, 1, axis=1)
    n, height, width, _ = images.shape
    pooled = images.reshape(n, height // 2, 2, width // 2, 2, 1).mean((2, 4))
    across = pooled - jnp.roll(pooled, 1, axis=2)
    return {
        "fine": jnp.concatenate([images, 3.0 * down + 1.0], axis=-1),
        "coarse": jnp.concatenate([pooled, pooled**2, 5.0 * across - 2.0], axis=-1),
    }


HAND_MADE = Features(by_hand, "hand-made")


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(count, SIDE, SIDE, 1)).astype(np.float32)


def maps_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {name: np.array(each) for name, each in by_hand(images_of(count, seed)).items()}


def method_of(features: Features = HAND_MADE, shape=(SIDE, SIDE, 1), **fields):
    patches = ChannelPatches(SIZE, fields.pop("stride", STRIDE))
    pool = Pool(fields.pop("rule", "top_sum"), top=TOP)
    coder = ChannelOmp(nonzeros=1)
    return MlfSc(patches, coder, ATOMS, pool=pool, **fields).build(features, shape)


@cache
def scoring(**fields):
    return jax.jit(batched(method_of(**fields).score))


def explaining(method):
    return jax.jit(batched(method.views.explain))


def params_of(seed: int = 1) -> dict[str, Fitted]:
    """Dictionaries, units and moments drawn at random: scoring takes them as they are."""
    rng, params = np.random.default_rng(seed), {}
    for name, channels in CHANNELS.items():
        atoms = rng.normal(size=(ATOMS, SIZE, SIZE, channels))
        atoms /= np.sqrt((atoms**2).sum((1, 2), keepdims=True))
        rest = rng.normal(size=channels), *rng.uniform(0.5, 2.0, (2, channels))
        mean, std, unit = (jnp.float32(each) for each in rest)
        params[name] = Fitted(MeanStd(mean, std), jnp.float32(atoms), unit)
    return params


def patches_of(maps: np.ndarray) -> np.ndarray:
    """float64 [i j s s c]"""
    rows, columns = (range(0, side - SIZE + 1, STRIDE) for side in maps.shape[:2])
    cut = [[maps[top : top + SIZE, left : left + SIZE] for left in columns] for top in rows]
    return np.array(cut, np.float64)


def standardised(maps: np.ndarray, fitted: Fitted, how: str) -> np.ndarray:
    maps = maps.astype(np.float64)
    if how == "image":
        return (maps - maps.mean((0, 1))) / maps.std((0, 1))
    mean, std = map(np.asarray, fitted.training)
    return (maps - mean) / std if how == "training" else maps


def errors_of(maps: np.ndarray, dictionary) -> np.ndarray:
    """What the better of the atoms leaves of each patch: float64 [i j c]."""
    patches = patches_of(maps)
    fit = np.einsum("ijabc,kabc->kijc", patches, np.asarray(dictionary, np.float64)) ** 2
    return (patches**2).sum((2, 3)) - fit.max(0)


def all_errors(maps, params, how: str) -> list[dict[str, np.ndarray]]:
    """For each image, by layer, in units of the channel."""
    return [
        {
            name: errors_of(standardised(maps[name][n], fitted, how), fitted.dictionary)
            / np.asarray(fitted.unit)
            for name, fitted in params.items()
        }
        for n in range(len(maps["fine"]))
    ]


def largest(errors, axis=None) -> np.ndarray:
    return np.sort(errors, axis=axis)[-TOP:].sum(0)


SCORES = {  # of one layer
    "channels": lambda errors: largest(errors.reshape(-1, errors.shape[-1]), 0).sum(),
    "all_patches": lambda errors: largest(errors.ravel(), 0),
    "positions": lambda errors: largest(errors.sum(-1).ravel(), 0),
}
# float32: errors near 10 are what cancelling leaves of energies of up to some hundred.
CLOSE = {"rtol": 1e-4}


@pytest.mark.parametrize(
    ("score_of", "standardise"),
    [
        ("channels", "image"),
        ("all_patches", "image"),
        ("positions", "image"),
        ("channels", "training"),
        ("channels", "none"),
    ],
)
def test_scores_are_those_of_patch_errors(score_of, standardise):
    maps, params = maps_of(3), params_of()
    found = scoring(score_of=score_of, standardise=standardise)(params, maps)
    errors = all_errors(maps, params, standardise)
    layers = {name: np.array([SCORES[score_of](each[name]) for each in errors]) for name in maps}
    assert found.info.mean.keys() == {"score_fine", "score_coarse"}
    for name in maps:
        np.testing.assert_allclose(found.info.mean[f"score_{name}"], layers[name], **CLOSE)
    if score_of == "all_patches":
        every = [np.concatenate([each[name].ravel() for name in maps]) for each in errors]
        expected = [largest(each, 0) for each in every]
    else:
        expected = sum(layers.values())
    np.testing.assert_allclose(found.image, expected, **CLOSE)
    assert found.map.shape == (3, SIDE, SIDE)


def test_positions_are_pooled_as_asked():
    maps, params = maps_of(2), params_of()
    found = scoring(score_of="positions", rule="max")(params, maps)
    errors = all_errors(maps, params, "none")
    expected = [sum(each[name].sum(-1).max() for name in maps) for each in errors]
    np.testing.assert_allclose(found.image, expected, **CLOSE)


def test_scores_by_image_do_not_see_an_affine_change():
    """Of each channel of each image, its own; without standardising they do."""
    maps, params, rng = maps_of(3), params_of(), np.random.default_rng(7)
    changed = {}
    for name, each in maps.items():
        shape = (3, 1, 1, each.shape[-1])
        scale, offset = rng.uniform(0.3, 3.0, shape), rng.normal(size=shape)
        changed[name] = (scale * each + offset).astype(np.float32)
    by_image = scoring(score_of="channels", standardise="image")
    expected, found = by_image(params, maps), by_image(params, changed)
    # The offset is a few std: float32 loses that much of the contrast.
    np.testing.assert_allclose(found.image, expected.image, rtol=1e-4)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-3, atol=1e-3)
    plain = scoring(score_of="channels", standardise="none")
    ratio = np.asarray(plain(params, changed).image / plain(params, maps).image)
    assert (np.abs(ratio - 1.0) > 0.01).all()


@pytest.mark.parametrize("standardise", ["image", "training", "none"])
@pytest.mark.parametrize("value", [0.0, 0.7, 1000.1])
def test_a_flat_channel_makes_no_nan(standardise, value):
    maps = maps_of(3)
    maps["fine"][..., 0] = value
    found = scoring(score_of="channels", standardise=standardise)(params_of(), maps)
    assert np.isfinite(found.image).all() and np.isfinite(found.map).all()
    if standardise == "image":  # it says nothing: rounding is not blown up
        params = params_of()
        errors = all_errors(maps_of(3), params, "image")
        for name in maps:
            for each in errors:
                each[name] = each[name][..., 1:] if name == "fine" else each[name]
        expected = [sum(SCORES["channels"](each[name]) for name in maps) for each in errors]
        np.testing.assert_allclose(found.image, expected, **CLOSE)


@cache
def fitting(**fields):
    method = method_of(**fields)
    return jax.jit(method.init), jax.jit(method.update), method.finish


@pytest.mark.slow
def test_training_measures_its_channels():
    """Moments of the first batch; errors of standardised maps; units from both."""
    init, update, finish = fitting(standardise="training", weight_channels=True)
    maps = {"coarse": maps_of(6)["coarse"]}
    begun = init(KEY, maps)
    state, info = update(KEY, begun, maps)
    params = finish(KEY, state)
    for name, each in maps.items():
        exact = each.astype(np.float64)
        np.testing.assert_allclose(begun[name].training.mean, exact.mean((0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(begun[name].training.std, exact.std((0, 1, 2)), rtol=1e-5)
        ready = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
        errors = [errors_of(one, begun[name].learned.dictionary) for one in ready]
        mean = np.mean(errors, axis=(0, 1, 2))
        np.testing.assert_allclose(params[name].unit, mean, rtol=1e-4)  # float32 sums
        np.testing.assert_allclose(info[f"error_{name}"], mean.mean(), rtol=1e-4)
        np.testing.assert_array_equal(params[name].training.mean, begun[name].training.mean)
        np.testing.assert_array_equal(params[name].dictionary, state[name].learned.dictionary)
    for _ in range(3):  # later batches do not change the moments
        state, later = update(KEY, state, {"coarse": 2.0 * maps["coarse"] - 0.5})
    np.testing.assert_array_equal(state["coarse"].training.mean, begun["coarse"].training.mean)
    assert later["error_coarse"] > info["error_coarse"]  # and are measured by the first


def learned(errors, weight: float) -> dict[str, Fitting]:
    channels = len(errors)
    nothing = jnp.zeros((ATOMS, SIZE, SIZE, channels))
    pairs = jnp.zeros((ATOMS, ATOMS, channels))
    errors = jnp.float32(errors)
    model = Statistics(nothing, pairs, nothing, errors, jnp.float32(weight), jnp.int32(1))
    return {"fine": Fitting(MeanStd(errors, errors), model)}


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([2.0, 8.0, 4.0], [0.5, 2.0, 1.0]),
        ([4000.0, 1.0, 0.0], [1000.0, 1.0, 1.0]),  # a small one: 1e-3 of the largest; none: 1
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    ],
)
def test_units_of_channels(errors, expected):
    state = learned(errors, weight=4.0)
    found = method_of(weight_channels=True).finish(KEY, state)["fine"].unit
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = method_of(weight_channels=False).finish(KEY, state)["fine"].unit
    np.testing.assert_array_equal(plain, np.ones(3))


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    places = np.mgrid[: image.shape[0], : image.shape[1]]
    return (places * image).sum((1, 2)) / image.sum()


BORDER = 4  # of 48 and of 24 positions: 4 and 8 pixels


def bordered(images):
    found = {"fine": images, "coarse": images[:, ::2, ::2]}
    return {name: each[:, BORDER:-BORDER, BORDER:-BORDER] for name, each in found.items()}


def test_the_map_is_put_back_behind_its_border():
    """A flat atom codes all but a defect; the map has it where it is, in every layer."""
    images = np.full((2, 48, 48, 1), 0.5, np.float32)
    noise = np.random.default_rng(0).uniform(size=(4, 4, 1))
    images[0, 16:20, 26:30] = images[1, 30:34, 14:18] = noise
    truth = [[17.5, 27.5], [31.5, 15.5]]
    atoms = np.zeros((ATOMS, SIZE, SIZE, 1), np.float32)
    atoms[0] = 1.0 / SIZE
    one = jnp.ones(1)
    fitted = Fitted(MeanStd(jnp.zeros(1), one), jnp.asarray(atoms), one)
    params = {"fine": fitted, "coarse": fitted}
    features = Features(bordered, "bordered", BORDER)
    method = method_of(features, (48, 48, 1), stride=1)
    maps = bordered(images)
    explained = explaining(method)(params, maps)
    total = sum(each.map for each in explained.values())
    assert total.shape == (2, 48, 48)
    for each in (total, *(each.map for each in explained.values())):
        for n in range(2):
            found = np.asarray(each[n])
            # Patches reach over the defect; a grid of every other pixel is half a pixel off.
            assert np.abs(centre_of_mass(found) - truth[n]).max() < 2.0
    # Were the border forgotten, the map would be off:
    forgotten = method_of(Features(bordered, "bordered"), (48, 48, 1), stride=1)
    wrong = explaining(forgotten)(params, maps)["coarse"].map
    assert np.abs(centre_of_mass(np.asarray(wrong[0])) - truth[0]).max() > 2.0


def test_channels_explain_the_score():
    maps, params = maps_of(3), params_of()
    method = method_of(score_of="channels", standardise="image")
    explained = explaining(method)(params, maps)
    scores = scoring(score_of="channels", standardise="image")(params, maps)
    total = sum(each.channels.sum(-1) for each in explained.values())
    np.testing.assert_allclose(total, scores.image, rtol=1e-5)  # another order of float32 sums
    np.testing.assert_allclose(
        sum(each.map for each in explained.values()), scores.map, rtol=1e-4, atol=1e-5
    )
    errors = all_errors(maps, params, "image")
    for name, each in explained.items():
        assert each.channels.shape == (3, CHANNELS[name])
        flat = [one[name].reshape(-1, CHANNELS[name]) for one in errors]
        np.testing.assert_allclose(each.channels, [largest(one, 0) for one in flat], **CLOSE)
        np.testing.assert_allclose(each.errors, [one.sum(-1) for one in flat], **CLOSE)


@pytest.mark.parametrize("standardise", ["training", "image"])
def test_one_layer_of_positions_has_a_grid(standardise):
    """Its errors are summed over channels, and pooled they are the score."""
    features = Features(lambda images: {"fine": by_hand(images)["fine"]}, "fine")
    method = method_of(features, score_of="positions", standardise=standardise)
    maps, params = {"fine": maps_of(2)["fine"]}, {"fine": params_of()["fine"]}
    errors, _ = batched(method.grid.errors)(params, maps)
    expected = [
        errors_of(standardised(one, params["fine"], standardise), params["fine"].dictionary)
        / np.asarray(params["fine"].unit)
        for one in maps["fine"]
    ]
    np.testing.assert_allclose(errors["fine"], np.sum(expected, -1), **CLOSE)
    scores = batched(method.score)(params, maps)
    np.testing.assert_allclose(
        scores.image, [largest(one.sum(-1).ravel(), 0) for one in expected], **CLOSE
    )
    assert method_of(features, score_of="channels").grid is None
    assert method_of(score_of="all_patches").grid is None


@pytest.mark.slow
def test_several_layers_of_positions_have_a_grid():
    """Scores are as those of the detector: sums over layers of pooled errors, and of their maps."""
    method, params = method_of(score_of="positions"), params_of()
    maps = {name: jnp.asarray(layer[0]) for name, layer in maps_of(1).items()}
    errors, _ = method.grid.errors(params, maps)
    scores = method.score(params, maps)
    assert errors.keys() == maps.keys()
    np.testing.assert_allclose(method.grid.pool(errors), scores.image, **CLOSE)
    np.testing.assert_allclose(method.grid.to_map(errors), scores.map, **CLOSE)
    expected = sum(largest(np.asarray(layer).ravel(), 0) for layer in errors.values())
    np.testing.assert_allclose(scores.image, expected, **CLOSE)


@pytest.mark.slow
def test_gaps_are_reported_where_they_are_known():
    maps, params = maps_of(2), params_of()
    options = MlfSc(ChannelPatches(SIZE, STRIDE), ChannelLasso(penalty=0.1), ATOMS)
    info = batched(options.build(HAND_MADE, (SIDE, SIDE, 1)).score)(params, maps).info
    assert info.largest.keys() == {"gap"} and info.mean.keys() >= {"converged", "score_fine"}
    assert (info.mean["converged"] == 1.0).all()
    assert (info.largest["gap"] <= options.coder.tolerance).all()
    assert not scoring(score_of="channels")(params, maps).info.largest
