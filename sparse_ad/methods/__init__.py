"""The detectors: options classes, by the name that `method.name` gives them."""

from sparse_ad.methods.anogan import AnoGan
from sparse_ad.methods.entropy import Entropy
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.methods.lifts.maps import Shape
from sparse_ad.methods.lifts.tiles import Tiles, tiled
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.methods.mlf_sc import MlfSc
from sparse_ad.methods.mlf_sc_2020 import MlfSc2020
from sparse_ad.methods.pca import Pca
from sparse_ad.methods.pooled_features import PooledFeatures
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.methods.sparse_coding import SparseCoding
from sparse_ad.types import Features, Method

METHODS: dict[str, type] = {  # name -> dataclass of options, with build(features, shape) -> Method
    "sparse_coding": SparseCoding,
    "exemplar_coding": ExemplarCoding,
    "mlf_sc": MlfSc,
    "mlf_sc_2020": MlfSc2020,
    "reconstruction": Reconstruction,
    "anogan": AnoGan,
    "mean_colour": MeanColour,
    "entropy": Entropy,
    "pca": Pca,
    "pooled_features": PooledFeatures,
}

WHOLE = Tiles()  # images are not cut


def build(options, features: Features, shape: Shape, tiles: Tiles = WHOLE) -> Method:
    """Returns the detector that options describe, for images of `shape` (height, width, channels).

    With `tiles.size`, it is a detector of tiles, lifted to whole images. `features` are those of
    images of `tiles.part(shape)`.

    Raises: FieldError of `options`, with the bare name of the field; UserError where features and
    detector do not go together. `tiles.part` raises those of the tiles.
    """
    method = options.build(features, tiles.part(shape))
    return tiled(method, shape[:2], tiles) if tiles.size else method
