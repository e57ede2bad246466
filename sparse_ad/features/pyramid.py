"""From images to what a detector looks at: pixels, or the maps of a frozen network."""

import hashlib
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
from sparse_ad.features.backbones.layers import require_size
from sparse_ad.features.cache import cached
from sparse_ad.features.weights import load_weights
from sparse_ad.system.assets import cache_dir
from sparse_ad.types import PIXELS, Features, Maps

IMMATERIAL = ("weights", "cache_gb")  # the weights' hash says what they are


def features(config, size: tuple[int, int], field: str = "data.size") -> Features:
    """Returns the features that `config` (the `features` section) describes, of images of a size.

    `field` is what gives that size, to be named where it is wrong.

        image -> / shrink -> network -> layer -> ^power -> mean filter -> less its border

    With `fuse`, all layers are brought to the grid of the first and stacked into one map. With
    `cache_gb`, maps are kept on disk between passes and runs: see `features.cache`.

    Errors: UserError that names the field, its value and the choices; for weights, as
    `load_weights`.
    """
    check(config, size, field)
    if config.backbone == PIXELS.identity:
        return PIXELS
    weights = load_weights(config.backbone, config.weights)
    frozen = replicate((weights.params, weights.mean, weights.deviation))
    apart = by_image(partial(extract_maps, plan(config)))
    fields = [f"{name} {config[name]}" for name in sorted(config) if name not in IMMATERIAL]
    identity = f"{weights.sha256} {' '.join(fields)}"
    found = Features(lambda images: apart(frozen, images), identity, config.crop)
    if config.cache_gb == 0:
        return found
    folder = cache_dir() / "features" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cached(found, folder, config.cache_gb * 1e9)


class Plan(NamedTuple):
    """The static part of an extraction."""

    networks: tuple[tuple[int, nn.Module], ...]  # how much the image is shrunk for each
    layers: tuple[str, ...]
    power: float
    smooth: int
    crop: int
    fuse: bool
    at_a_time: int


def plan(config) -> Plan:
    """Returns what is to be computed: one forward pass for each scale of the image."""
    shrink = tuple(config.shrink) or (1,) * len(config.layers)
    networks = []
    for factor in sorted(set(shrink)):
        some = (name for name, each in zip(config.layers, shrink, strict=True) if each == factor)
        networks.append((factor, build_backbone(config.backbone, tuple(some), config.dtype)))
    rest = (config.power, config.smooth, config.crop, config.fuse, config.at_a_time)
    return Plan(tuple(networks), tuple(config.layers), *rest)


def check(config, size: tuple[int, int], field: str) -> None:
    """Raises UserError for a field of the `features` section that is out of range."""
    choices = (PIXELS.identity, *BACKBONES)
    require_choice("features.backbone", config.backbone, choices)
    for name, least in (("crop", 0), ("smooth", 1), ("at_a_time", 1), ("cache_gb", 0)):
        require(config[name] >= least, f"features.{name}", config[name], f"give {least} or more")
    require(config.power > 0, "features.power", config.power, "must be positive")
    if config.backbone == PIXELS.identity:
        return
    build_backbone(config.backbone, tuple(config.layers), config.dtype)
    shrink = tuple(config.shrink)
    remedy = f"give a factor of 1 or more for each of the {len(config.layers)} layers, or none"
    good = len(shrink) in (0, len(config.layers)) and all(factor >= 1 for factor in shrink)
    require(good, "features.shrink", shrink, remedy)
    table = BACKBONES[config.backbone].layers
    for factor, layer in zip(shrink or (1,) * len(config.layers), config.layers, strict=True):
        require_size(tuple(side // factor for side in size), (layer,), table, field)
    signed = any(layer.startswith("conv") for layer in config.layers)
    remedy = "is for layers behind a ReLU: others are negative, too"
    require(config.power == 1.0 or not signed, "features.power", config.power, remedy)


def extract_maps(plan: Plan, frozen, images: Float[Array, "n h w c"]) -> Maps:
    """Returns the maps of images, `at_a_time` of them in a forward pass."""
    return in_groups(partial(maps_of, plan, frozen), images, plan.at_a_time)


def maps_of(plan: Plan, frozen, images: Float[Array, "n h w c"]) -> Maps:
    params, mean, deviation = frozen
    rgb = jnp.broadcast_to(images, (*images.shape[:3], CHANNELS["rgb"]))
    found: dict[str, Any] = {}
    for factor, network in plan.networks:
        shrunk = nn.max_pool(rgb, (factor,) * 2, (factor,) * 2) if factor > 1 else rgb
        found |= network.apply({"params": params}, (shrunk - mean) / deviation)
    maps = {name: found[name] for name in plan.layers}
    if plan.power != 1.0:
        maps = {name: each**plan.power for name, each in maps.items()}
    maps = {name: mean_filter(each, plan.smooth) for name, each in maps.items()}
    maps = {name: crop(each, plan.crop, name) for name, each in maps.items()}
    return {"+".join(maps): fuse(list(maps.values()))} if plan.fuse else maps


def mean_filter(maps: Float[Array, "n h w c"], side: int) -> Float[Array, "n h w c"]:
    """Returns the means over side x side neighbourhoods; at the border, over what there is."""
    if side == 1:
        return maps
    window = (1, side, side, 1)
    sums = lax.reduce_window(maps, 0.0, lax.add, window, (1,) * 4, "SAME")
    ones = jnp.ones((1, *maps.shape[1:3], 1), maps.dtype)
    return sums / lax.reduce_window(ones, 0.0, lax.add, window, (1,) * 4, "SAME")


def crop(maps: Float[Array, "n h w c"], border: int, layer: str) -> Float[Array, "n h w c"]:
    """Returns the maps less their border. Errors: UserError where nothing would be left."""
    shortest = min(maps.shape[1:3])
    remedy = f"leaves nothing of layer {layer}, whose shorter side has {shortest} positions"
    require(2 * border < shortest, "features.crop", border, remedy)
    return maps[:, border : maps.shape[1] - border, border : maps.shape[2] - border]


def fuse(maps: list[Float[Array, "n h w c"]]) -> Float[Array, "n h w c"]:
    """Returns the maps stacked along channels, on the grid of the first."""
    grid = maps[0].shape[:3]
    resized = [jax.image.resize(each, (*grid, each.shape[3]), "linear") for each in maps]
    return jnp.concatenate(resized, axis=-1)
