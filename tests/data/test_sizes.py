"""Images keep their aspect: the size is that of the median training image; others are a warning."""

import math

import numpy as np
import pytest
from helpers.made_up import make_folder, noise, write_image
from PIL import Image

from sparse_ad.data import SOURCES, sizes
from sparse_ad.data.images import Images
from sparse_ad.data.sizes import choose_size, find_size, median_aspect, warn_of_stretched
from sparse_ad.data.sources.folder import Folder
from sparse_ad.errors import FieldError, UserError
from sparse_ad.types import Example


def examples(*shapes):
    """Blank images of these heights and widths."""
    names = [f"{index:04d}" for index in range(len(shapes))]
    return [
        Example(np.zeros(shape, np.uint8), 0, "good", None, name, name)
        for name, shape in zip(names, shapes, strict=True)
    ]


@pytest.mark.parametrize(
    ("side", "aspect", "stride", "size"),
    [
        (256, 1.0, 16, (256, 256)),
        (256, 128 / 512, 16, (128, 512)),
        (256, 324 / 270, 16, (288, 240)),  # 280.4 and 233.7
        (166, 150 / 200, 8, (144, 192)),  # 143.8 and 191.7
        (36, 4.0, 16, (80, 16)),  # 72 is 4.5 strides: up
        (64, 1 / 100, 16, (16, 640)),  # 6.4: one stride
        (5, 1.0, 16, (16, 16)),
        (100, 1.0, 1, (100, 100)),
    ],
)
def test_sizes_computed_by_hand(side, aspect, stride, size):
    assert choose_size(side, aspect, stride) == size
    assert choose_size(side, 1 / aspect, stride) == size[::-1]


def test_sides_are_multiples_and_the_area_is_kept():
    rng = np.random.default_rng(0)
    for aspect, stride in zip(
        np.exp(rng.uniform(-1.4, 1.4, 200)), (1, 8, 16, 32) * 50, strict=True
    ):
        size = choose_size(1024, aspect, stride)
        assert not any(side % stride for side in size)
        assert math.prod(size) == pytest.approx(1024**2, rel=0.07)
        assert size[0] / size[1] == pytest.approx(aspect, rel=0.07)
        assert choose_size(1024, 1 / aspect, stride) == size[::-1]


def test_the_median_of_an_even_number_is_that_of_the_turned_images():
    aspects = np.array([4.0, 0.2, 0.5, 2.0])
    assert median_aspect(aspects) == 1.0
    assert median_aspect(aspects[:3]) == 0.5


@pytest.mark.parametrize("shapes", [[(20, 80)], [(20, 80), (60, 40), (40, 60), (90, 30), (12, 10)]])
def test_turned_images_have_the_turned_size(shapes):
    images = Images(size=(96,))
    size = find_size(images, 16, examples(*shapes), 0).size
    assert find_size(images, 16, examples(*(shape[::-1] for shape in shapes)), 0).size == size[::-1]


def test_an_exact_size_is_kept_and_that_of_a_fit_too():
    assert find_size(Images(size=(48, 40)), 16, examples((20, 20)), 0).size == (48, 40)
    assert find_size(Images(size=(48,)), 16, examples((20, 20)), 0, (32, 64)).size == (32, 64)


def test_the_size_is_logged(caplog):
    with caplog.at_level("INFO", logger="sparse_ad"):
        find_size(Images(size=(256,)), 16, examples((324, 270), (324, 270)), 0)
    assert caplog.messages == ["images at 288 x 240: the median aspect of 2 training images"]


def test_orientations_count_where_they_are_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(0, (20, 80, 3))).save(tmp_path / "a.jpg", exif=exif)
    turned = [Example(tmp_path / "a.jpg", 0, "good", None, "a", "a")]
    assert find_size(Images(size=(64,)), 16, turned, 0).size == (32, 128)
    assert find_size(Images(size=(64,), exif="apply"), 16, turned, 0).size == (128, 32)


def test_at_most_so_many_images_are_drawn_by_seed(monkeypatch):
    monkeypatch.setattr(sizes, "MOST", 5)
    opened = []
    monkeypatch.setattr(
        sizes, "image_shape", lambda image, path, options: opened.append(path) or (20, 20)
    )
    drawn = []
    for seed in (0, 0, 1):
        opened.clear()
        find_size(Images(size=(32,)), 16, examples(*[(20, 20)] * 30), seed)
        drawn.append(tuple(opened))
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[2]) == 5


def test_images_that_cannot_be_read_do_not_count():
    broken = Example(b"no image", 0, "good", None, "b", "broken.png")
    assert find_size(Images(size=(64,)), 16, [broken, *examples((20, 80))], 0).size == (32, 128)
    assert find_size(Images(size=(64, 64)), 16, [broken], 0).size == (64, 64)  # the fit names it
    with pytest.raises(UserError, match=r"^broken\.png: cannot be read"):
        find_size(Images(size=(64,)), 16, [broken], 0)


def test_mixed_aspects_are_one_warning(caplog):
    find_size(Images(size=(64,)), 16, examples(*[(40, 40)] * 6, *[(40, 80)] * 4), 0)
    assert caplog.messages == [
        "training images differ in aspect: height / width from 0.5 to 1 (90 % of 10): 4 of them "
        "are stretched by more than a factor of 1.25, to 64 x 64"
    ]


@pytest.mark.parametrize("shape", [(40, 40), (50, 40), (40, 50)])
def test_a_factor_of_125_is_no_warning(shape, caplog):
    train = examples(*[shape] * 3, (40, 40))
    find_size(Images(size=(64, 64)), 16, train, 0)
    assert warn_of_stretched("test", train, Images(size=(64, 64))) == 0
    assert not caplog.messages


@pytest.mark.parametrize("shape", [(20, 80), (80, 20)])
def test_a_size_that_squashes_most_images_is_told_with_the_remedy(shape, caplog):
    find_size(Images(size=(64, 64)), 16, examples(*[shape] * 3), 0)
    (message,) = caplog.messages
    assert message.startswith("data.size = (64, 64) stretches training images")
    assert message.endswith("by a factor of 4.00: (64,) keeps their aspect")


def test_training_images_that_are_stretched_are_counted():
    train = examples(*[(40, 40)] * 6, *[(40, 80)] * 4)
    assert find_size(Images(size=(64,)), 16, train, 0).stretched == 4
    assert find_size(Images(size=(64, 64)), 16, train[:6], 0).stretched == 0


@pytest.mark.parametrize(
    ("side", "stride", "message"),
    [
        (24, 64, "data.size = (24,): images are 64 x 64, 7.1 times the pixels asked for: "),
        (90, 64, "data.size = (90,): images are 64 x 64, 0.51 times the pixels asked for: "),
        (64, 16, ""),
    ],
)
def test_a_stride_that_changes_the_pixels_by_far_is_told(side, stride, message, caplog):
    find_size(Images(size=(side,)), stride, examples((40, 40)), 0)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == bool(message)
    assert all(each.startswith(message) and "multiples of 64" in each for each in warnings)


@pytest.mark.parametrize("size", [(100000,), (8192, 8193)])
def test_sizes_have_a_limit(size):
    with pytest.raises(FieldError, match=r"^size = .*: these are \d+ pixels, at most 67108864"):
        Folder(size=size)


def test_other_images_are_counted(caplog):
    new = examples((20, 80), (20, 80), (80, 20), (40, 40))
    assert warn_of_stretched("new", new, Images(size=(32, 128))) == 2
    assert caplog.messages == [
        "2 of 4 new images are stretched by more than a factor of 1.25: height / width from 0.25 "
        "to 4, that of the model 0.25 (32 x 128)"
    ]


@pytest.mark.parametrize("size", [(0,), (-4,), (), (8, 8, 8), (True, 8), (8, 0)])
def test_a_size_is_one_or_two_whole_numbers(size):
    with pytest.raises(FieldError, match=r"^size = .*: give \(height, width\), or one number"):
        Folder(size=size)


def test_one_number_is_no_size_yet():
    images = Folder(size=(40,))
    assert images.exact is None
    with pytest.raises(FieldError, match=r"^size = \(40,\): depends on training images"):
        _ = images.shape


def test_generated_images_of_one_number_are_square():
    images = SOURCES["generated"](size=(40,), count=(1, 0, 1))
    assert images.exact == images.pair == (40, 40) and images.shape == (40, 40, 1)
    shapes = [each.image.shape for part in images.load(0)[:2] for each in part]
    assert shapes == [(40, 40, 3)] * 2


def test_ignore_masks_are_checked_at_the_size_of_their_image(tmp_path):
    root = make_folder(tmp_path / "set")
    mask = np.full((12, 10), 255, np.uint8)
    write_image(tmp_path / "all.png", mask)
    with pytest.raises(UserError, match="ignores all 10x12 pixels"):
        Folder(root=str(root), size=(32,), ignore=str(tmp_path / "all.png")).load(0)
