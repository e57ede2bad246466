"""What is kept of a fit beside its parameters: fit.json."""

from typing import NamedTuple


class FitRecord(NamedTuple):
    """How long a fit took, and what its last step measured."""

    steps: int  # batches
    images: int  # training images
    seconds: float  # over all launches, if it was stopped and resumed
    last: dict[str, float] = {}  # metrics of the last step  # noqa: RUF012
    size: tuple[int, ...] = ()  # (height, width) of the images; (): not known, of older fits
