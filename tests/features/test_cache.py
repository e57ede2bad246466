"""The cache of features: the same bits whatever part is read; damage and full disks do no harm."""

import errno
import logging
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.folders import contents, leftovers
from helpers.networks import Counting, entries, make_images, thin_network
from helpers.networks import thin as thin  # a fixture

from sparse_ad import devices
from sparse_ad.errors import UserError
from sparse_ad.features import cache
from sparse_ad.features.cache import cached

GB = 1e9


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Warnings come once in a process; what a test writes need not survive a power cut."""
    cache.warn.cache_clear()
    monkeypatch.setattr(os, "fsync", lambda _: None)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for layer, leaf in expected.items():
        leaf, other = np.asarray(leaf), np.asarray(found[layer])
        assert leaf.dtype == other.dtype == np.float32 and leaf.shape == other.shape
        assert leaf.tobytes() == other.tobytes()


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_network_gives_the_same_bits(thin, batch_size):
    assert devices.mesh().size == 8
    options = thin_network(batch_size=batch_size, shrink=(1, 2))
    plain = options.build((16, 24))
    images, others = make_images(16), make_images(16, 1)
    expected = plain.extract(images)
    assert not thin.exists()
    kept = replace(options, cache_gb=1.0).build((16, 24))
    assert kept.identity == plain.identity
    assert_same_bits(kept.extract(images[3:4]), {k: v[3:4] for k, v in expected.items()})
    assert_same_bits(kept.extract(images), expected)  # one is read
    assert_same_bits(kept.extract(images), expected)  # all are
    some = np.concatenate([others[:5], images[:7], others[5:9]])
    assert_same_bits(kept.extract(some), plain.extract(some))
    apart = devices.by_image(lambda params, maps: maps)((), kept.extract(images))
    assert len(apart["relu2_1"].sharding.device_set) == 8
    assert_same_bits(apart, expected)
    (folder,) = thin.iterdir()
    assert len(folder.name) == 16 and len(entries(thin)) == 25


def test_a_later_run_computes_nothing(thin, monkeypatch):
    options = thin_network(cache_gb=1.0)
    expected = options.build((16, 24)).extract(make_images(8))
    monkeypatch.setattr(cache, "compute", None)
    again = options.build((16, 24))
    assert_same_bits(again.extract(make_images(8)), expected)


def test_other_preprocessing_has_other_entries(thin):
    images = make_images(8)
    for fields in ({}, {"smooth": 3}, {"batch_size": 2}, {"dtype": "bfloat16"}):
        options = thin_network(layers=("relu1_1",), **fields)
        plain = options.build((16, 24)).extract(images)
        kept = replace(options, cache_gb=1.0).build((16, 24))
        assert_same_bits(kept.extract(images), plain)
    assert len(entries(thin)) == 32 and len(list(thin.iterdir())) == 4


def test_only_what_is_missing_is_computed(tmp_path):
    inner = Counting()
    kept = cached(inner.features, tmp_path / "a", GB)
    images = make_images(32)
    kept.extract(images)
    kept.extract(images)
    assert inner.calls == [32]
    twice = np.concatenate([make_images(3, 1), make_images(3, 1), images[:26]])
    assert_same_bits(kept.extract(twice), Counting().extract(twice))
    assert inner.calls == [32, 8]  # three, padded to a quarter of the batch
    assert len(entries(tmp_path)) == 35


def test_few_shapes_are_computed(tmp_path):
    """Each is compiled once."""
    images = make_images(64, shape=(2, 2, 1))
    for batch in (64, 24, 3):
        sizes = set()
        for missing in range(batch, 0, -5):
            inner = Counting()
            kept = cached(inner.features, tmp_path / f"{batch}_{missing}", GB)
            if missing < batch:
                kept.extract(images[missing:batch])
            kept.extract(images[:batch])
            size = inner.calls[-1]
            assert missing <= size <= -(-batch // 8) * 8
            sizes.add(size)
        assert len(sizes) <= 3 and all(size % 8 == 0 for size in sizes)


def test_an_entry_belongs_to_identity_shape_and_pixels(tmp_path):
    images = make_images(1, shape=(4, 6, 1))
    cached(Counting("one").features, tmp_path / "a", GB).extract(images)
    other = images.copy()
    other[0, 0, 0, 0] = np.nextafter(other[0, 0, 0, 0], 1)
    for identity, asked, computed in (
        ("one", images, 0),
        ("two", images, 1),
        ("one", images.reshape(1, 6, 4, 1), 1),
        ("one", other, 1),
    ):
        inner = Counting(identity)
        found = cached(inner.features, tmp_path / "a", GB).extract(asked)
        assert len(inner.calls) == computed
        assert_same_bits(found, Counting().extract(asked))


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path, other):
    path.write_bytes(b"")


def flip(path, other):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path, other):
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [truncate, empty, flip, swap])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    inner, images = Counting(), make_images(8)
    kept = cached(inner.features, tmp_path / "a", GB)
    expected = kept.extract(images)
    before = contents(tmp_path)
    path, other = entries(tmp_path)[:2]
    damage(path, other)
    assert_same_bits(kept.extract(images), expected)
    assert len(inner.calls) == 2 and contents(tmp_path) == before


def test_a_damaged_entry_is_removed_where_nothing_can_be_stored(tmp_path):
    images = make_images(1)
    cached(Counting().features, tmp_path / "a", GB).extract(images)
    (path,) = entries(tmp_path)
    flip(path, path)
    cached(Counting().features, tmp_path / "a", 1.0).extract(images)
    assert not path.exists()


def test_the_limit_is_kept(tmp_path, caplog):
    inner, images = Counting(), make_images(8)
    other = cached(Counting("other").features, tmp_path / "other", GB)
    other.extract(images[:2])  # counts, too
    size = entries(tmp_path)[0].stat().st_size
    limit = 5.0 * size + 10
    kept = cached(inner.features, tmp_path / "a", limit)
    expected = Counting().extract(images)
    for _ in range(3):
        assert_same_bits(kept.extract(images), expected)
    assert len(entries(tmp_path / "a")) == 3 and cache.folder_size(tmp_path) <= limit
    assert len(inner.calls) == 3
    cached(inner.features, tmp_path / "a", limit).extract(images)
    (warning,) = warnings(caplog)
    assert str(tmp_path) in warning and "raise features.cache_gb" in warning
    before = contents(tmp_path)  # nothing was dropped to make room
    kept.extract(images[::-1])
    assert contents(tmp_path) == before


def test_the_limit_is_kept_by_processes_that_share_the_folder(tmp_path):
    images = make_images(96, shape=(32, 32, 3))
    some = [cached(Counting().features, tmp_path / "a", 6e5) for _ in range(2)]
    for start in range(0, 96, 8):
        some[start // 8 % 2].extract(images[start : start + 8])
    size = entries(tmp_path)[0].stat().st_size
    assert 96 * size > 9e5  # there was too much
    assert 5.5e5 < cache.folder_size(tmp_path) <= 6e5 * (1 + 1 / cache.MEASURED) + size


def test_a_full_disk_ends_the_storing(tmp_path, monkeypatch, caplog):
    inner, images = Counting(), make_images(16)
    kept = cached(inner.features, tmp_path / "a", GB)
    kept.extract(images[:4])
    tries = []

    def full(path, content):
        tries.append(path)
        raise UserError("the disk is full")

    monkeypatch.setattr(cache, "write_bytes", full)
    for _ in range(2):
        assert_same_bits(kept.extract(images), Counting().extract(images))
    assert len(tries) == 1 and len(inner.calls) == 3  # the four are still read
    (warning,) = warnings(caplog)
    assert "the disk is full" in warning


def test_no_half_of_an_entry_is_left(tmp_path, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    kept = cached(Counting().features, tmp_path / "a", GB)
    assert_same_bits(kept.extract(make_images(3)), Counting().extract(make_images(3)))
    assert not entries(tmp_path) and not leftovers(tmp_path)
    assert "No space left" in warnings(caplog)[0]


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "features").write_text("a file")
    kept = cached(Counting().features, tmp_path / "features" / "a", GB)
    assert_same_bits(kept.extract(make_images(3)), Counting().extract(make_images(3)))
    (warning,) = warnings(caplog)
    assert str(tmp_path / "features") in warning


def test_shapes_are_known_without_images(thin):
    kept = thin_network(cache_gb=1.0).build((16, 24))
    maps = jax.eval_shape(kept.extract, jax.ShapeDtypeStruct((8, 16, 24, 3), jnp.float32))
    found = kept.extract(make_images(8))
    assert {k: v.shape for k, v in maps.items()} == {k: v.shape for k, v in found.items()}


def test_it_reports_what_it_did(tmp_path, caplog):
    store = cache.Store(tmp_path / "a", GB)
    caplog.set_level(logging.INFO)
    store.report()
    assert not caplog.records
    entry = {"a": np.ones((1, 2, 3), np.float32)}
    assert store.read("name") is None
    store.write("name", entry)
    assert_same_bits(store.read("name"), entry)
    store.report()
    assert caplog.records[-1].getMessage() == "features: 1 read, 1 computed"
