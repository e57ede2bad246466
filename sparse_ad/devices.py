"""All local devices as one: images are spread over them, everything else is on each."""

import math
import os
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_ad.errors import UserError, require

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of a computation, by name


@cache
def mesh() -> Mesh:
    """Returns the mesh of all local devices, with the one axis "data"."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def check_platform() -> None:
    """Raises UserError where JAX_PLATFORMS asks for devices that there are not."""
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        if not asked:
            raise
        jax.config.update("jax_platforms", None)
        found = f"{len(jax.devices())} {jax.default_backend()} device(s)"
        remedy = f"there are {found}: unset it, or set it to {jax.default_backend()}"
        raise UserError(f"JAX_PLATFORMS = {asked!r}: no such devices here; {remedy}") from error


def check_batch(field: str, batch_size: int) -> None:
    """Raises UserError unless the batch divides evenly among the devices."""
    count = mesh().size
    require(batch_size >= 1, field, batch_size, "must be at least 1")
    remedy = f"is not divisible by the {count} devices that share a batch"
    require(batch_size % count == 0, field, batch_size, remedy)


def fit_batch(batch_size: int, count: int) -> int:
    """Returns a batch size no larger than `count` images take on these devices."""
    return min(batch_size, -(-count // mesh().size) * mesh().size)


def spread(images):
    """Returns images [n ...], one array or a tree, on the devices, each with a share of n."""
    return jax.device_put(images, NamedSharding(mesh(), P("data")))


def share(images):
    """Returns images [n ...], within a compiled function, as `spread` does outside of one."""
    return jax.lax.with_sharding_constraint(images, NamedSharding(mesh(), P("data")))


def room() -> float:
    """Returns the bytes that each device can hold; infinity where it does not say, as on CPUs."""
    stats = (device.memory_stats() or {} for device in mesh().devices.flat)
    return min(stat.get("bytes_limit", math.inf) for stat in stats)


def everywhere() -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh(), P())


def replicate(tree):
    """Returns a pytree of arrays with a copy on every device."""
    return jax.device_put(tree, everywhere())


def by_image(function: Callable) -> Callable:
    """Returns the compiled `function(params, images)`, each device working on its own images.

    Every leaf of the result must have images as its first axis.
    """
    apart = jax.shard_map(
        function, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False
    )
    compiled = jax.jit(apart)
    return lambda params, images: compiled(params, spread(images))


def sum_by_image(function: Callable, params, images):
    """Returns the sum of function(params, image) over images, each device adding up its own.

    To be called inside a compiled function. Images that the devices cannot share evenly are
    summed by each of them.
    """

    def total(params, images):
        def add(sums, image):
            return jax.tree.map(jnp.add, sums, function(params, image)), None

        one = jax.eval_shape(function, params, jax.tree.map(lambda leaf: leaf[0], images))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one)
        return jax.lax.scan(add, zero, images)[0]

    if jax.tree.leaves(images)[0].shape[0] % mesh().size:
        return total(params, images)

    def shared(params, images):
        return jax.lax.psum(total(params, images), "data")

    apart = jax.shard_map(
        shared, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P(), check_vma=False
    )
    return apart(params, images)
