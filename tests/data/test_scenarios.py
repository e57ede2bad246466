"""HAM10000 and the distracted drivers: their splits, their counts, and folders that are odd."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
from helpers.made_up import REAL, make_driver, make_ham10000, noise, write_image

from sparse_ad import data
from sparse_ad.data.pipeline import scoring_batches, training_batches
from sparse_ad.data.sources import driver, ham10000, listing
from sparse_ad.errors import UserError

HAM = "HAM10000_metadata.csv"
OTHERS = ("akiec", "bcc", "bkl", "df", "mel", "vasc")  # classes but nv
LIST = "driver_imgs_list.csv"


def load(name, root, seed=0, **fields):
    return data.load(data.SOURCES[name](root=str(root), **fields), seed)


def groups(splits):
    return [{e.group for e in part} for part in splits[:3]]


def test_by_lesion_no_lesion_is_on_two_sides(tmp_path):
    splits = load("ham10000", make_ham10000(tmp_path), split="lesion")
    train, calibration, test = groups(splits)
    assert not (train & calibration or train & test or calibration & test)
    assert {e.kind for e in splits.test} == {"good", *OTHERS}
    assert sum(map(len, splits[:3])) == 36
    assert sum(e.label == 0 for e in splits.test) == 6  # a quarter of 24
    one = load("ham10000", tmp_path, split="lesion", anomalous_per_class=1)
    assert Counter(e.kind for e in one.test) == {"good": 6, **dict.fromkeys(OTHERS, 1)}
    assert one[:2] == splits[:2]


def test_as_published_images_are_drawn_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ham10000, "PAPER_TEST", 10)
    splits = load("ham10000", make_ham10000(tmp_path), split="paper")
    train, calibration, test = groups(splits)
    assert sum(e.label == 0 for e in splits.test) == 10
    assert len(splits.train) + len(splits.calibration) == 14
    assert (train | calibration) & test  # as the paper has it
    assert not train & calibration  # but the threshold is set on other lesions
    monkeypatch.setattr(ham10000, "PAPER_TEST", 100)
    with pytest.raises(UserError, match="24 normal images: 100 of them are for the test"):
        load("ham10000", tmp_path, split="paper")


def test_drivers_are_counted_and_on_one_side(tmp_path):
    root = make_driver(tmp_path, 6)
    splits = load("driver", root, training_drivers=4)
    train, calibration, test = groups(splits)
    assert not train & calibration
    assert len(train | calibration) == 4 and len(test) == 2 and not (train | calibration) & test
    assert {e.kind for e in splits.train + splits.calibration} == {"good"}
    assert Counter(e.kind for e in splits.test) == {"good": 2, "texting": 4, "talking": 4, "gps": 2}
    kinds = {e.path.partition("/")[0]: e.kind for e in splits.test}
    assert kinds == {
        **{"c0": "good", "c1": "texting", "c2": "talking"},
        **{"c3": "texting", "c4": "talking", "c5": "gps"},
    }
    others = [groups(load("driver", root, seed, training_drivers=4))[2] for seed in range(1, 9)]
    assert any(other != test for other in others)
    message = r"^training_drivers = 6: .* names 6 drivers who drive safely"
    with pytest.raises(UserError, match=message):
        load("driver", root, training_drivers=6)


def names(examples):
    return [e._replace(image=e.image.name) for e in examples]


def test_ham10000_is_read_as_the_dataverse_has_it(tmp_path):
    root, flat = make_ham10000(tmp_path / "kaggle"), tmp_path / "flat"
    flat.mkdir()
    for path in root.glob("*/*.jpg"):
        shutil.copy(path, flat)
    expected = names(ham10000.read(root))
    rows = [row.split(",") for row in (root / HAM).read_text().splitlines()]
    quoted = ("\t".join(f'"{value}"' for value in row) for row in rows)
    (flat / "HAM10000_metadata.tab").write_text("\n".join(quoted))
    assert names(ham10000.read(flat)) == expected
    (flat / "HAM10000_metadata.tab").unlink()
    shutil.copy(root / HAM, flat / "HAM10000_metadata")
    assert names(ham10000.read(flat)) == expected


def test_drivers_are_read_as_kaggle_has_them(tmp_path):
    expected = names(driver.read(make_driver(tmp_path)))
    (tmp_path / "imgs").mkdir()
    (tmp_path / "train").rename(tmp_path / "imgs" / "train")
    assert names(driver.read(tmp_path)) == expected


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BROKEN = {
    "no metadata": (lambda r: (r / HAM).unlink(), r"HAM10000_metadata\.csv: no such file"),
    "no list": (lambda r: (r / LIST).unlink(), r"driver_imgs_list\.csv: no such file"),
    "not a table": (
        lambda r: (r / HAM).write_bytes(b"PK\x03\x04\xff\xfe"),
        r"metadata\.csv: cannot be read as a table",
    ),
    "no column": (
        lambda r: edit(r / LIST, "subject,classname", "driver,class"),
        r"list\.csv: no column classname, subject; give the original",
    ),
    "no value": (
        lambda r: edit(r / HAM, "HAM_1,ISIC_2001,nv", ",ISIC_2001"),
        r"line 5 has no dx, lesion_id",
    ),
    "lesion without its image": (
        lambda r: (r / "HAM10000_images_part_2" / "ISIC_2003.jpg").unlink(),
        r"1 of 36 images are not in .* or its folders, such as ISIC_2003",
    ),
    "driver without their image": (
        lambda r: (r / "train" / "c3" / "img_1.jpg").unlink(),
        r"1 of 30 images are not in .*train, such as c3/img_1\.jpg",
    ),
    "no melanoma": (
        lambda r: edit(r / HAM, "mel", "nv"),
        r"no images of class mel \(1113 published\)",
    ),
    "no texting": (lambda r: edit(r / LIST, ",c3,", ",c9,"), r"class c3 \(2346 published\)"),
    "a class too many": (
        lambda r: edit(r / HAM, "HAM_1,ISIC_2001,nv", "HAM_1,ISIC_2001,scc"),
        r"1 images of class 'scc', which is none of nv, akiec",
    ),
    "two lesions of one image": (
        lambda r: edit(r / HAM, "HAM_1,ISIC_2001,nv", "HAM_1,ISIC_2001,nv\nHAM_2,ISIC_2001,nv"),
        r"line 6 says HAM_2, nv of ISIC_2001 and an earlier line says HAM_1, nv",
    ),
    "two drivers of one image": (
        lambda r: edit(r / LIST, "p1,c0,img_1.jpg", "p1,c0,img_1.jpg\np2,c0,img_1.jpg"),
        r"says p2 of c0/img_1\.jpg and an earlier line says p1",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_set_that_is_not_right_is_named(tmp_path, case):
    spoil, message = BROKEN[case]
    make_ham10000(make_driver(tmp_path))  # side by side: they share no file
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        ham10000.read(tmp_path)
        driver.read(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_only_odd_is_a_warning(tmp_path, caplog):
    logging.getLogger("absl").propagate = True
    root = make_ham10000(tmp_path)
    plain = ham10000.read(root)
    write_image(root / "HAM10000_images_part_1" / "stray.jpg", noise(0))
    edit(root / HAM, "HAM_1,ISIC_2001,nv", "HAM_1,ISIC_2001,nv\nHAM_1,ISIC_2001,nv")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert ham10000.read(root) == plain
    for part in (
        "1 images have no row, such as stray",
        "1 rows are there twice, such as ISIC_2001",
        "nv 24 (6705 published)",
        "df 2 (115 published)",
    ):
        assert part in caplog.text


def test_right_counts_are_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        listing.check_counts(Path("table"), "aab", {"a": 2, "b": 1})
    assert not caplog.records


def test_sizes_may_differ_and_a_truncated_file_is_named(tmp_path):
    root = make_ham10000(tmp_path)
    options = data.Ham10000(root=str(root), size=(8, 6), color="rgb", workers=0)
    for index, path in enumerate(sorted(root.glob("*/*.jpg"))):
        write_image(path, noise(index, (5 + index % 7, 4 + index % 11, 3)))
    splits = data.load(options, seed=0)
    shapes = [
        batch.image.shape for part in splits[:3] for batch in scoring_batches(part, options, 4)
    ]
    assert set(shapes) == {(4, 8, 6, 3)}
    cut = splits.train[0].image
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(UserError, match=rf"{cut.name}: cannot be read"):
        next(training_batches(splits.train, options, len(splits.train), seed=0))


@pytest.mark.parametrize(("split", "train", "nevi"), [("paper", 6605, 100), ("lesion", 5029, 1676)])
def test_real_ham10000(caplog, split, train, nevi):
    if not (REAL / "ham10000").is_dir():
        pytest.skip(f"{REAL / 'ham10000'} is not there")
    with caplog.at_level(logging.WARNING):
        splits = load("ham10000", REAL / "ham10000", split=split)
    assert "published" not in caplog.text
    assert len(splits.train) + len(splits.calibration) == train
    assert Counter(e.kind for e in splits.test) == {"good": nevi, **dict.fromkeys(OTHERS, 100)}


def test_real_drivers(caplog):
    if not (REAL / "driver").is_dir():
        pytest.skip(f"{REAL / 'driver'} is not there")
    with caplog.at_level(logging.WARNING):
        examples = driver.read(REAL / "driver")
    assert "published" not in caplog.text
    assert Counter(e.kind for e in examples) == {
        **{"good": 2489, "texting": 4613, "talking": 4643, "gps": 2312}
    }
    train, test = driver.split(examples, 0, 16)
    assert len({e.group for e in train}) == 16 and len({e.group for e in test}) == 10
