"""tensorflow-datasets builders, written and read back without TensorFlow."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.made_up import make_driver, make_folder, make_ham10000, noise, write_image
from PIL import Image

import sparse_ad.data.tfds_builders  # noqa: F401  registers the names
from sparse_ad import data
from sparse_ad.data.sources import elpv, layouts
from sparse_ad.errors import UserError
from sparse_ad.types import Example


def prepare(name, tmp_path, **options):
    options = {"data_dir": tmp_path / "tfds", "file_format": "array_record", **options}
    builder = tfds.builder(name, **options)
    builder.download_and_prepare()
    assert "tensorflow" not in sys.modules
    return builder


def test_folder_round_trip(tmp_path):
    root = make_folder(tmp_path / "leather")
    builder = prepare("sparse_ad_folder", tmp_path, root=root)
    loaded = layouts.read(root)
    for split, examples in (("train", loaded.train), ("test", loaded.test)):
        rows = builder.as_data_source(split=split)
        assert len(rows) == len(examples)
        for row, example in zip(rows, examples, strict=True):
            rgb = np.asarray(Image.open(example.image).convert("RGB"))
            np.testing.assert_array_equal(row["image"], rgb)
            assert row["label"] == example.label and row["kind"].decode() == example.kind
            assert row["path"].decode() == example.path and row["group"].decode() == example.group
            assert row["mask"] == (example.mask.read_bytes() if example.mask else b"")


def test_two_folders_share_a_data_dir_and_bytes_can_be_had(tmp_path):
    prepare("sparse_ad_folder", tmp_path, root=make_folder(tmp_path / "a" / "wood"))
    deep = make_folder(tmp_path / "b" / "wood")
    pixels = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    path = write_image(deep / "train" / "good" / "000.png", pixels)
    builder = prepare("sparse_ad_folder", tmp_path, root=deep)
    decoded = builder.as_data_source(split="train")[0]["image"]
    np.testing.assert_array_equal(decoded[..., 0], np.round(pixels / 257))
    raw = {"image": tfds.decode.SkipDecoding()}
    assert builder.as_data_source(split="train", decoders=raw)[0]["image"] == path.read_bytes()


@pytest.mark.parametrize(("name", "make"), [("ham10000", make_ham10000), ("driver", make_driver)])
def test_grouped_sets_have_the_split_of_the_default_options(tmp_path, name, make):
    root = make(tmp_path / name, 18)
    builder = prepare(name, tmp_path, root=root)
    splits = data.load(data.SOURCES[name](root=str(root)), seed=0)
    train, calibration, test = splits[:3]
    for split, examples in (("train", train + calibration), ("test", test)):
        rows = list(builder.as_data_source(split=split))
        assert sorted(row["path"].decode() for row in rows) == sorted(e.path for e in examples)
        assert {row["label"] for row in rows} == {e.label for e in examples}
        assert {row["group"].decode() for row in rows} == {e.group for e in examples}


def test_elpv_round_trip(tmp_path, monkeypatch):
    path = write_image(tmp_path / "cell.png", noise(0, (12, 12)))
    cells = tuple(
        Example(path.read_bytes(), index % 2, "good", None, f"{index}", f"{index}")
        for index in range(16)
    )
    monkeypatch.setattr(elpv, "read", lambda: cells)
    builder = prepare("elpv", tmp_path)
    sizes = [len(builder.as_data_source(split=split)) for split in ("train", "test")]
    assert sizes == [6, 10]


def test_root_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="root = ''"):
        tfds.builder("driver", data_dir=tmp_path)
