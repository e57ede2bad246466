"""The detectors, by the name that `config.method.name` gives them."""

from sparse_ad.errors import require_choice
from sparse_ad.methods.patchwise import patchwise
from sparse_ad.methods.sparse_coding import sparse_coding
from sparse_ad.types import Method

METHODS = {
    "sparse_coding": lambda config: patchwise(sparse_coding(config), config),
}


def build(config) -> Method:
    """Returns the detector that `config` (the `method` section) describes.

    Errors: UserError that names the field, its value and the choices.
    """
    require_choice("method.name", config.name, METHODS)
    return METHODS[config.name](config)
