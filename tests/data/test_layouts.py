"""Folders as people have them: nothing in them is dropped or mistaken without a word."""

import shutil

import numpy as np
import pytest
from helpers.made_up import make_folder, noise, write_image
from PIL import Image

from sparse_ad.data import Folder, load
from sparse_ad.data.decode import decode
from sparse_ad.data.sources import layouts
from sparse_ad.errors import UserError
from sparse_ad.types import LeftOut

WHITE = np.full((12, 10), 255, np.uint8)


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set")


def names(examples):
    return [example.path for example in examples]


def masks(root):
    """Which test images have a mask, by name."""
    return {each.path: each.mask.name for each in layouts.read(root).test if each.mask}


def move(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def test_folders_are_read_with_all_folders_below(root):
    before = layouts.read(root)
    move(root / "train" / "good" / "000.png", root / "train" / "good" / "b1" / "000.png")
    move(root / "test" / "crack" / "001.png", root / "test" / "crack" / "d1" / "d2" / "001.png")
    loaded = layouts.read(root)
    assert len(loaded.train) == len(before.train) and not loaded.left_out
    assert "train/good/b1/000.png" in names(loaded.train)
    deep = next(each for each in loaded.test if "d2" in each.path)
    assert (deep.kind, deep.label) == ("crack", 1)


@pytest.mark.parametrize("suffix", ["webp", "jp2", "ppm", "gif", "bmp", "tiff"])
def test_formats_that_are_read(root, suffix):
    path = root / "train" / "good" / f"more.{suffix}"
    Image.fromarray(noise(7)).save(path)
    splits = load(Folder(root=str(root), size=(8, 8)), seed=0)
    assert len(splits.train) + len(splits.calibration) == 6 and not splits.left_out


def test_what_is_not_used_is_counted_with_its_reason(root, caplog):
    (root / "readme.txt").write_text("")
    (root / "train" / "good" / "a.xyz").write_text("")
    (root / "train" / "good" / "b.xyz").write_text("")
    (root / "train" / "good" / "link.png").symlink_to(root / "nowhere.png")
    (root / "train" / "good" / ".DS_Store").write_text("")
    write_image(root / "train" / "bad" / "000.png", noise(1))
    write_image(root / "test" / "loose.png", noise(1))
    write_image(root / "more" / "000.png", noise(1))
    splits = load(Folder(root=str(root)), seed=0)
    assert set(splits.left_out) == {
        LeftOut("file beside the data", 2, "more/000.png"),
        LeftOut("no image: .xyz", 2, "train/good/a.xyz"),
        LeftOut("broken link", 1, "train/good/link.png"),
        LeftOut("in no folder of normal training images", 1, "train/bad/000.png"),
        LeftOut("in no folder of a kind", 1, "test/loose.png"),
    }
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("not used: 7 file(s): ")


def test_a_link_to_a_folder_is_followed_and_a_circle_ends(root, tmp_path):
    move(root / "train", tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "good" / "again").symlink_to(tmp_path / "elsewhere" / "good")
    assert len(layouts.read(root).train) == 5


@pytest.mark.parametrize("name", ["Good", "OK", "normal", "no-defect", "Healthy"])
def test_spellings_of_normal(root, name):
    move(root / "test" / "good", root / "test" / "x")
    move(root / "test" / "x", root / "test" / name)
    test = layouts.read(root).test
    assert [each.kind for each in test if not each.label] == ["good", "good"]


def test_a_name_of_normal_images_of_ones_own(root):
    move(root / "test" / "good", root / "test" / "Gut")
    move(root / "train" / "good", root / "train" / "gut")
    splits = load(Folder(root=str(root), normal=("gut",)), seed=0)
    assert sum(not each.label for each in splits.test) == 2


def test_a_test_set_without_normal_images_is_a_warning(root, caplog):
    move(root / "test" / "good", root / "test" / "fine")
    assert all(each.label for each in layouts.read(root).test)
    assert "no normal images; none of the folders crack, fine" in caplog.text


def test_training_images_may_lie_in_train_itself(root):
    for path in (root / "train" / "good").iterdir():
        move(path, root / "train" / path.name)
    (root / "train" / "good").rmdir()
    assert len(layouts.read(root).train) == 5


MASKED = {"test/crack/000.png": "000_mask.png"}
LAYOUTS = {  # where the mask of test/crack/000.png lies, without doubt
    "Ground_Truth/crack/000_mask.png": "000_mask.png",
    "masks/crack/000.png": "000.png",
    "ground_truth/crack/000/mask.png": "mask.png",
    "ground_truth/crack/000_gt.png": "000_gt.png",
}


@pytest.mark.parametrize("place", LAYOUTS)
def test_masks_are_found_where_there_is_no_doubt(root, place):
    mask = (root / "ground_truth" / "crack" / "000_mask.png").rename(root / "mask")
    shutil.rmtree(root / "ground_truth")
    move(mask, root / place)
    assert masks(root) == {"test/crack/000.png": LAYOUTS[place]}


def test_flat_masks_are_found_by_names_that_occur_once(root):
    move(root / "test" / "crack" / "000.png", root / "test" / "crack" / "007.png")
    mask = root / "ground_truth" / "crack" / "000_mask.png"
    move(mask, root / "ground_truth" / "007_mask.png")
    assert masks(root) == {"test/crack/007.png": "007_mask.png"}
    move(root / "ground_truth" / "007_mask.png", root / "ground_truth" / "000.png")
    write_image(root / "test" / "crack" / "000.png", noise(1))
    with pytest.raises(UserError, match=r"000\.png: is a mask of .*000\.png or of .*000\.JPG"):
        layouts.read(root)


def test_a_mask_without_its_image_is_counted(root):
    (root / "test" / "crack" / "000.png").unlink()
    left_out = layouts.read(root).left_out
    assert left_out == (LeftOut("mask without its image", 1, "ground_truth/crack/000_mask.png"),)


def test_two_files_that_both_could_be_the_mask_are_named(root):
    write_image(root / "ground_truth" / "crack" / "000.png", WHITE)
    with pytest.raises(UserError, match=r"000\.png and .*000_mask\.png: both could be the mask"):
        layouts.read(root)


def test_two_folders_of_masks_are_named(root):
    write_image(root / "masks" / "crack" / "001.png", WHITE)
    with pytest.raises(UserError, match=r"ground_truth and .*masks: both could be meant"):
        layouts.read(root)


def test_a_mask_that_marks_a_normal_image_is_named(root):
    write_image(root / "ground_truth" / "good" / "000_mask.png", 0 * WHITE)
    assert masks(root) == MASKED  # black: as it should be
    write_image(root / "ground_truth" / "good" / "000_mask.png", WHITE)
    with pytest.raises(UserError, match=r"000_mask\.png: marks 120 pixels of test/good/000\.JPG"):
        layouts.read(root)


@pytest.mark.parametrize(
    ("content", "message"), [(WHITE // 255, "largest mask value is 1 of 255"), (None, "cannot be")]
)
def test_masks_are_read_before_the_fit(root, content, message):
    mask = root / "ground_truth" / "crack" / "000_mask.png"
    mask.write_bytes(mask.read_bytes()[:40])
    if content is not None:
        write_image(mask, content)
    with pytest.raises(UserError, match=f"000_mask.*{message}"):
        layouts.read(root)


def test_normal_images_alone_are_enough(root):
    shutil.rmtree(root / "test")
    loaded = layouts.read(root)
    assert len(loaded.train) == 5 and loaded.test == ()
    assert loaded.left_out == (
        LeftOut("file beside the data", 1, "ground_truth/crack/000_mask.png"),
    )


def test_a_flat_folder_holds_normal_images(root, caplog):
    flat = root / "train" / "good"
    assert len(layouts.read(flat).train) == 5
    assert "all images in it are taken to be normal" in caplog.text


def test_a_file_of_several_images_says_so(root):
    pages = [Image.fromarray(noise(seed)) for seed in range(3)]
    path = root / "train" / "good" / "pages.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"pages\.tiff: holds 3 images"):
        decode(path, (8, 8), "rgb")


def test_masks_beside_their_images_are_no_images(root):
    mask = root / "ground_truth" / "crack" / "000_mask.png"
    move(mask, root / "test" / "crack" / "000_mask.png")
    shutil.rmtree(root / "ground_truth")
    assert masks(root) == MASKED and len(layouts.read(root).test) == 4


def test_folders_of_kinds_alone_are_split(root):
    """OK and NG, as cameras on a line store them."""
    move(root / "train" / "good", root / "OK")
    move(root / "test" / "crack", root / "NG")
    for name in ("train", "test", "ground_truth"):
        shutil.rmtree(root / name)
    splits = load(Folder(root=str(root), test_fraction=0.4), seed=0)
    assert [(each.path, each.label) for each in splits.test if each.label] == [
        ("NG/000.png", 1),
        ("NG/001.png", 1),
    ]
    assert sum(not each.label for each in splits.test) == 2
    assert len(splits.train) + len(splits.calibration) == 3
    other = load(Folder(root=str(root), test_fraction=0.4), seed=5)
    assert names(other.test) != names(splits.test)


def test_results_in_the_folder_of_images_are_no_data(tmp_path, caplog):
    """Workdirs, predictions and evaluations, wherever they lie below it."""
    root = make_folder(tmp_path / "set")
    before = layouts.read(root)
    for folder, name in (
        ("W", "fit.json"),
        ("test/out", "results.json"),
        ("p", "predictions.json"),
    ):
        write_image(root / folder / "overlays" / "x.png", noise(0))
        (root / folder / name).write_text("{}")
    assert layouts.read(root) == before
    assert "holds results of a run or a prediction, and is left out" in caplog.text


def test_folders_of_normal_images_alone_have_none_to_test(tmp_path, caplog):
    root = make_folder(tmp_path / "set") / "train"
    loaded = layouts.read(root)
    assert len(loaded.train) == 5 and not loaded.test
    assert "none is for the test" in caplog.text


def test_a_kind_that_holds_the_masks_of_others_is_named(tmp_path):
    for kind in ("good", "bad"):
        for index in range(2):
            write_image(tmp_path / kind / f"{kind}{index}.png", noise(index))
            write_image(tmp_path / "marks" / f"{kind}{index}_mask.png", noise(index)[..., 0])
    with pytest.raises(UserError, match="marks: holds masks, by their names; call it"):
        layouts.read(tmp_path)


def test_names_of_normal_folders_that_are_not_there_are_named(tmp_path):
    for kind in ("OK", "NG"):
        write_image(tmp_path / kind / "a.png", noise(0))
    with pytest.raises(UserError, match=r"none of its folders \(NG, OK\) is called gut"):
        layouts.read(tmp_path, layouts.Rules(normal=("gut",)))
