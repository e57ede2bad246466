"""Pixels to ignore: which masks belong to which images, and what decoding makes of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.made_up import make_folder, noise, write_image
from PIL import ExifTags, Image

from sparse_ad.data import Elpv, Folder, load
from sparse_ad.data.decode import decode
from sparse_ad.data.ignored import decode_ignored
from sparse_ad.data.images import Images
from sparse_ad.data.pipeline import decoded_images, scoring_batches, training_batches
from sparse_ad.data.sources.ignored import with_ignored
from sparse_ad.errors import UserError
from sparse_ad.types import Example, LeftOut

SHAPE = (12, 10)
CORNER = np.zeros(SHAPE, np.uint8)
CORNER[:5, :4] = 255
OPTIONS = Images(size=(6, 5))


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set")


@pytest.fixture
def mask(tmp_path):
    return write_image(tmp_path / "ignore.png", CORNER)


def read(root, ignore, **options):
    return load(Folder(root=str(root), ignore=str(ignore), **options), seed=0)


def ignored(splits) -> dict[str, str]:
    """The name of each image that has an ignore mask -> the name of that."""
    examples = splits.train + splits.calibration + splits.test
    return {each.path: each.ignore.name for each in examples if each.ignore}


def example(image, mask) -> Example:
    return Example(image, 0, "good", None, "a", "image a", mask)


@pytest.mark.parametrize("size", [(12, 10), (6, 5), (5, 7), (3, 3), (20, 30)])
def test_kept_pixels_do_not_depend_on_ignored_ones(size):
    rng = np.random.default_rng(0)
    for mask in (CORNER > 0, rng.random(SHAPE) < 0.03):
        images = [noise(0), np.where(mask[..., None], noise(1), noise(0))]
        one, other = (decode(image, size, "rgb") for image in images)
        kept = ~decode_ignored(mask, size, SHAPE, "mask")
        np.testing.assert_array_equal(one[kept], other[kept])
        assert kept.any() and not kept.all()
        exact = [
            next(iter(decoded_images([example(i, mask)], Images(size=size, color="rgb"))))
            for i in images
        ]
        np.testing.assert_array_equal(*exact)
        np.testing.assert_array_equal(exact[0][kept], one[kept])


def test_an_ignored_pixel_has_the_value_of_the_nearest_kept_one():
    image = np.tile(np.arange(10, dtype=np.uint8), (12, 1))
    mask = np.zeros(SHAPE, bool)
    mask[:, 3:6] = True
    (filled,) = decoded_images([example(image, mask)], Images(size=SHAPE))
    expected = np.array([0, 1, 2, 2, 2, 6, 6, 7, 8, 9], np.float32) / 255
    np.testing.assert_array_equal(np.delete(filled[0, :, 0], 4), np.delete(expected, 4))
    assert filled[0, 4, 0] in expected[[2, 6]]  # as near to one side as to the other


def test_batches_say_which_pixels_were_ignored(mask):
    examples = [example(noise(0), mask), example(noise(1), None), example(b"junk", mask)]
    (batch,) = scoring_batches(examples, OPTIONS, 4)
    expected = decode_ignored(CORNER, OPTIONS.size, SHAPE, "mask")
    np.testing.assert_array_equal(batch.ignored[0], expected)
    assert not batch.ignored[1:3].any() and batch.valid.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(batch.ignored[3], expected)  # padding: as the first image
    trained = next(training_batches(examples[:1], OPTIONS, 1, seed=0))
    np.testing.assert_array_equal(trained.image[0], batch.image[0])
    assert not np.array_equal(batch.image[0], decode(noise(0), OPTIONS.size, "grey"))


def test_a_mask_that_changes_is_read_again(mask):
    def count():
        (batch,) = scoring_batches([example(noise(0), mask)], OPTIONS, 1)
        return batch.ignored.sum()

    before = count()
    write_image(mask, np.where(CORNER.T[::-1].T, 255, 0).astype(np.uint8)[::-1] | CORNER)
    os.utime(mask, ns=(1, 1))
    assert count() == 2 * before


def test_a_mask_that_does_not_fit_a_new_image_is_the_problem_of_that_image(mask):
    examples = [example(noise(0, (8, 8)), mask), example(noise(1), mask)]
    (batch,) = scoring_batches(examples, OPTIONS, 2)
    assert batch.valid.tolist() == [False, True]
    assert batch.problem[0].startswith(f"image a: {mask}: mask is 10x12 and its image is 8x8")


def test_one_mask_for_all_images(root, mask):
    splits = read(root, mask)
    assert set(ignored(splits).values()) == {"ignore.png"} and len(ignored(splits)) == 9
    assert not splits.left_out


def lay_out(folder):
    """Masks of three images, one file that is no image, and one mask whose image is not there."""
    for name in ("train/good/000.png", "train/good/001_mask.bmp", "test/crack/000-mask.png"):
        write_image(folder / name, CORNER)
    write_image(folder / "test" / "crack" / "900.png", CORNER)
    write_image(folder / "000.png", CORNER)  # flat: not where its image is
    (folder / "notes.txt").write_text("")


@pytest.mark.parametrize("place", ["../ignore", "ignore", "train/ignore", "test/ignore", "masks"])
def test_a_folder_of_masks_for_each_image(root, place, caplog):
    """It may lie anywhere, even where the masks of defects might: it is not taken for data."""
    folder = root / place
    lay_out(folder)
    splits = read(root, folder)
    assert ignored(splits) == {
        "train/good/000.png": "000.png",
        "train/good/001.png": "001_mask.bmp",
        "test/crack/000.png": "000-mask.png",
    }
    assert set(splits.left_out) == {
        LeftOut("ignore mask without its image", 2, "000.png"),
        LeftOut("no image: .txt", 1, "notes.txt"),
    }
    assert [each.kind for each in splits.test] == ["crack"] * 2 + ["good"] * 2
    assert [bool(each.mask) for each in splits.test] == [True] + [False] * 3
    (missing,) = [text for text in caplog.messages if "holds no mask" in text]
    assert f"{folder}: holds no mask of 6 of 9 images, such as" in missing


@pytest.mark.parametrize("ignore", ["ignore.png", "ignore"])
def test_all_layouts(tmp_path, ignore, caplog):
    kinds, flat = tmp_path / "kinds", tmp_path / "flat"
    for index in range(6):
        write_image(kinds / "OK" / f"{index}.png", noise(index))
        write_image(kinds / "NG" / f"{index}.png", noise(9 + index))
        write_image(flat / f"{index}.png", noise(index))
    one = "" if ignore.endswith(".png") else "0.png"
    write_image(kinds / ignore / (one and "OK") / one, CORNER)
    write_image(flat / ignore / one, CORNER)
    count = {"ignore.png": (6, 12), "ignore": (1, 1)}[ignore]
    splits = read(flat, flat / ignore)
    assert (len(splits.train + splits.calibration), len(ignored(splits))) == (6, count[0])
    splits = read(kinds, kinds / ignore)
    assert {each.kind for each in splits.test} == {"good", "NG"} and not splits.left_out
    assert (len(splits.train + splits.calibration + splits.test), len(ignored(splits))) == (
        12,
        count[1],
    )


def test_a_link_to_the_mask_is_no_image(root, mask):
    (root / "train" / "good" / "link.png").symlink_to(mask)
    assert len(ignored(read(root, root / "train" / "good" / "link.png"))) == 9


WRONG = {
    "a file that is missing": (None, r"^ignore = '.*ignore\.png': no such file or folder; give"),
    "another size": (CORNER[:6], r"^train/good/00\d\.png: .*ignore\.png: mask is 10x6 and its im"),
    "all of it": (CORNER | 255, r"ignore\.png: ignores all 10x12 pixels: mark fewer$"),
    "0 and 1": (CORNER // 255, r"ignore\.png: largest mask value is 1 of 255 .* as marked above"),
    "no image": (b"text", r"^train/good/00\d\.png: .*ignore\.png: cannot be read \(not an image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mask_that_cannot_be_used_is_one_line(root, tmp_path, case):
    content, message = WRONG[case]
    path = tmp_path / "ignore.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_image(path, content)
    with pytest.raises(UserError, match=message) as raised:
        read(root, path, size=SHAPE)
    assert "\n" not in str(raised.value)


def test_a_mask_of_one_image_that_cannot_be_used_is_one_line(root, tmp_path):
    lay_out(tmp_path / "ignore")
    write_image(tmp_path / "ignore" / "test" / "crack" / "000-mask.png", CORNER.T)
    with pytest.raises(UserError, match=r"^test/crack/000\.png: .*000-mask.png: mask is 12x10"):
        read(root, tmp_path / "ignore")


def test_no_pixel_left_at_the_size_of_decoding(root, tmp_path):
    mask = np.full(SHAPE, 255, np.uint8)
    mask[6, 5] = 0
    path = write_image(tmp_path / "ignore.png", mask)
    assert len(ignored(read(root, path, size=SHAPE))) == 9
    with pytest.raises(UserError, match=r"ignore\.png: ignores all 4x4 pixels: mark fewer"):
        read(root, path, size=(4, 4))


def test_an_empty_folder_of_masks_and_one_that_holds_the_images(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no masks; add"):
        read(root, tmp_path / "empty")
    for folder in (root, tmp_path):
        with pytest.raises(UserError, match=r"^ignore = .*: holds the images too; give a folder"):
            read(root, folder)


def test_two_masks_of_one_image_are_named(root, tmp_path):
    for name in ("000.png", "000_mask.png"):
        write_image(tmp_path / "ignore" / "test" / "crack" / name, CORNER)
    with pytest.raises(UserError, match=r"000\.png and .*000_mask\.png: both could be the mask"):
        read(root, tmp_path / "ignore")


def masks_of(options, folder, paths) -> dict:
    """{new image: its ignore mask}."""
    examples = [Example(path, 0, "", None, str(path), str(path)) for path in paths]
    return {each.image: each.ignore for each in with_ignored(options, folder, examples)}


def test_masks_of_new_images(root, tmp_path, mask, caplog):
    new = tmp_path / "new"
    paths = [write_image(new / name, noise(0)) for name in ("a.png", "b/a.png")]
    assert masks_of(Elpv(), new, paths) == dict.fromkeys(paths)
    assert masks_of(Folder(root=str(root)), new, paths) == dict.fromkeys(paths)
    one = Folder(root=str(root), ignore=str(mask))
    assert masks_of(one, new, paths) == dict.fromkeys(paths, mask)
    folder = tmp_path / "ignore"
    lay_out(folder)
    beside = write_image(folder / "b" / "a_mask.png", CORNER)
    each = Folder(root=str(root), ignore=str(folder))
    assert masks_of(each, new, paths) == {paths[0]: None, paths[1]: beside}
    assert "holds no mask of 1 of 2 images" in caplog.messages[-1]
    assert masks_of(each, None, paths) == dict.fromkeys(paths)
    assert "holds no mask of 2 of 2 images" in caplog.messages[-1]


def test_images_in_memory_have_the_mask_of_all_images(root, tmp_path, mask, caplog):
    arrays = [example(noise(0), None), example(noise(0), None)]
    options = Folder(root=str(root), ignore=str(mask))
    assert [each.ignore for each in with_ignored(options, None, arrays)] == [mask] * 2
    lay_out(tmp_path / "ignore")
    options = Folder(root=str(root), ignore=str(tmp_path / "ignore"))
    assert [each.ignore for each in with_ignored(options, None, arrays)] == [None] * 2
    assert "holds no mask of" in caplog.messages[-1]


def test_new_images_of_the_data_set_have_its_masks(root, monkeypatch):
    """Also where only a part of its folders is given, or by another path; masks are no images."""
    folder = root / "test" / "ignore"
    lay_out(folder)
    options = Folder(root=str(root), ignore=str(folder))
    monkeypatch.chdir(root / "test")
    part = Path("crack")
    paths = [part / "000.png", part / "001.png"]
    expected = dict(zip(paths, [folder / "test" / "crack" / "000-mask.png", None], strict=True))
    assert masks_of(options, part, paths) == masks_of(options, None, paths) == expected
    assert masks_of(options, Path(), [*paths, Path("ignore", "000.png")]) == expected
    (root.parent / "link").symlink_to(root)
    linked = root.parent / "link" / "test" / "crack" / "000.png"
    assert masks_of(options, linked.parent, [linked]) == {linked: expected[paths[0]]}
    with pytest.raises(UserError, match=r"ignore: is all that is given \(data\.ignore\)"):
        masks_of(options, Path(), [Path("ignore", "000.png")])


def test_masks_of_images_that_are_turned(tmp_path):
    """With exif = apply a mask lies on the image as viewers show it; a range is none of masks."""
    sideways = Image.Exif()
    sideways[ExifTags.Base.Orientation] = 6
    path = tmp_path / "a.png"
    Image.fromarray(noise(0, (10, 12))).save(path, exif=sideways)
    mask = write_image(tmp_path / "mask.png", CORNER)
    options = Images(size=SHAPE, exif="apply", range=(-1000.0, 255.0))
    (batch,) = scoring_batches([example(path, mask)], options, 1)
    np.testing.assert_array_equal(batch.ignored[0], CORNER > 0)
    kept = decode(path, SHAPE, "grey", options=options)
    np.testing.assert_array_equal(batch.image[0][CORNER == 0], kept[CORNER == 0])
    (batch,) = scoring_batches([example(path, mask)], Images(size=SHAPE), 1)
    assert "mask is 10x12 and its image is 12x10" in batch.problem[0]
