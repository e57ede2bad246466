"""Studies: grids of detectors, data sets and seeds, and their tables."""
