"""Tests see eight CPU devices, checked annotations, and no silent rank promotion."""

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("sparse_ad", "beartype.beartype")
