"""Configs of studies: grids of detectors, data and seeds."""
