"""From images to maps: each step against numpy, on a thin network with random weights."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.errors import FieldError
from sparse_ad.features import FEATURES, backbones, pyramid
from sparse_ad.features.backbones.vgg16 import VGG16
from sparse_ad.features.pyramid import Network, Pixels
from sparse_ad.features.weights import Weights
from sparse_ad.options import comments, read, section
from sparse_ad.types import PIXELS

SIDE = 16
thin = partial(VGG16, widths=(4, 5, 6, 7, 8))
FIELDS = {"backbone": "vgg16", "layers": ("relu1_2", "relu2_2")}


@cache
def weights(name: str = "vgg16", path: str = ""):
    """None is zero, and they are the same each time."""
    shape = np.zeros((1, SIDE, SIDE, 3), np.float32)
    like = jax.eval_shape(thin(("relu5_3",)).init, jax.random.key(0), shape)["params"]
    rng = np.random.default_rng(1)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) == 4 else 0.1
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
    return Weights(jax.tree.map(draw, like), mean, std, "random")


@pytest.fixture(autouse=True)
def thin_network(monkeypatch, tmp_path):
    known = backbones.BACKBONES["vgg16"]._replace(module=thin)
    monkeypatch.setitem(backbones.BACKBONES, "vgg16", known)
    monkeypatch.setattr(pyramid, "load_weights", lambda name, path: weights(name))
    monkeypatch.setattr(pyramid, "cache_dir", lambda: tmp_path)


def options_of(**fields) -> Network:
    return Network(**{**FIELDS, **fields})


def frozen() -> pyramid.Frozen:
    return pyramid.Frozen(weights().params, weights().mean, weights().std)


def images_of(count: int = 3, channels: int = 3, side: int = SIDE) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def maps_of(images: np.ndarray, **fields) -> dict[str, np.ndarray]:
    extract = jax.jit(partial(pyramid.extract_maps, options_of(**fields)))
    return jax.device_get(extract(frozen(), images))


@cache
def plain(shrink: int = 1) -> dict[str, np.ndarray]:
    """The network's own answer, of images shrunk by hand: all of a batch at once."""
    images = images_of()
    side = SIDE // shrink
    blocks = images.reshape(len(images), side, shrink, side, shrink, 3)
    ready = (blocks.max((2, 4)) - weights().mean) / weights().std
    network = thin(FIELDS["layers"])
    found = jax.jit(network.apply)({"params": weights().params}, ready.astype(np.float32))
    return {name: np.asarray(each) for name, each in found.items()}


def smoothed(maps: np.ndarray, side: int) -> np.ndarray:
    """The mean over what there is of a window; an even one reaches further down and right."""
    before, after = (side - 1) // 2, side // 2
    found = np.zeros(maps.shape)
    for row, column in np.ndindex(maps.shape[1:3]):
        rows = slice(max(row - before, 0), row + after + 1)
        columns = slice(max(column - before, 0), column + after + 1)
        found[:, row, column] = maps[:, rows, columns].astype(np.float64).mean((1, 2))
    return found


# One image at a time against all at once: convolutions sum in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_layers_are_those_of_the_network():
    found = maps_of(images_of())
    assert list(found) == ["relu1_2", "relu2_2"]
    assert found["relu1_2"].shape == (3, 16, 16, 4) and found["relu2_2"].shape == (3, 8, 8, 5)
    for name, each in found.items():
        np.testing.assert_allclose(each, plain()[name], **CLOSE)
        assert each.max() > 0.1  # there is something to compare


def test_shrunk_images_are_max_pooled():
    """Each layer sees its own scale; the maps come in the order of the layers."""
    found = maps_of(images_of(), shrink=(2, 1))
    assert list(found) == ["relu1_2", "relu2_2"]
    assert found["relu1_2"].shape == (3, 8, 8, 4)
    np.testing.assert_allclose(found["relu1_2"], plain(2)["relu1_2"], **CLOSE)
    np.testing.assert_allclose(found["relu2_2"], plain()["relu2_2"], **CLOSE)


def test_a_layer_at_two_scales():
    """Each scale has a name of its own, and is what a network sees of an image of that size."""
    images = images_of()
    found = maps_of(images, layers=("relu2_2", "relu2_2"), shrink=(1, 2), shrink_by="mean")
    assert list(found) == ["relu2_2_by_1", "relu2_2_by_2"]
    count, height, width, channels = images.shape
    blocks = np.asarray(images).reshape(count, height // 2, 2, width // 2, 2, channels)
    half = maps_of(blocks.mean((2, 4)), layers=("relu2_2",))
    np.testing.assert_allclose(found["relu2_2_by_1"], plain()["relu2_2"], **CLOSE)
    np.testing.assert_allclose(found["relu2_2_by_2"], half["relu2_2"], **CLOSE)


def test_power_smooth_and_crop_in_this_order():
    found = maps_of(images_of(), power=0.5, smooth=3, crop=2)
    for name, each in found.items():
        expected = smoothed(plain()[name] ** 0.5, 3)[:, 2:-2, 2:-2]
        # The root of a value near 0 makes more of its rounding: 1e-6 becomes 1e-3.
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-3)
        assert np.abs(smoothed(plain()[name], 3)[:, 2:-2, 2:-2] ** 0.5 - expected).max() > 1e-2


def test_maps_are_standardised_last():
    """Each channel of each image by itself, over what the crop leaves."""
    fields = {"power": 0.5, "smooth": 3, "crop": 1}
    plain, found = maps_of(images_of(), **fields), maps_of(images_of(), **fields, standardise=True)
    for name, each in found.items():
        np.testing.assert_allclose(each.mean((1, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(each.std((1, 2)), 1.0, rtol=1e-4)
        mean, std = (getattr(plain[name], part)((1, 2), keepdims=True) for part in ("mean", "std"))
        np.testing.assert_allclose(each, (plain[name] - mean) / std, rtol=1e-4, atol=1e-4)


def test_standardised_maps_of_flat_images_are_finite():
    flat = np.full((1, SIDE, SIDE, 3), 0.5, np.float32)
    for fields in ({}, {"power": 0.5, "smooth": 3}, {"crop": 5, "layers": ("relu1_2",)}):
        for each in maps_of(flat, **fields, standardise=True).values():
            assert np.isfinite(each).all()


def test_standardised_layers_are_fused_at_equal_weight():
    found = maps_of(images_of(), fuse=True, standardise=True)["relu1_2+relu2_2"]
    np.testing.assert_allclose(found[..., :4].std((1, 2)), 1.0, rtol=1e-4)
    alone = maps_of(images_of(), standardise=True)["relu1_2"]
    np.testing.assert_array_equal(found[..., :4], alone)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_mean_filter(side):
    maps = np.random.default_rng(2).normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = pyramid.mean_filter(jnp.asarray(maps), side)
    np.testing.assert_allclose(found, smoothed(maps, side), atol=1e-6)  # 25 terms about 1
    flat = pyramid.mean_filter(jnp.ones((1, 4, 4, 1)), side)
    np.testing.assert_allclose(flat, 1.0, rtol=1e-6)  # at the border, too


def test_fused_layers_are_on_the_grid_of_the_first():
    layers = ("relu2_2", "relu1_2")
    found = maps_of(images_of(), layers=layers, fuse=True)
    assert list(found) == ["relu2_2+relu1_2"]
    fused = found["relu2_2+relu1_2"]
    assert fused.shape == (3, 8, 8, 9)
    np.testing.assert_allclose(fused[..., :5], plain()["relu2_2"], **CLOSE)
    finer = plain()["relu1_2"]
    expected = jax.image.resize(finer, (3, 8, 8, 4), "linear")
    np.testing.assert_allclose(fused[..., 5:], expected, **CLOSE)
    # Linear, with an antialias: two positions to one are a mean over 4, by 1 3 3 1.
    weight = np.float64([1, 3, 3, 1]) / 8
    inner = np.einsum("nabc,a,b->nc", finer[:, 3:7, 5:9], weight, weight)
    np.testing.assert_allclose(fused[:, 2, 3, 5:], inner, **CLOSE)


def test_crop_and_fuse():
    """Each layer loses its own border before it is resized."""
    found = maps_of(images_of(), crop=1, fuse=True)["relu1_2+relu2_2"]
    assert found.shape == (3, 14, 14, 9)
    np.testing.assert_allclose(found[..., :4], plain()["relu1_2"][:, 1:-1, 1:-1], **CLOSE)
    expected = jax.image.resize(plain()["relu2_2"][:, 1:-1, 1:-1], (3, 14, 14, 5), "linear")
    np.testing.assert_allclose(found[..., 4:], expected, **CLOSE)


def test_grey_is_the_same_image_in_rgb():
    grey = images_of(channels=1)
    fields = {"layers": ("relu1_1",)}
    found, expected = maps_of(grey, **fields), maps_of(np.repeat(grey, 3, axis=-1), **fields)
    np.testing.assert_array_equal(found["relu1_1"], expected["relu1_1"])


def test_features_are_extracted_on_every_device():
    found = options_of(layers=("relu1_1",), crop=2).build((SIDE, SIDE))
    assert found.border == 2
    images = images_of(8)
    maps = found.extract(images)["relu1_1"]
    assert len(maps.sharding.device_set) == 8
    expected = maps_of(images, layers=("relu1_1",), crop=2)["relu1_1"]
    np.testing.assert_array_equal(maps, expected)


def test_pixels_are_images():
    found = Pixels().build((SIDE, SIDE))
    assert found is PIXELS and found.raw
    images = images_of()
    assert found.extract(images)["pixels"] is images


def identity(**fields) -> str:
    return options_of(**fields).build((32, 32)).identity


MATTERS = {
    "backbone": ("vgg16", "resnet18"),
    "layers": (("relu1_2", "relu2_2"), ("relu2_2", "relu1_2")),
    "shrink": ((), (2, 1)),
    "shrink_by": ("max", "mean"),
    "power": (1.0, 0.5),
    "smooth": (1, 3),
    "crop": (0, 1),
    "standardise": (False, True),
    "fuse": (False, True),
    "dtype": ("float32", "bfloat16"),
    "batch_size": (1, 2),  # changes the rounding
}


@pytest.mark.parametrize("field", [field for field in MATTERS if field != "backbone"])
def test_what_matters_is_in_the_identity(field):
    one, other = MATTERS[field]
    assert identity(**{field: one}) == identity(**{field: one})
    assert identity(**{field: one}) != identity(**{field: other})


def test_weights_are_in_the_identity_but_not_where_they_lie(monkeypatch):
    expected = identity()
    assert identity(weights="elsewhere.npz") == expected
    assert identity(cache_gb=1.0) == expected
    changed = weights()._replace(sha256="another")
    monkeypatch.setattr(pyramid, "load_weights", lambda name, path: changed)
    assert identity() != expected
    # Whoever adds a field says here that it matters.
    fields = {field.name for field in dataclasses.fields(Network)}
    assert fields - set(pyramid.IMMATERIAL) == MATTERS.keys()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_number_of_images_has_the_bits_of_one(batch_size):
    images = images_of(7, side=8)
    options = options_of(layers=("relu2_2",), smooth=3, batch_size=batch_size)
    extract = jax.jit(partial(pyramid.extract_maps, options))
    alone = [extract(frozen(), image[None])["relu2_2"] for image in images]
    expected = np.concatenate(alone)
    assert expected.max() > 0.1
    for count in (2, 3, 7):
        found = extract(frozen(), images[:count])["relu2_2"]
        np.testing.assert_array_equal(found, expected[:count])
    np.testing.assert_array_equal(extract(frozen(), images[::-1])["relu2_2"], expected[::-1])


BAD = [
    ("backbone", "vgg61"),
    ("layers", ("relu9_9",)),
    ("layers", ()),
    ("layers", ("relu1_2", "relu1_2")),
    ("shrink", (2,)),
    ("shrink_by", "median"),
    ("shrink", (2, 0)),
    ("crop", -1),
    ("smooth", 0),
    ("power", 0.0),
    ("power", float("inf")),
    ("batch_size", 0),
    ("cache_gb", -1.0),
    ("dtype", "float16"),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_fields_out_of_range_are_named(field, value):
    with pytest.raises(FieldError) as error:
        options_of(**{field: value})
    wrong = value[0] if value == ("relu9_9",) else value
    assert (error.value.field, error.value.value) == (field, wrong)


def test_features_are_sections_of_a_config():
    for options in (Pixels(), options_of(power=0.5)):
        assert read(FEATURES, section(options, FEATURES), "features") == options
        assert all(comments(type(options)).values())  # each field says what it means


def test_power_is_for_layers_behind_a_relu():
    layers = ("relu1_2", "conv2_2")
    with pytest.raises(FieldError, match=r"^power = 0\.5: .*ReLU"):
        options_of(power=0.5, layers=layers)
    assert options_of(power=1.0, layers=layers).build((SIDE, SIDE))
    assert options_of(power=0.5, backbone="resnet18", layers=("conv1",))


def test_a_crop_must_leave_something():
    with pytest.raises(FieldError, match=r"^size = .*crop = 4 .*relu2_2.* has 8 positions"):
        options_of(crop=4).build((SIDE, SIDE))
    maps = options_of(crop=3).build((SIDE, SIDE)).extract(images_of(8))
    assert maps["relu2_2"].shape == (8, 2, 2, 5)


ALIKE = [  # shrink, smooth, crop, size, positions of relu2_2
    ((1,), 1, 0, (2, 2), "1 x 1"),
    ((1,), 3, 0, (4, 4), "2 x 2"),
    ((2,), 4, 0, (8, 8), "2 x 2"),
    ((1,), 1, 1, (6, 6), "3 x 3"),
    ((1,), 5, 1, (8, 8), "4 x 4"),
]


@pytest.mark.parametrize(("shrink", "smooth", "crop", "size", "positions"), ALIKE)
def test_standardised_maps_have_positions_that_differ(shrink, smooth, crop, size, positions):
    """Else they are zeros for every image: those of the same maps, as they are, show it."""
    options = options_of(layers=("relu2_2",), shrink=shrink, smooth=smooth, crop=crop)
    maps = options.build(size).extract(images_of(8, side=size[0]))["relu2_2"]
    assert np.ptp(np.asarray(maps), axis=(1, 2)).max() < 1e-6 < np.abs(maps).max()
    standardised = dataclasses.replace(options, standardise=True)
    message = f"layer relu2_2 has {positions} positions, which are alike after features.smooth"
    with pytest.raises(FieldError, match=message) as error:
        standardised.build(size)
    assert (error.value.field, error.value.value) == ("size", size)
    wider = (size[0], size[1] + 2 * shrink[0])
    assert standardised.build(wider)


# shrink, size, pixels that relu4_1 needs, a size that is enough
TOO_SMALL = [((), (7, 64), 8, (8, 64)), ((1, 8), (64, 56), 64, (64, 64))]


@pytest.mark.parametrize(("shrink", "size", "pixels", "enough"), TOO_SMALL)
def test_images_must_be_large_enough(shrink, size, pixels, enough):
    options = options_of(layers=("relu1_2", "relu4_1"), shrink=shrink)
    message = f"layer relu4_1 needs {pixels} x {pixels} pixels"
    with pytest.raises(FieldError, match=message) as error:
        options.build(size)
    assert (error.value.field, error.value.value) == ("size", size)
    assert options.build(enough)


@pytest.mark.parametrize(
    ("options", "stride"),
    [
        (Pixels(), 16),
        (Network("vgg16", layers=("relu5_1",)), 16),
        (Network("vgg16", layers=("conv2_2", "conv3_3", "conv4_3"), shrink=(4, 2, 1)), 8),
        (Network("vgg16", layers=("conv2_2", "conv4_3"), shrink=(3, 1)), 24),
        (Network("resnet18", layers=("layer3", "conv1")), 16),
    ],
)
def test_the_stride_is_that_of_all_layers(options, stride):
    assert options.stride == stride
