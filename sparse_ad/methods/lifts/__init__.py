"""Lifts: from a model of vectors, a descriptor or a detector of tiles to a detector of images.

`patchwise.py` lifts a `VectorModel`, `descriptors.py` a function that describes an image, and
`tiles.py` a detector of tiles. `grid.py` and `maps.py` hold what lifts and detectors share.
"""
