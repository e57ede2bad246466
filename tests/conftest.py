"""Every test sees eight CPU devices, so that what shards is tested on any machine."""

import sys
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
