"""CAE: a convolutional auto-encoder, the score how badly it reconstructs an image.

Source: Zhao & Karray, sections 2 and 3: four strided convolution blocks and their mirror image, a
latent of 300 units through a sigmoid, output through tanh, images of 128x128 in -1..1, batch norm
except at the encoder's input and the decoder's output layer, leaky ReLU; squared error (Eq. 1);
Adam at 1e-4 with weight decay 1e-5, batches of 64, 70 epochs.

Where the paper is silent, a field of `net` says: widths 32, 64, 128, 256; kernels of 4, stride 2
(every position of a transposed convolution then gets as many terms); slope 0.2. The blocks end at
8x8 positions; a dense layer leads to the latent, and one, normed and activated, back. Weight decay
is added to the gradient before Adam, as PyTorch's Adam does. Errors are means over pixels and
channels. A fifth of the normal training images is held out for the threshold, so that fewer are
fitted than in the paper.

ham10000          as published (data.split = "paper"): normal nevi of a lesion on both sides
ham10000_lesion   no lesion on both sides
driver            State Farm's drivers, not the paper's private set

COMMAND  python launch.py --config=configs/cae.py:ham10000 --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.passes=5

Published AUROC: HAM10000 (Table 3) MEL 0.80, BCC 0.65, AKI 0.76, BKL 0.69, DF 0.60, VAS 0.60, ALL
0.68; driver (Table 4) talking 0.61, texting 0.66, GPS 0.82, ALL 0.70.
Ours: results/studies, shown in the README.
"""

from configs import base
from sparse_ad.errors import require_choice


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    return published("cae", variant)


def published(name: str, variant: str):
    """Returns what all detectors of the paper's comparison share, on the data of a variant."""
    require_choice(f"the variant of configs/{name}.py", variant, VARIANTS)
    config = base.get_config()
    config.name = f"{name}_{variant}"
    config.data.update(size=(128, 128), color="rgb")
    config.method.update(name="reconstruction", pooling="top_mean", quantile=1.0)  # the mean
    config.fit.update(batch_size=64, passes=70.0)
    VARIANTS[variant](config)
    return config


def ham10000(config):
    """Skin lesions, split as published."""
    config.data.update(name="ham10000", split="paper")


def ham10000_lesion(config):
    """Skin lesions, split by lesion."""
    config.data.update(name="ham10000", split="lesion")


def driver(config):
    """Drivers."""
    config.data.name = "driver"


VARIANTS = {each.__name__: each for each in (ham10000, ham10000_lesion, driver)}
