"""Arrays of a checkpoint, in any layout, to the params of a backbone.

How images must be scaled follows from how a file names its arrays (the `LAYOUTS` of each
backbone):

| backbone | names | what the network was trained on |
|---|---|---|
| vgg16 | Keras: block1_conv1/kernel, conv1_1/kernel | BGR, 0..255, less 103.939 116.779 123.68 |
| vgg16 | torchvision: features.0.weight | RGB, mean .485 .456 .406, std .229 .224 .225 |
| resnet18 | torchvision: layer1.0.conv1.weight, with or without batch norms | the same |
| efficientnet_lite0 | _blocks.0._depthwise_conv.weight | RGB, (x - 127) / 128 for x in 0..255 |
| any | the paths of its module, and mean and deviation: the cache | what these two say |

Networks always take RGB, (image - mean) / std for an image in 0..1: kernels for BGR are reversed.
"""

import hashlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from sparse_ad.errors import UserError
from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.backbones.layers import Layout, Source
from sparse_ad.features.formats import Arrays

Shape = tuple[int, ...]


class Weights(NamedTuple):
    """What a backbone needs; network input = (image - mean) / std, RGB in 0..1."""

    params: dict[str, Any]  # of the linen module, float32
    mean: Float[np.ndarray, "3"]
    std: Float[np.ndarray, "3"]
    sha256: str  # of all of the above: names, shapes and bytes


def parameter_shapes(backbone: str) -> dict[str, Shape]:
    """Returns the shapes of all parameters, {"conv1_1/kernel": (3, 3, 3, 64), ...}."""
    module, layers, _ = BACKBONES[backbone]
    side = max(layer.stride for layer in layers.values())
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(module(tuple(layers)).init, jax.random.key(0), image)
    leaves: Any = flatten_dict(variables["params"], sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def fingerprint(arrays: Arrays) -> str:
    """Returns the SHA-256 of names, shapes and bytes (float32, little-endian), sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def to_arrays(weights: Weights) -> Arrays:
    """Returns the arrays of a checkpoint in the layout of the cache."""
    params: Any = flatten_dict(weights.params, sep="/")
    return {**params, "mean": weights.mean, "deviation": weights.std}


def convert(backbone: str, path: str, arrays: Arrays) -> Weights:
    """Returns the weights in `arrays`, read from `path`, which have one of the backbone's layouts.

    Raises: UserError that names the array that is missing or wrong.
    """
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
    mean, std = (np.asarray(value, np.float32) for value in (layout.mean, layout.std))
    digest = fingerprint({**params, "mean": mean, "deviation": std})
    return Weights(unflatten_dict(params, sep="/"), mean, std, digest)


_CONVERTED = Layout(
    order="hwio",
    source=lambda path: Source(f"{path}/kernel", f"{path}/bias"),
    mean=(0.0, 0.0, 0.0),  # as the file says
    std=(1.0, 1.0, 1.0),
)


def _recognise(
    backbone: str, path: str, arrays: Arrays, shapes: dict[str, Shape]
) -> tuple[Layout, Arrays]:
    """Returns the layout most of whose names are there, and the arrays by its names."""
    if {"mean", "deviation"} <= arrays.keys():
        return _converted(path, arrays), arrays
    layers = sorted({name.rpartition("/")[0] for name in shapes})
    layouts = BACKBONES[backbone].layouts
    layout = max(layouts, key=partial(_count_names, arrays, layers))
    if _count_names(arrays, layers, layout) == 0:
        examples = ", ".join(list(arrays)[:3]) or "nothing"
        expected = " or ".join(layout.source(layers[0]).weight for layout in layouts)
        raise UserError(
            f"{path}: not weights of {backbone}: it holds {examples}, ..., expected {expected}, "
            "...: give a file of that network in features.weights"
        )
    return layout, layout.rename(arrays)


def _converted(path: str, arrays: Arrays) -> Layout:
    """Returns the layout of the cache, with the mean and std that the file holds."""
    reader = _Reader(path, arrays, _CONVERTED)
    mean, std = (reader.take(name, (3,)) for name in ("mean", "deviation"))
    if not (std > 0).all():
        raise UserError(f"{path}: deviation is {std}, expected > 0; get it again")
    return _CONVERTED._replace(mean=tuple(mean), std=tuple(std))


def _count_names(arrays: Arrays, layers: list[str], layout: Layout) -> int:
    """Returns how many names of the layout the arrays have."""
    present = layout.rename(arrays).keys()
    return sum(len(present & _names(layout.source(layer))) for layer in layers)


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

    def take(self, name: str, shape: Shape) -> np.ndarray:
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

    def convolution(self, path: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
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
