"""Beyond the paper: sparse latents that keep their positions, and a coder that is sparse by itself.

Source: ours, after Zhao & Karray; Gregor & LeCun, ICML 2010, and Sreter & Giryes, ICASSP 2018, for
LISTA. All else is as configs/cae_sparse.py has it, on HAM10000 with no lesion on both sides; for
other data: --config.data.name=driver.

spatial           the latent of CAE + sparse as a map: 5 units at each of the 8x8 positions, 320 in
                  place of 300
lista             a convolutional sparse code of 64 channels by 3 learned steps of shrinkage,
                  kernels of 8 pixels at stride 4, and one transposed convolution back: codes are
                  exactly zero where the steps say so

Both can be scored by error and penalty together: --config.method.score=objective.

Mapping: the penalty is that of ||x - g(z)||^2 + penalty ||z||_1, both sums for `lista`, so twice
the lasso's own in 1/2 ||x - zD||^2; `spatial` weighs as configs/cae_sparse.py.

COMMAND  python launch.py --config=configs/sparse_maps.py:lista --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.epochs=5

Published: nothing. Ours: results/studies, shown in the README.
"""

from dataclasses import replace

from configs.cae import CAE, published
from sparse_ad.errors import require_choice
from sparse_ad.nets.blocks import Blocks
from sparse_ad.nets.lista import Lista
from sparse_ad.nets.optimizer import Adam

VARIANTS = {
    "spatial": replace(CAE, net=Blocks(latent=5, latent_map=True), penalty=0.002),
    "lista": replace(
        CAE,
        net=Lista(kernel=8, stride=4, latent=64, steps=3),
        code="linear",
        output="linear",
        error_reduction="sum",
        penalty=0.05,
        optimizer=Adam(learning_rate=1e-3),
    ),
}


def get_config(variant: str = "lista"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/sparse_maps.py", variant, VARIANTS)
    config = published("sparse_maps", "ham10000_lesion", VARIANTS[variant])
    config.name = f"sparse_maps_{variant}"
    return config
