"""The detectors, by the name that `config.method.name` gives them."""

from sparse_ad.errors import require_choice
from sparse_ad.features.pyramid import features
from sparse_ad.methods.exemplar_coding import exemplar_coding
from sparse_ad.methods.mlf_sc import mlf_sc
from sparse_ad.methods.patchwise import patchwise
from sparse_ad.methods.sparse_coding import sparse_coding
from sparse_ad.methods.tiled import tiled, tiling
from sparse_ad.types import Method

METHODS = {  # name: build(config.method, features, (height, width)) -> detector
    "sparse_coding": lambda config, *images: patchwise(sparse_coding(config), config, *images),
    "exemplar_coding": lambda config, *images: patchwise(exemplar_coding(config), config, *images),
    "mlf_sc": mlf_sc,
}


def build(config) -> Method:
    """Returns the detector that `config` (its `method`, `features` and `data` sections) describes.

    Where `method.tile` is given, it is a detector of tiles, lifted by `tiled` to the whole images.

    Errors: UserError that names the field, its value and the choices; for weights that are missing
    or damaged, as `features.weights.load_weights`.
    """
    require_choice("method.name", config.method.name, METHODS)
    shape, tile = tuple(config.data.size), tuple(config.method.tile)
    if not tile:
        return METHODS[config.method.name](config.method, features(config.features, shape), shape)
    tiling(shape, tile, config.method.tile_overlap)  # must fit before anything is built for it
    seen = features(config.features, tile, "method.tile")
    method = METHODS[config.method.name](config.method, seen, tile)
    return tiled(method, shape, tile, config.method.tile_overlap)
