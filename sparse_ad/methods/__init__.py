"""The detectors, by the name that `config.method.name` gives them."""

from sparse_ad.errors import require_choice
from sparse_ad.features.pyramid import features
from sparse_ad.methods.anogan import AnoGan
from sparse_ad.methods.exemplar_coding import exemplar_coding
from sparse_ad.methods.lifts.descriptors import entropy, mean_colour, pooled_features
from sparse_ad.methods.lifts.patchwise import patchwise
from sparse_ad.methods.lifts.tiles import tiled, tiling
from sparse_ad.methods.mlf_sc import mlf_sc
from sparse_ad.methods.pca import pca
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.methods.sparse_coding import sparse_coding
from sparse_ad.types import Method


def lifted(model):
    """Returns the builder of the detector that applies a model of vectors to every patch."""
    return lambda config, *images: patchwise(model(config.method), config.method, *images)


METHODS = {  # name: build(config, features, (height, width)) -> detector
    "sparse_coding": lifted(sparse_coding),
    "exemplar_coding": lifted(exemplar_coding),
    "mlf_sc": lambda config, *images: mlf_sc(config.method, *images),
    "reconstruction": Reconstruction,
    "anogan": AnoGan,
    "mean_colour": lambda config, *images: mean_colour(config.method, *images),
    "entropy": lambda config, *images: entropy(config.method, *images),
    "pca": lambda config, *images: pca(config.method, *images),
    "pooled_features": lambda config, *images: pooled_features(config.method, *images),
}


def build(config) -> Method:
    """Returns the detector that `config` describes.

    Where `method.tile` is given, it is a detector of tiles, lifted by `tiled` to the whole images.

    Errors: UserError that names the field, its value and the choices; for weights that are missing
    or damaged, as `features.weights.load_weights`.
    """
    require_choice("method.name", config.method.name, METHODS)
    shape, tile = tuple(config.data.size), tuple(config.method.tile)
    if not tile:
        return METHODS[config.method.name](config, features(config.features, shape), shape)
    tiling(shape, tile, config.method.tile_overlap)  # must fit before anything is built for it
    seen = features(config.features, tile, "method.tile")
    method = METHODS[config.method.name](config, seen, tile)
    return tiled(method, shape, tile, config.method.tile_overlap)
