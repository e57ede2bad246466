"""Each warning about a data set comes once, before the fit, and only where it applies."""

import shutil

import numpy as np
import pytest
from helpers.made_up import make_folder, noise, write_image
from PIL import Image

from sparse_ad.data import Folder, checks, load
from sparse_ad.data.checks import find_copies
from sparse_ad.data.images import Images
from sparse_ad.types import Example


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set")


def warnings_of(root, caplog, **fields):
    caplog.clear()
    splits = load(Folder(root=str(root), **fields), seed=0)
    return splits, [record.message for record in caplog.records]


def example(image, path="a"):
    return Example(image, 0, "good", None, path, path)


def test_a_set_in_order_is_no_warning(root, caplog):
    splits, told = warnings_of(root, caplog)
    assert splits.copies == 0 and not told


def test_orientations_are_counted_where_they_are_ignored(root, caplog):
    exif = Image.Exif()
    exif[274] = 6
    for path in ("train/good/000.png", "train/good/more.jpg", "test/good/000.JPG"):
        Image.fromarray(noise(50 + len(path))).save(root / path, exif=exif)
    exif[274] = 1
    Image.fromarray(noise(9)).save(root / "train" / "good" / "upright.jpg", exif=exif)
    _, told = warnings_of(root, caplog)
    assert told == [
        "3 images have an EXIF orientation, which is ignored: set data.exif = apply to turn them"
    ]
    assert not warnings_of(root, caplog, exif="apply")[1]


def test_12_bits_in_16_are_told(root, caplog):
    for path in (root / "train" / "good").iterdir():
        Image.fromarray(noise(0, (12, 10)).astype(np.uint16) * 16).save(path)
    shutil.copy(root / "test" / "good" / "000.JPG", root / "train" / "good" / "999.jpg")
    told = warnings_of(root, caplog)[1]
    assert "16-bit images whose values do not exceed 4095" in told[0] + told[1]
    told = warnings_of(root, caplog, range=(0.0, 4095.0))[1]
    assert not any("16-bit" in each for each in told)


@pytest.mark.parametrize(("brightest", "told"), [(4095, 1), (4096, 0)])
def test_at_most_8_images_are_looked_at(caplog, monkeypatch, brightest, told):
    dark, junk = np.full((4, 4), 7, np.uint16), b"no image"
    images = [junk, *[dark] * 98, np.full((4, 4), brightest, np.uint16)]
    read, find = [], checks.find_largest
    monkeypatch.setattr(
        checks, "find_largest", lambda image, options: read.append(image) or find(image, options)
    )
    checks.warn_of_depth([example(image) for image in images], Images())
    assert len(read) == 8 and len(caplog.records) == told


def test_test_images_that_were_trained_on_are_counted(root, caplog):
    for index in range(2):
        copy = root / "test" / "good" / f"copy{index}.png"
        shutil.copy(root / "train" / "good" / f"00{index}.png", copy)
    splits, told = warnings_of(root, caplog)
    assert splits.copies == 2
    assert told == [
        "2 test images are copies of training images, byte for byte, such as test/good/copy0.png "
        "of train/good/000.png: their scores are not those of new images"
    ]


def test_calibration_images_that_were_trained_on_are_told(root, caplog):
    held = load(Folder(root=str(root)), seed=0).calibration[0]
    trained = next(path for path in (root / "train" / "good").iterdir() if path != held.image)
    shutil.copy(trained, held.image)
    told = warnings_of(root, caplog)[1]
    assert len(told) == 1 and "1 calibration images are copies of training images" in told[0]


def test_copies_are_told_by_content_alone(tmp_path):
    pixels = noise(0)
    files = [write_image(tmp_path / f"{name}.png", noise(name)) for name in range(2)]
    others = [
        example(pixels, "array"),
        example(files[0], "file"),
        example(b"12", "bytes"),
        example(tmp_path / "gone.png", "gone"),
    ]
    last = pixels.copy()
    last[0, 0, 0] += 1  # far from the middle
    found = find_copies(
        [
            example(pixels.copy(), "same array"),
            example(last, "other array"),
            example(pixels.reshape(10, 12, 3), "other shape"),
            example(files[0].read_bytes(), "same file"),
            example(files[1], "other file"),
            example(b"12", "same bytes"),
            example(b"21", "other bytes"),
            example(tmp_path / "gone.png", "gone too"),
        ],
        others,
    )
    assert [(copy.path, original.path) for copy, original in found] == [
        ("same array", "array"),
        ("same bytes", "bytes"),
        ("same file", "file"),
    ]
