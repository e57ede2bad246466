"""Running out of memory, told in one line that names what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from sparse_ad.errors import UserError

SIGNS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "Failed to allocate")


@contextmanager
def enough_memory(work: str, lower: str) -> Iterator[None]:
    """Turns running out of memory, of the host or a device, into a UserError.

    `work`: what is being done; `lower`: the fields whose lower values take less memory.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(
            f"{work}: not enough memory ({str(error) or 'of the host'}); lower {lower}"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"{work}: not enough memory ({reason}); lower {lower}") from error
