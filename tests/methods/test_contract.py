"""One contract over every config, and what is particular to the parts of a detector."""

import importlib
import json
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.images import stripes, with_defects
from jax.sharding import AxisType
from ml_collections import ConfigDict

from configs.base import get_config
from sparse_ad import devices, methods, stages
from sparse_ad.data.decode import CHANNELS
from sparse_ad.errors import UserError
from sparse_ad.features import backbones, pyramid
from sparse_ad.features.backbones.resnet18 import ResNet18
from sparse_ad.features.backbones.vgg16 import VGG16
from sparse_ad.methods.sparse_coding import sparse_coding
from sparse_ad.normalisation import SCALES
from sparse_ad.types import Scores

FOLDER = Path(__file__).parents[2] / "configs"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
CONFIGS = sorted(
    f"{name}:{variant}" if variant else name
    for name in MODULES
    for variant in getattr(importlib.import_module(f"configs.{name}"), "VARIANTS", ("",))
)
KEY = jax.random.key(0)

PATCHES = {  # small enough for a test; more slots than atoms, so that there is one path to compile
    "patch_size": 6,
    "stride": 3,
    "atoms": 12,
    "chunk": 64,
    "max_support": 64,
    "patches_per_image": 32,
    "minibatch": 64,
}
CHANNELWISE = {"patch_size": 3, "stride": 1, "atoms": 2}
EXEMPLARS = {"atoms": 24}  # of 128 patches: the dictionary fills up
WHOLE = {"tile": ()}
SMALL = {  # what makes each config small: a new config or variant needs a line here
    "ae_bce:driver": {},
    "ae_bce:ham10000": {},
    "ae_bce:ham10000_lesion": {},
    "ae_l2:elpv": {"tile": (16, 16)},
    "ae_l2:generated": {"tile": (16, 16)},
    "ae_l2:magnetic_tile": {"tile": (16, 16)},
    "ae_ssim:elpv": WHOLE,
    "ae_ssim:generated": WHOLE,
    "ae_ssim:magnetic_tile": WHOLE,
    "anogan:elpv": {},
    "anogan:generated": {},
    "anogan:magnetic_tile": {},
    "base": PATCHES,
    "cae:driver": {},
    "cae:ham10000": {},
    "cae:ham10000_lesion": {},
    "cae_sparse:driver": {},
    "cae_sparse:ham10000": {},
    "cae_sparse:ham10000_lesion": {},
    "entropy": {},
    "mean_colour": {},
    "mlf_sc:as_described": CHANNELWISE | {"stride": 2, "nonzeros": 1},
    "mlf_sc:improved": EXEMPLARS,
    "mlf_sc:improved_efficientnet": EXEMPLARS,
    "mlf_sc:improved_resnet18": EXEMPLARS,
    "mlf_sc:published_code": CHANNELWISE | {"nonzeros": 1},
    "pca": {"side": 24, "components": 6},
    "pooled_features:ham10000": {},
    "pooled_features:ham10000_conv1": {},
    "quickstart": EXEMPLARS,
    "sparse_maps:lista": {},
    "sparse_maps:spatial": {},
    "sparse_patches": PATCHES,
    "vae:driver": {},
    "vae:ham10000": {},
    "vae:ham10000_lesion": {},
}
FEATURES = {  # the same for the features, where these need it; each layer costs a compilation
    "mlf_sc:as_described": {"layers": ("conv3_3",)},
    "mlf_sc:published_code": {"layers": ("conv2_2", "conv3_3"), "shrink": (4, 2), "crop": 1},
    "mlf_sc:improved": {"crop": 0},  # maps are 4 x 4
    "mlf_sc:improved_efficientnet": {"layers": ("stage3",), "crop": 0},
    "mlf_sc:improved_resnet18": {"crop": 0},
    "pooled_features:ham10000": {"layers": ("conv1", "layer1")},
    "quickstart": {"crop": 0},
}
DRAW_NOTHING = ("exemplar_coding", "entropy", "mean_colour", "pca", "pooled_features")
ORDERLESS = ("entropy", "mean_colour")  # they see no shapes
NETS = {  # networks that are trained, by method: thin, at a rate at which few steps do
    "reconstruction": {"widths": (8, 16), "kernels": (4, 4), "strides": (2, 2), "latent": 16},
    "anogan": {"widths": (8, 16), "latent": 4, "at_a_time": 4}
    | {"search_steps": 30, "search_rate": 0.1, "search_starts": 4},
}
SPATIAL, LISTA = {"latent": 4}, {"widths": (16,), "kernels": (8,), "strides": (4,)}
NET_FIELDS = {  # further ones of a config
    "sparse_maps:lista": LISTA,
    "sparse_maps:spatial": SPATIAL,
}
RATES = {"reconstruction": 5e-3, "anogan": 2e-3}
STEPS, NET_STEPS = 6, 300  # of fitting; a network sees other images at each
SIZE, DEEP, POWER = 24, 64, 32  # of images; for networks; for anogan, which wants powers of two
THIN = {  # cheap networks of the same make
    "vgg16": partial(VGG16, widths=(4, 5, 6, 7, 8)),
    "resnet18": partial(ResNet18, widths=(4, 5, 6)),
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def test_every_config_is_covered():
    assert sorted(SMALL) == CONFIGS
    assert FEATURES.keys() <= SMALL.keys()


@cache
def small(name: str, **fields) -> ConfigDict:
    module, _, variant = name.partition(":")
    get = importlib.import_module(f"configs.{module}").get_config
    config = get(variant) if variant else get()
    config.features.update(FEATURES.get(name, {}))
    size = SIZE if config.features.backbone == "pixels" else DEEP
    size = POWER if config.method.name == "anogan" else size
    config.data.size = (size, size)
    config.method.update({**SMALL[name], **fields})
    if config.method.name == "pca":
        config.data.color = "grey"  # a ninth of the covariance
    if config.method.name in NETS:
        config.net.update(NETS[config.method.name] | NET_FIELDS.get(name, {}))
        config.fit.learning_rate = RATES[config.method.name]
        config.data.color = "grey"
        config.net.penalty = 1e-3  # what differs in nothing else shares a fit
    return config


def random_weights(name: str, path: str):
    """Weights of the network of that name, of which none is zero, the same each time."""
    module = backbones.BACKBONES[name].module(tuple(backbones.BACKBONES[name].layers))
    like = jax.eval_shape(module.init, KEY, np.zeros((1, DEEP, DEEP, 3), np.float32))["params"]
    rng = np.random.default_rng(1)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) == 4 else 0.1
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    mean, deviation = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    return SimpleNamespace(
        params=jax.tree.map(draw, like), mean=mean, deviation=deviation, sha256="random"
    )


def build(config):
    """Returns the detector, on a thin network whose weights are random."""
    thin = {
        name: backbones.BACKBONES[name]._replace(module=module) for name, module in THIN.items()
    }
    with (
        mock.patch.dict(backbones.BACKBONES, thin),
        mock.patch.object(pyramid, "load_weights", random_weights),
    ):
        return methods.build(config)


class Fit(SimpleNamespace):
    """A detector fitted to stripes: method, state, info, params, channels, size."""

    def images(self, seed: int, count: int = 8) -> np.ndarray:
        return stripes(count, seed, self.channels, self.size)

    def look(self, images):
        """The maps of images, on no device."""
        return jax.device_get(self.method.features.extract(images))

    def score(self, images) -> Scores:
        return self.scoring(self.params, self.look(images))


@cache
def fitted_to(fields: str, channels: int) -> Fit:
    """Equal configs share one fit."""
    config = ConfigDict(json.loads(fields))
    method = build(config)
    fit = Fit(method=method, channels=channels, size=config.data.size[0])
    maps = fit.look(fit.images(0))
    fit.state = jax.jit(method.init)(KEY, maps)
    fit.update = jax.jit(method.update)
    net = config.method.name in NETS
    for step in range(NET_STEPS if net else STEPS):
        maps = fit.look(fit.images(100 + step)) if net else maps
        fit.state, fit.info = fit.update(jax.random.fold_in(KEY, step), fit.state, maps)
    fit.params = jax.jit(method.finish)(KEY, fit.state)
    fit.scoring = jax.jit(method.score)
    return fit


def fitted(name: str, channels: int = 0, **fields) -> Fit:
    config = small(name, **fields)
    used = {section: config[section].to_dict() for section in ("features", "method", "net")}
    used["fit"] = {name: config.fit[name] for name in ("learning_rate", "weight_decay")}
    used["data"] = {"size": config.data.size, "color": config.data.color}
    return fitted_to(json.dumps(used), channels or CHANNELS[config.data.color])


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@EACH
def test_types(name):
    fit = fitted(name)
    scores = fit.score(fit.images(1))
    assert isinstance(scores, Scores)
    assert scores.image.shape == (8,)
    assert scores.map.shape == (8, fit.size, fit.size)  # the resolution of the images
    assert all(value.shape == (8,) for value in scores.info.values())
    assert all(value.shape == () for value in fit.info.values())
    for leaf in jax.tree.leaves((fit.state, fit.info, fit.params, scores)):
        assert np.isfinite(leaf).all()
        assert leaf.dtype in (jnp.float32, jnp.int32)


@EACH
def test_state_keeps_its_shape(name):
    """Else it could not be restored, nor fitting be streamed."""
    fit = fitted(name)
    shape = jax.ShapeDtypeStruct((8, fit.size, fit.size, fit.channels), jnp.float32)
    maps = jax.eval_shape(fit.method.features.extract, shape)
    first = jax.eval_shape(fit.method.init, KEY, maps)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), first) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), fit.state
    )


@EACH
def test_fit_is_deterministic_and_follows_its_key(name):
    """But where nothing is drawn."""
    fit = fitted(name)
    maps = fit.look(fit.images(0))
    same, _ = fit.update(KEY, fit.state, maps)
    assert_same_bits(fit.update(KEY, fit.state, maps)[0], same)
    if small(name).method.name in DRAW_NOTHING:
        return
    begun, other = (jax.jit(fit.method.init)(key, maps) for key in (KEY, jax.random.key(9)))
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(begun), jax.tree.leaves(other), strict=True)
    )


@EACH
def test_score_does_not_see_other_images(name):
    fit = fitted(name)
    images, others = fit.images(1), fit.images(2)
    mixed = np.concatenate([images[:3], others[3:]])
    plain = fit.score(images)
    expected = jax.tree.map(lambda leaf: leaf[:3], plain)
    assert_same_bits(jax.tree.map(lambda leaf: leaf[:3], fit.score(mixed)), expected)
    assert_same_bits(fit.score(images[::-1]).image, plain.image[::-1])


@EACH
def test_batch_of_one_is_batch_of_eight(name):
    fit = fitted(name)
    maps = fit.look(fit.images(1))
    together = fit.scoring(fit.params, maps)
    for place in (0, 5):
        one = lambda tree, at=place: jax.tree.map(lambda leaf: leaf[at : at + 1], tree)  # noqa: E731
        assert_same_bits(fit.scoring(fit.params, one(maps)), one(together))


@EACH
def test_eight_devices_score_as_one(name):
    fit = fitted(name)
    assert devices.mesh().size == 8
    images = fit.images(1)  # one each
    fit.spread = getattr(fit, "spread", None) or stages.scoring(fit.method)
    apart = fit.spread(devices.replicate(fit.params), images)
    assert len(apart.image.sharding.device_set) == 8
    if small(name).method.name != "exemplar_coding":
        assert_same_bits(apart, fit.score(images))
        return
    # Compiled for eight devices, the steps of its pursuit round their last bit otherwise.
    for leaf, other in zip(jax.tree.leaves(apart), jax.tree.leaves(fit.score(images)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-6, atol=1e-6)


@EACH
def test_eight_devices_fit_as_one(name, monkeypatch):
    """To the order of float32 sums, which an exact solver does not blow up."""
    fit = fitted(name)
    maps = fit.look(fit.images(3))
    state = jax.device_get(fit.state)
    shared = fit.update(KEY, devices.replicate(state), devices.spread(maps))
    alone = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.local_devices()[:1])
    monkeypatch.setattr(devices, "mesh", lambda: alone)
    fit.alone = getattr(fit, "alone", None) or jax.jit(lambda *batch: fit.method.update(*batch))
    by_one = fit.alone(KEY, state, maps)
    for leaf, other in zip(jax.tree.leaves(shared), jax.tree.leaves(by_one), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-3)


@EACH
def test_defects_score_higher(name):
    """A bright block, the mean over images: where random weights, a search or a mean tell less."""
    fit = fitted(name)
    normal, third = fit.images(4), fit.size // 3
    good = fit.score(normal)
    if fit.size == SIZE and small(name).method.name not in ORDERLESS:
        bad = fit.score(with_defects(normal))
        assert bad.image.min() > good.image.max()
        inside = bad.map[:, 10:14, 10:14].mean((1, 2))
        outside = bad.map[:, :3].mean((1, 2))
        assert (inside > 2.0 * outside).all()
    else:
        damaged = normal.copy()
        damaged[:, third : 2 * third, third : 2 * third] = 0.9
        bad = fit.score(damaged)
        assert bad.image.mean() > 1.2 * good.image.mean()
        assert bad.map.mean() > good.map.mean()


@EACH
def test_training_images_are_reconstructed(name):
    fit = fitted(name)
    if fit.method.reconstruct is None:
        pytest.skip("has no reconstruction")
    images = fit.images(0)
    found = jax.jit(fit.method.reconstruct)(fit.params, fit.look(images))
    assert found.shape == images.shape
    near = 0.4 if small(name).method.name == "anogan" else 0.1  # a search comes near, no more
    assert np.mean((found - images) ** 2) < near * images.var()
    shifted = np.mean((found - np.roll(images, 1, axis=1)) ** 2)
    assert shifted > 0.3 * images.var()  # and it is these images, not any


@EACH
def test_atoms_are_images(name):
    fit = fitted(name)
    if fit.method.atoms is None:
        pytest.skip("has no atoms")
    found = fit.method.atoms(fit.params)
    size, count, depth = SMALL[name]["patch_size"], SMALL[name]["atoms"], fit.channels
    if small(name).method.name == "mlf_sc":  # one image for each atom of each channel
        channels = [each.shape[-1] for each in fit.look(fit.images(0)).values()]
        count, depth = count * sum(channels), 1
    assert found.shape == (count, size, size, depth)
    lengths = jnp.linalg.norm(found.reshape(count, -1), axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)  # float32 square roots


@EACH
def test_layers_explain_the_score(name):
    fit = fitted(name)
    if fit.method.explain is None:
        pytest.skip("explains nothing")
    maps = fit.look(fit.images(1))
    explained, scores = jax.jit(fit.method.explain)(fit.params, maps), fit.score(fit.images(1))
    assert explained.keys() == maps.keys()
    total = sum(each.map for each in explained.values())
    np.testing.assert_allclose(total, scores.map, rtol=1e-4)  # another order of float32 sums
    for layer, each in explained.items():
        assert each.channels.shape == (8, maps[layer].shape[-1])
        assert each.errors.shape[0] == 8 and (each.errors >= 0).all()


def test_rgb():
    fit = fitted("sparse_patches", channels=3)
    images = fit.images(4)
    scores = fit.score(images)
    assert scores.map.shape == (8, SIZE, SIZE)
    assert fit.score(with_defects(images)).image.min() > scores.image.max()
    atoms = fit.method.atoms(fit.params)
    assert atoms.shape == (12, 6, 6, 3)
    np.testing.assert_allclose(jnp.linalg.norm(atoms.reshape(12, -1), axis=1), 1.0, rtol=1e-5)


# The default, and one that normalises each patch; the others cost a fit each.
SCALES_BY_COST = [
    pytest.param(scale, marks=() if scale in ("global", "patch") else pytest.mark.slow)
    for scale in SCALES
]


@pytest.mark.parametrize("scale", SCALES_BY_COST)
def test_scales(scale):
    """What each does to brightness and contrast; a penalty suits unit deviation, or the pixels'."""
    penalty = 0.2 if scale == "none" else 1.0
    fit = fitted("sparse_patches", scale=scale, penalty=penalty)
    images = fit.images(4)
    plain = fit.score(images).image
    assert fit.score(with_defects(images)).image.min() > plain.max()
    brighter = fit.score(images + 0.1).image  # the patch mean is removed
    np.testing.assert_allclose(brighter, plain, rtol=1e-2)
    stronger = fit.score(2.0 * images).image
    if scale in ("image", "patch"):  # contrast is divided out
        np.testing.assert_allclose(stronger, plain, rtol=1e-2)
    else:
        assert (stronger > 1.02 * plain).all()
    found = jax.jit(fit.method.reconstruct)(fit.params, fit.look(images))
    assert np.mean((found - images) ** 2) < 0.2 * images.var()


def test_flat_image_is_no_anomaly():
    """Not even with contrast normalisation, which would blow up its noise."""
    fit = fitted("sparse_patches", scale="patch")
    flat = np.full((1, SIZE, SIZE, 1), 0.5, np.float32)
    assert fit.score(flat).image[0] < fit.score(fit.images(4)).image.min()


def test_two_groups_are_two_models():
    config = small("sparse_patches", solver="fista", tolerance=1e-6).method  # quick to compile
    model = sparse_coding(config)
    vectors = np.random.default_rng(0).normal(size=(128, 2, 36)).astype(np.float32)
    vectors = vectors @ np.random.default_rng(1).normal(size=(36, 36)).astype(np.float32) / 3.0
    state = jax.jit(model.init)(KEY, vectors)
    assert (state.dictionary[0] != state.dictionary[1]).any()
    both, info = jax.jit(model.update)(KEY, state, vectors)
    assert info["replaced"] == 0.0  # the only thing that draws at random
    params = model.finish(KEY, both)
    errors, _ = jax.jit(model.errors)(params, vectors)
    assert errors.shape == (128, 2)
    update_one, errors_one = jax.jit(model.update), jax.jit(model.errors)
    for group in range(2):
        one = lambda tree, at=group: jax.tree.map(lambda leaf: leaf[at : at + 1], tree)  # noqa: E731
        mine = vectors[:, group : group + 1]
        alone, _ = update_one(KEY, one(state), mine)
        # To the order of float32 sums: products with a group axis are computed differently.
        np.testing.assert_allclose(alone.dictionary, one(both).dictionary, atol=1e-3)
        found, _ = errors_one(one(params), mine)
        np.testing.assert_allclose(found, errors[:, group : group + 1], rtol=1e-3)
    reconstructed = jax.jit(model.reconstruct)(params, vectors)
    residual = ((vectors - reconstructed) ** 2).sum(-1)
    np.testing.assert_allclose(residual, errors, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("sparse_coding", "method.name", "sparse_codign"),
        ("sparse_coding", "method.scale", "local"),
        ("sparse_coding", "method.stride", 0),
        ("sparse_coding", "method.patch_size", 0),
        ("sparse_coding", "method.patches_per_image", -1),
        ("sparse_coding", "method.atoms", 0),
        ("sparse_coding", "method.minibatch", 0),
        ("sparse_coding", "method.penalty", -1.0),
        ("sparse_coding", "method.pooling", "mean"),
        ("exemplar_coding", "method.atoms", 0),
        ("exemplar_coding", "method.nonzeros", 201),
        ("exemplar_coding", "method.whitening", -0.1),
        ("mlf_sc", "method.standardise", "batch"),
        ("mlf_sc", "method.score_of", "layers"),
        ("mlf_sc", "method.dictionary_axis", "row"),
        ("mlf_sc", "method.solver", "homotopy"),
        ("mlf_sc", "method.nonzeros", 0),
        ("mlf_sc", "method.patch_size", 0),
        ("mlf_sc", "method.top", 0),
        ("mlf_sc", "features.backbone", "vgg19"),
        ("mlf_sc", "features.crop", -1),
        ("mlf_sc", "features.smooth", 0),
        ("mlf_sc", "features.power", 0.0),
        ("mlf_sc", "features.at_a_time", 0),
        ("mlf_sc", "features.cache_gb", -1.0),
    ],
)
def test_bad_fields_are_named(method, field, value):
    config = get_config()
    config.method.name = method
    config.method.solver = "omp" if method == "mlf_sc" else "homotopy"
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(UserError, match=rf"{section}\.{name} = .*{value}"):
        methods.build(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", ("conv9_9",)),
        ("layers", ()),
        ("shrink", (1, 2)),
        ("power", 0.5),  # of a layer before its ReLU
        ("dtype", "float16"),
    ],
)
def test_bad_fields_of_a_network_are_named(field, value):
    config = get_config()
    config.features.update({"backbone": "vgg16", "layers": ("conv2_2",), field: value})
    with pytest.raises(UserError, match=rf"features\.{field} = "):
        build(config)
