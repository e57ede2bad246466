"""The evaluation protocol: calibration, thresholds, metrics with intervals, comparisons."""
