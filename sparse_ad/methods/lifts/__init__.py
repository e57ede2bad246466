"""Lifts: from a model of vectors, a descriptor, a network or a tile to a detector of images."""
