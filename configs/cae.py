"""CAE: a convolutional auto-encoder, the score how badly it reconstructs an image.

Source: Zhao & Karray, sections 2 and 3: four strided convolution blocks and their mirror image, a
latent of 300 units through a sigmoid, output through tanh, images of 128x128 in -1..1, batch norm
except at the encoder's input and the decoder's output layer, leaky ReLU; squared error (Eq. 1);
Adam at 1e-4 with weight decay 1e-5, batches of 64, 70 epochs.

Where the paper is silent, an option says: widths 32, 64, 128, 256; kernels of 4, stride 2
(every position of a transposed convolution then gets as many terms); slope 0.2. The blocks end at
8x8 positions; a dense layer leads to the latent, and one, normed and activated, back. Weight decay
is added to the gradient before Adam, as PyTorch's Adam does. Errors are means over pixels and
channels. A fifth of the normal training images is held out for the threshold, so that fewer are
fitted than in the paper.

ham10000          as published (data.split = "paper"): normal nevi of a lesion on both sides
ham10000_lesion   no lesion on both sides
driver            State Farm's drivers, not the paper's private set

COMMAND  python launch.py --config=configs/cae.py:ham10000 --config.data.root=DIR
MINUTES  on 2 cores: hours for 70 epochs; shorter: --config.fit.epochs=5

Published AUROC: HAM10000 (Table 3) MEL 0.80, BCC 0.65, AKI 0.76, BKL 0.69, DF 0.60, VAS 0.60, ALL
0.68; driver (Table 4) talking 0.61, texting 0.66, GPS 0.82, ALL 0.70.
Ours: results/studies, shown in the README.
"""

from sparse_ad.data.sources.driver import Driver
from sparse_ad.data.sources.ham10000 import Ham10000
from sparse_ad.errors import require_choice
from sparse_ad.experiment import Experiment
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.options import section
from sparse_ad.patches import Pool

COMMON = {"size": (128, 128), "color": "rgb"}
VARIANTS = {  # name: data
    "ham10000": Ham10000(split="paper", **COMMON),
    "ham10000_lesion": Ham10000(split="lesion", **COMMON),
    "driver": Driver(**COMMON),
}
CAE = Reconstruction(pool=Pool("top_mean", fraction=1.0))  # of all pixels: the mean


def get_config(variant: str = "ham10000"):
    """Returns the config of a variant."""
    return published("cae", variant, CAE)


def published(name: str, variant: str, method: Reconstruction):
    """Returns the config of a network of the paper's comparison, on the data of a variant."""
    require_choice(f"the variant of configs/{name}.py", variant, VARIANTS)
    data, fit = VARIANTS[variant], Fit(batch_size=64, epochs=70.0)
    return section(Experiment(f"{name}_{variant}", data=data, method=method, fit=fit))
