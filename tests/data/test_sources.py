"""The sources, on made-up folders and on real ones; and the folders that are not right."""

import logging
import shutil

import numpy as np
import pytest
from helpers.made_up import REAL, make_folder, noise, write_image

from sparse_ad import data
from sparse_ad.data.sources import elpv, layouts
from sparse_ad.errors import FieldError, UserError
from sparse_ad.system import assets


def load_folder(root, **fields):
    return data.load(data.Folder(root=str(root), **fields), seed=0)


def test_folder_lists_kinds_masks_and_calibration(tmp_path):
    splits = load_folder(make_folder(tmp_path))
    assert len(splits.train) == 4 and len(splits.calibration) == 1
    assert [(e.path, e.label, e.kind, e.mask is None) for e in splits.test] == [
        ("test/crack/000.png", 1, "crack", False),
        ("test/crack/001.png", 1, "crack", True),
        ("test/good/000.JPG", 0, "good", True),
        ("test/good/001.JPG", 0, "good", True),
    ]


def test_folder_splits_do_not_depend_on_where_it_lies(tmp_path):
    paths = []
    for place in ("here", "there"):
        splits = load_folder(make_folder(tmp_path / place))
        paths.append([e.path for e in splits.calibration])
    assert paths[0] == paths[1]


def test_limit_draws_training_images_before_calibration(tmp_path):
    splits = load_folder(make_folder(tmp_path), limit=3)
    assert len(splits.train) == 2 and len(splits.calibration) == 1 and len(splits.test) == 4


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


BROKEN = {
    "missing root": (lambda r: shutil.rmtree(r), "no such folder"),
    "missing train/good": (lambda r: shutil.rmtree(r / "train"), r"train: no such folder"),
    "no training images": (lambda r: empty(r / "train" / "good"), r"train/good: no images"),
    "no test classes": (
        lambda r: [shutil.rmtree(p) for p in (r / "test").iterdir()],
        r"test: no test images",
    ),
    "class without images": (lambda r: empty(r / "test" / "crack"), r"test/crack: no images"),
    "mask of another size": (
        lambda r: write_image(r / "ground_truth" / "crack" / "001_mask.png", noise(0, (9, 9))),
        r"001_mask\.png: mask is 9x9 and its image is 10x12",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_folder_that_is_not_right_is_named(tmp_path, case):
    root = make_folder(tmp_path / "set")
    spoil, message = BROKEN[case]
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        load_folder(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["folder", "ham10000", "driver"])
def test_a_source_on_disk_asks_for_its_folder(name):
    with pytest.raises(FieldError, match=r"^root = '': set it to the folder of"):
        data.load(data.SOURCES[name](), seed=0)


def test_a_set_without_training_images_is_refused():
    with pytest.raises(UserError, match="generated: no training images"):
        data.load(data.Generated(count=(0, 3, 0), size=(32, 32)), seed=0)


def test_a_set_may_hold_normal_images_alone():
    assert data.load(data.Generated(count=(3, 0, 0), size=(32, 32)), seed=0).test == ()


def test_official_counts_are_checked_by_category_name(tmp_path, caplog):
    logging.getLogger("absl").propagate = True
    with caplog.at_level(logging.WARNING, logger="absl"):
        layouts.read(make_folder(tmp_path / "mine"))
        assert not caplog.records
        layouts.read(make_folder(tmp_path / "leather"))
    assert "5 training and 4 test images; MVTec AD's leather has 245 and 124" in caplog.text


def test_real_mvtec_sample():
    root = REAL / "mvtec_ad_sample" / "leather"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    train, test, _ = layouts.read(root)
    assert len(train) == 4 and len(test) == 24
    assert sum(e.mask is not None for e in test) == 11


def test_real_magnetic_tile():
    root = REAL / "magnetic_tile"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    train, test, _ = layouts.read(root)
    kinds = dict(zip(*np.unique([e.kind for e in test], return_counts=True), strict=True))
    assert len(train) == 762
    assert kinds == {
        **{"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "good": 190, "uneven": 103}
    }
    assert all((e.mask is not None) == bool(e.label) for e in test)


def test_elpv_counts():
    # Asks for the data only where they are, so that the tests need no network.
    if not (assets.cache_dir() / elpv.ASSET.filename).is_file():
        pytest.skip("the ELPV wheel is not in the cache; the quickstart fetches it")
    examples = elpv.read()
    assert [sum(e.label == label for e in examples) for label in (0, 1)] == [588, 313]
    assert all(e.image.startswith(b"\x89PNG") for e in examples)
