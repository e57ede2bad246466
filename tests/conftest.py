"""Every test sees eight CPU devices, so that what shards is tested on any machine."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
