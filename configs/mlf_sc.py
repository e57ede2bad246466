"""MLF-SC: sparse coding of the maps of a frozen network, at several depths.

Source: Imamura et al., MLF-SC, sections 3.2 and 4, and the code published with it.

as_described      the paper's text: outputs of the 4th, 7th and 10th convolution of VGG16
                  (conv2_2, conv3_3, conv4_3), 8x8 patches, stride 2, 5 atoms for each channel,
                  alpha 1; score = the 5 largest of all patch errors. The text does not say whether
                  maps are scaled: here they are not.
published_code    the code's way: the image is max-pooled by 4, 2, 1, so that all maps are 32x32; 2
                  positions cut from each side; each channel of each image to mean 0, deviation 1;
                  OMP with 3 non-zeros; score = sum over channels of the 5 largest patch errors.
                  Its table predates a fix of the code; --config.method.dictionary_axis=patch is
                  the indexing of that time.
improved          ours: activations of one deep layer behind its ReLU, to the power 1/2, smoothed,
                  less their border; all channels together; coded by 3 of 6,000 exemplars (see
                  sparse/exemplars.py).
improved_resnet18, improved_efficientnet   the same with other networks.

Mapping: `penalty` is the paper's alpha in the scaling of its Eq. (1); `nonzeros` the code's
n_nonzero_coefs. Differs: dictionaries are learned online (Mairal et al. 2010) from batches of 16
images, where the code fits scikit-learn's mini-batch learner on all patches at once.

COMMAND  python launch.py --config=configs/mlf_sc.py:published_code --config.data.root=DIR
MINUTES  on 2 cores: 4 to 6 for the 1,344 images of magnetic_tile

Published image AUROC, MVTec AD (Table 1): carpet 0.99, grid 0.97, leather 0.99, tile 0.92,
wood 0.99, mean 0.97; R1 / R2: 1.00 / 0.98, 1.00 / 0.88, 0.97 / 0.97, 0.94 / 0.76, 0.95 / 0.98.
Ours: not measured on MVTec AD, whose images are not redistributed. Measured on other sets:
results/mlf_sc, shown in the README.
"""

from configs import base
from sparse_ad.errors import require_choice


def get_config(variant: str = "improved"):
    """Returns the config of a variant."""
    require_choice("the variant of configs/mlf_sc.py", variant, VARIANTS)
    config = base.get_config()
    config.name = f"mlf_sc_{variant}"
    config.data.color = "rgb"
    config.fit.passes = 1.0
    VARIANTS[variant](config)
    return config


def as_described(config):
    """The paper's text."""
    config.features.update(backbone="vgg16", layers=("conv2_2", "conv3_3", "conv4_3"))
    config.method.update(
        name="mlf_sc",
        patch_size=8,
        stride=2,
        atoms=5,
        solver="lasso",
        penalty=1.0,
        max_steps=200,
        score_of="all_patches",
        top=5,
    )


def published_code(config):
    """What the code does."""
    as_described(config)
    config.features.update(shrink=(4, 2, 1), crop=2)
    config.method.update(solver="omp", nonzeros=3, standardise="image", score_of="channels")


def improved(config):
    """Ours."""
    config.features.update(backbone="vgg16", layers=("relu5_1",), power=0.5, smooth=3, crop=1)
    config.features.fuse = True
    config.method.update(
        name="exemplar_coding",
        patch_size=1,
        stride=1,
        patches_per_image=0,
        remove_mean=False,
        scale="none",
        atoms=6000,
        nonzeros=3,
        whitening=0.1,
        pooling="top_mean",
    )


def improved_resnet18(config):
    """Ours, on layer3 of ResNet-18."""
    improved(config)
    config.features.update(backbone="resnet18", layers=("layer3",))


def improved_efficientnet(config):
    """Ours, on a stage of EfficientNet-Lite0."""
    improved(config)
    config.features.update(backbone="efficientnet_lite0", layers=("stage4",), power=1.0)


VARIANTS = {
    each.__name__: each
    for each in (
        as_described,
        published_code,
        improved,
        improved_resnet18,
        improved_efficientnet,
    )
}
