"""AE (L2), AE (SSIM) and AnoGAN on tiles, solar cells and carpets, beside the simple checks.

Source: the rows of Imamura et al., Table 1, that reconstruct images; their data, MVTec AD, are not
redistributed. The schedule is reduced for two CPU cores: images of 64x64, not cut into crops, a few
hundred steps of 16 images, a higher rate, a narrower AnoGAN. For the schedules of the papers run
configs/ae_l2.py, ae_ssim.py and anogan.py themselves, on an accelerator.

COMMAND  python launch.py --mode=study --config=configs/studies/reconstruction.py
         --config.root=DIR --record=results/studies/reconstruction.json
         where DIR/magnetic_tile holds the tiles
MINUTES  on 2 cores: about 10

Published image R1 / R2 on MVTec AD, mean: AE (SSIM) 0.53 / 0.74, AE (L2) 0.64 / 0.65,
AnoGAN 0.90 / 0.18. Ours: results/studies, shown in the README.
"""

from configs.studies import base
from configs.studies.zhao_karray import CHECKS
from sparse_ad.studies.grid import Block, Row

AE = ("data.size=(64, 64)", "tiles.size=()", "method.optimizer.learning_rate=1e-3")
GAN = ("data.size=(64, 64)", "fit.batch_size=16", "method.widths=(32, 64, 128, 256)")
GAN += ("method.search_steps=150",)


def get_config():
    """Returns the study."""
    config = base.get_config()
    config.name = "reconstruction"
    config.columns = "blocks"
    blocks = (  # each with the epochs that make some hundred steps
        ("magnetic_tile", "magnetic tiles", 20, "data.root={root}/magnetic_tile"),
        ("elpv", "ELPV", 30, "data.name=elpv"),
        ("carpet", "carpets", 100, "data.name=generated", "data.category=carpet"),
    )
    config.blocks = tuple(
        Block(key, title, (f"fit.epochs={epochs}", *data)) for key, title, epochs, *data in blocks
    )
    checks = (
        Row(key, title, f"configs/{file}.py", ("fit.epochs=1",), check=True)
        for key, title, file in CHECKS
    )
    config.rows = (
        Row("ae_l2", "AE (L2)", "configs/ae_l2.py:magnetic_tile", AE),
        Row("ae_ssim", "AE (SSIM)", "configs/ae_ssim.py:magnetic_tile", AE),
        Row("anogan", "AnoGAN", "configs/anogan.py:magnetic_tile", GAN),
        *checks,
    )
    config.common = ("data.color=grey",)
    config.compare = (("ae_ssim", "ae_l2"), ("anogan", "ae_l2"))
    return config
