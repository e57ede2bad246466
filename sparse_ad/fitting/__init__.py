"""Fitting: the loop, its steps, checkpoints and logs."""
