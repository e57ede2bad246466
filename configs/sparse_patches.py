"""Sparse coding on raw patches: the "Sparse Coding" column of the MLF-SC paper's Table 1.

Source: Imamura et al., MLF-SC, section 4: 16x16 patches, stride 4, 200 atoms, alpha 1; score =
sum of the 5 largest patch errors.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "sparse_patches"
    return config
