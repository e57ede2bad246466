"""Speed and quality beside other implementations. Run from the root: python -m benchmarks.NAME."""
