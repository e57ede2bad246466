"""Images in 0..1 as -1..1, for networks whose output is a tanh, and back."""

from jaxtyping import Array, Float


def signed(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns images 0..1 as -1..1."""
    return 2.0 * images - 1.0


def unsigned(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns images -1..1 as 0..1."""
    return 0.5 * (images + 1.0)
