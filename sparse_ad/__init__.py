"""Image anomaly detection by sparse representation, in JAX."""

__version__ = "0.1.0"
