"""The data sets, one module each: how their files become examples and splits."""
