"""AnoGAN: a generator of normal images, and how near a search over its noise comes to an image.

Source: Schlegl et al., "Unsupervised Anomaly Detection with Generative Adversarial Networks to
Guide Marker Discovery", IPMI 2017: the loss, weight 0.1 of its discrimination part, 500 steps of
search; Radford et al., ICLR 2016: the networks, Adam at 2e-4 with a first moment of 0.5, noise
uniform in -1..1. Where these are silent, or meant for other images, the comparison that AnoGAN is
known by on textures (Bergmann et al., "MVTec AD", CVPR 2019, section 4.1): images of 128x128,
noise of 64 values, a search rate of 0.02, 50 epochs of 10,000 crops of each category. Widths and
batch are those of the common implementations: 64, 128, 256, 512 channels (512 again on the grid
that 128x128 adds), 64 images.

Differs: as methods/anogan.py and nets/dcgan.py say. Training images are whole and not augmented:
`epochs` is set so that as many images are seen, 500,000 (7,813 steps), however few there are. The
comparison's search took 300 steps (--config.method.search_steps=300), and its maps are of squares.
It cut textures of 512x512 into crops side by side: --config.data.size="(512,512)"
--config.tiles.size="(128,128)" --config.tiles.overlap=0, with fewer `epochs`, as every crop
then counts as an image.

magnetic_tile     a folder: the 610 images left for training once a fifth calibrates
elpv              solar cells: 353 images for training
generated         carpet: 80 images for training

COMMAND  python launch.py --config=configs/anogan.py:generated
MINUTES  on 2 cores: hours, not measured; meant for a GPU

Published image R1 / R2, MVTec AD (Table 1 of Imamura et al.): carpet 0.82 / 0.16, grid
0.90 / 0.12, leather 0.91 / 0.12, tile 0.97 / 0.05, wood 0.89 / 0.47, mean 0.90 / 0.18.
Ours, of other images and a reduced schedule: results/studies, shown in the README.
"""

from sparse_ad.data.sources.elpv import Elpv
from sparse_ad.data.sources.folder import Folder
from sparse_ad.data.sources.generated import Generated
from sparse_ad.errors import require_choice
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.anogan import AnoGan
from sparse_ad.nets.optimizer import Adam
from sparse_ad.options import section

SEEN = 500_000  # training images, each as often as it comes
SIZE = (128, 128)
VARIANTS = {  # name: data, and how many of its images are for training
    "magnetic_tile": (Folder(size=SIZE), 610),
    "elpv": (Elpv(size=SIZE), 353),
    "generated": (Generated(category="carpet", size=SIZE, color="rgb"), 80),
}
ANOGAN = AnoGan(
    latent=64,
    widths=(64, 128, 256, 512),
    search_steps=500,
    search_rate=0.02,
    search_starts=1,
    discrimination_weight=0.1,
    optimizer=Adam(learning_rate=2e-4, weight_decay=0.0),
)


def get_config(variant: str = "generated"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/anogan.py", variant, VARIANTS)
    data, count = VARIANTS[variant]
    fit = Fit(batch_size=64, epochs=SEEN / count)
    return section(Experiment(f"anogan_{variant}", data=data, method=ANOGAN, fit=fit))
