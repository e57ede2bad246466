"""One contract over every distinct fit, and what is particular to the parts of a detector."""

from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.contract import SIDE, Case, Fit, HandMade, checks_of
from helpers.contract import thin_backbones as thin_backbones  # a fixture
from helpers.images import with_defects

from sparse_ad.errors import FieldError, UserError
from sparse_ad.features import Network
from sparse_ad.methods import METHODS, build
from sparse_ad.methods.anogan import AnoGan
from sparse_ad.methods.entropy import Entropy
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.methods.mean_colour import MeanColour
from sparse_ad.methods.mlf_sc import MlfSc
from sparse_ad.methods.mlf_sc_2020 import MlfSc2020
from sparse_ad.methods.pca import Pca
from sparse_ad.methods.pooled_features import PooledFeatures
from sparse_ad.methods.reconstruction import Reconstruction
from sparse_ad.methods.sparse_coding import SparseCoding
from sparse_ad.nets.blocks import Blocks
from sparse_ad.nets.lista import Lista
from sparse_ad.nets.optimizer import Adam
from sparse_ad.normalisation import SCALES, Normalise
from sparse_ad.patches import ChannelPatches, Patches, Pool
from sparse_ad.sparse.channels import ChannelLasso, ChannelOmp
from sparse_ad.sparse.coder import LassoCoder
from sparse_ad.sparse.exemplars import ExemplarCoder
from sparse_ad.types import PIXELS, Features

PATCHES = Patches(size=6, stride=3, per_image=32)
# More slots than atoms, so that there is one path to compile.
LASSO = LassoCoder(chunk=64, max_support=64)
SPARSE = SparseCoding(PATCHES, coder=LASSO, atoms=12, minibatch=64)
DEEP = {"channels": 3, "side": 64, "spots": "bright"}  # for networks, whose weights are random
MLF_SC = MlfSc(ChannelPatches(size=3, stride=1), ChannelOmp(nonzeros=1), atoms=2)
EXPLAINED = {"views": ("atoms", "explain")}
NET = {"steps": 150, "fresh": True, "views": ("reconstruct", "latent")}
BLOCKS = Blocks(widths=(8, 16), kernels=(4, 4), strides=(2, 2), latent=16)
FLAT_BLOCKS = replace(BLOCKS, norm=False)
CAE = Reconstruction(net=BLOCKS, optimizer=Adam(learning_rate=5e-3))

CASES = {
    "sparse_coding": Case(SPARSE, views=("reconstruct", "atoms"), grid=True),
    "exemplar_coding": Case(
        ExemplarCoding(
            Patches(size=1, stride=1, per_image=0),
            Normalise(remove_mean=False, scale="none"),
            ExemplarCoder(nonzeros=3),
            atoms=(24,),  # of 128 patches: the dictionary fills up
            whiten=True,
            pool=Pool("top_mean"),
        ),
        Network(layers=("relu5_1",), power=0.5, smooth=3, fuse=True),
        **DEEP,
        grid=True,
        draws=False,
        close=1e-6,  # compiled for eight devices, the pursuit rounds its last bit otherwise
    ),
    "exemplar_coding_layers": Case(
        ExemplarCoding(
            Patches(size=3, stride=1, per_image=0),
            coder=ExemplarCoder(nonzeros=2, candidates=8),
            atoms=(24, 16),
            weights=(1.0, 0.5),
            whiten=True,
            relative=1.0,
        ),
        HandMade(2),
        views=("explain",),
        grid=True,
        draws=False,
    ),
    "mlf_sc_as_described": Case(
        replace(
            MLF_SC,
            patches=ChannelPatches(size=3, stride=2),
            coder=ChannelLasso(penalty=0.1, max_steps=200),
            score_of="all_patches",
        ),
        HandMade(),
        **EXPLAINED,
    ),
    "mlf_sc_published_code": Case(replace(MLF_SC, standardise="image"), HandMade(2), **EXPLAINED),
    "mlf_sc_positions": Case(
        replace(MLF_SC, score_of="positions", standardise="training", weight_channels=True),
        HandMade(2),
        **EXPLAINED,
        grid=True,
    ),
    "mlf_sc_2020": Case(
        MlfSc2020(**vars(replace(MLF_SC, standardise="image"))), HandMade(2), **EXPLAINED
    ),
    "mean_colour": Case(MeanColour(), channels=3, draws=False, spots="bright"),
    "entropy": Case(Entropy(), channels=3, draws=False, spots="bright"),
    "pca": Case(Pca(side=24, components=6), views=("reconstruct",), grid=True, draws=False),
    "pooled_features": Case(
        PooledFeatures(logarithm=True),
        Network("resnet18", layers=("conv1", "layer1")),
        **DEEP,
        draws=False,
    ),
    "cae": Case(CAE, **NET, grid=True),
    "cae_sparse": Case(replace(CAE, penalty=1e-3), **NET, grid=True),
    "ae_bce": Case(replace(CAE, loss="bce", output="sigmoid"), **NET, grid=True),
    "vae": Case(
        replace(CAE, code="gaussian", penalty=1e-3, error_reduction="sum"), **NET, grid=True
    ),
    "ae_l2": Case(
        replace(CAE, net=FLAT_BLOCKS, code="linear", output="linear", pool=Pool("max")),
        tiles=Tiles((16, 16)),
        **NET,
        grid=True,
    ),
    "ae_ssim": Case(
        replace(
            CAE,
            net=FLAT_BLOCKS,
            code="linear",
            output="sigmoid",
            loss="ssim",
            residual="ssim",
            pool=Pool("max"),
        ),
        **NET,
        grid=True,
    ),
    "sparse_maps_spatial": Case(
        replace(CAE, net=replace(BLOCKS, latent=4, latent_map=True), penalty=1e-3),
        **NET | {"steps": 300},
        grid=True,
    ),
    "sparse_maps_lista": Case(
        Reconstruction(
            net=Lista(kernel=8, stride=4, latent=16),
            code="linear",
            output="linear",
            error_reduction="sum",
            penalty=1e-3,
            optimizer=Adam(learning_rate=5e-3),
        ),
        **NET,
        grid=True,
    ),
    "anogan": Case(
        AnoGan(
            latent=4,
            widths=(8, 16),
            search_steps=30,
            search_rate=0.1,
            search_starts=4,
            optimizer=Adam(learning_rate=2e-3, weight_decay=0.0),
            together=4,
        ),
        **NET | {"steps": 300, "views": ("reconstruct",)},
        side=32,  # a power of two
        spots="bright",
        near=0.4,  # a search comes near, no more
    ),
}
# Fits that share most of their code with one that always runs.
SLOW = ("mlf_sc_as_described", "mlf_sc_positions", "mlf_sc_2020", "cae", "ae_bce", "vae")
SLOW += ("ae_l2", "ae_ssim", "sparse_maps_spatial", "sparse_maps_lista", "anogan")
SLOW += ("exemplar_coding_layers",)
SLOW_CHECKS = {  # of which others of their kind are in the default run
    ("cae_sparse", "check_types"),
    ("mlf_sc_published_code", "check_types"),
    ("cae_sparse", "check_eight_devices_fit_as_one"),
    ("sparse_coding", "check_eight_devices_fit_as_one"),
    ("sparse_coding", "check_types"),
    ("sparse_coding", "check_eight_devices_score_as_one"),
    ("mlf_sc_published_code", "check_eight_devices_fit_as_one"),
    ("exemplar_coding", "check_types"),
    ("sparse_coding", "check_grid_gives_the_scores"),
    ("sparse_coding", "check_training_images_are_reconstructed"),  # by `test_scales`
}
CONTRACT = [
    pytest.param(
        name,
        check,
        id=f"{name}-{check.__name__.removeprefix('check_')}",
        marks=pytest.mark.slow if name in SLOW or (name, check.__name__) in SLOW_CHECKS else (),
    )
    for name, case in CASES.items()
    for check in checks_of(case)
]


@cache
def fitted(case: Case) -> Fit:
    return Fit(case)


@pytest.mark.parametrize(("name", "check"), CONTRACT)
def test_contract(name, check):
    check(fitted(CASES[name]))


def test_every_detector_is_in_the_contract():
    assert {type(case.options) for case in CASES.values()} == set(METHODS.values())


@pytest.mark.slow
def test_rgb():
    fit = Fit(CASES["sparse_coding"]._replace(channels=3))
    images = fit.images(4)
    assert fit.normal.map.shape == (8, SIDE, SIDE)
    assert fit.score(with_defects(images)).image.min() > fit.score(images).image.max()
    atoms = fit.method.views.atoms(fit.params)
    assert atoms.shape == (12, 6, 6, 3)
    np.testing.assert_allclose(jnp.linalg.norm(atoms.reshape(12, -1), axis=1), 1.0, rtol=1e-5)


# The default; the others cost a fit each.
SCALES_BY_COST = [
    pytest.param(scale, marks=() if scale == "global" else pytest.mark.slow) for scale in SCALES
]


def scaled(scale: str) -> Case:
    """A penalty suits vectors of std 1, or pixels."""
    coder = replace(LASSO, penalty=0.2 if scale == "none" else 1.0)
    options = replace(SPARSE, normalise=Normalise(scale=scale), coder=coder)
    return CASES["sparse_coding"]._replace(options=options)


@pytest.mark.parametrize("scale", SCALES_BY_COST)
def test_scales(scale):
    """What each does to brightness and contrast."""
    fit = fitted(scaled(scale))
    images = fit.images(4)
    plain = fit.score(images).image
    assert fit.score(with_defects(images)).image.min() > plain.max()
    brighter = fit.score(images + np.float32(0.1)).image  # the patch mean is removed
    np.testing.assert_allclose(brighter, plain, rtol=1e-2)
    stronger = fit.score(2 * images).image
    if scale in ("image", "patch"):  # contrast is divided out
        np.testing.assert_allclose(stronger, plain, rtol=1e-2)
    else:
        assert (stronger > 1.02 * plain).all()
    shown = fit.view("reconstruct", images)
    assert np.mean((shown - images) ** 2) < 0.2 * images.var()


@pytest.mark.slow
def test_flat_image_is_no_anomaly():
    """Not even with contrast normalisation, which would amplify its noise."""
    fit = fitted(scaled("patch"))
    flat = np.full((1, SIDE, SIDE, 1), 0.5, np.float32)
    assert fit.score(flat).image[0] < fit.score(fit.images(4)).image.min()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseCoding(atoms=0), "atoms = 0: must be at least 1"),
        (lambda: SparseCoding(minibatch=0), "minibatch = 0: must be at least 1"),
        (lambda: ExemplarCoding(atoms=(0,)), r"atoms = \(0,\): give a number of 1 or more"),
        (lambda: ExemplarCoding(shrinkage=0.0), "shrinkage = 0.0: must be positive"),
        (
            lambda: ExemplarCoding(coder=ExemplarCoder(7), atoms=(6,)),
            "coder.nonzeros = 7: exceeds the 6 atoms",
        ),
        (lambda: MlfSc(atoms=0), "atoms = 0: give 1 to 24"),
        (lambda: MlfSc(standardise="batch"), "standardise = 'batch': choose one of image, none"),
        (lambda: MlfSc(score_of="layers"), "score_of = 'layers': choose one of all_patches"),
        (
            lambda: MlfSc(coder=ChannelOmp(nonzeros=6)),
            "coder.nonzeros = 6: exceeds the 5 atoms",
        ),
        (lambda: MlfSc2020(atoms=25), "atoms = 25: give 1 to 24"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        make()


def two_maps(images):
    return {"one": images, "two": images[:, ::2]}


def test_one_map_is_wanted():
    with pytest.raises(UserError, match=r"features\.fuse = False: leaves one, two apart"):
        build(Pca(), Features(two_maps, "two"), (SIDE, SIDE, 1))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (replace(SPARSE, patches=Patches(size=25)), "patches.size = 25"),
        (replace(MLF_SC, patches=ChannelPatches(size=25)), "patches.size = 25"),
    ],
)
def test_patches_must_fit(options, field):
    with pytest.raises(FieldError, match=f"^{field}: exceeds the image side of 24"):
        build(options, PIXELS, (SIDE, 30, 1))
