"""Decoding against PIL's own conversions and closed forms, and what is not an image."""

import io

import numpy as np
import pytest
from helpers.made_up import noise, write_image
from PIL import Image

from sparse_ad.data.decode import decode, decode_mask
from sparse_ad.data.reading import Decoding
from sparse_ad.errors import UserError


def encode(image, format="PNG", **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        stream, format, **options
    )
    return stream.getvalue()


def test_rgb_pixels_are_exact_and_grey_is_luma():
    pixels = noise(0)
    rgb = decode(encode(pixels), (12, 10), "rgb")
    assert rgb.dtype == np.float32
    np.testing.assert_array_equal(np.round(rgb * 255), pixels)
    grey = decode(encode(pixels), (12, 10), "grey")
    reference = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.abs(grey[..., 0] * 255 - reference).max() <= 0.51  # PIL rounds to 8 bits


def test_grey_files_become_three_equal_channels():
    rgb = decode(encode(noise(0, (12, 10))), (12, 10), "rgb")
    assert rgb.shape == (12, 10, 3)
    assert (rgb == rgb[..., :1]).all()


def test_sixteen_bits_keep_their_depth():
    pixels = np.arange(120, dtype=np.uint16).reshape(12, 10) * 5 + 30000
    for encoded in (encode(pixels), encode(pixels, "TIFF"), pixels):
        grey = decode(encoded, (12, 10), "grey")
        np.testing.assert_allclose(grey[..., 0] * 65535, pixels, atol=0.01)
    rgb = np.stack([pixels, pixels // 2, pixels // 3], -1)
    luma = rgb @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decode(rgb, (12, 10), "grey")[..., 0] * 65535, luma, atol=0.02)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_keep_their_colours(mode):
    pixels = np.zeros((12, 10, 3), np.uint8)
    pixels[:6] = 255
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(noise(0, (12, 10))))
    encoded = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(decode(encoded, (12, 10), "rgb") * 255, pixels)


def test_float_tiff_is_taken_as_it_is_and_must_be_in_range():
    pixels = np.linspace(0, 1, 120, dtype=np.float32).reshape(12, 10)
    np.testing.assert_array_equal(decode(encode(pixels, "TIFF"), (12, 10), "grey")[..., 0], pixels)
    for wrong in (np.nan, np.inf, 1.5, -0.1):
        broken = pixels.copy()
        broken[3, 3] = wrong
        for encoded in (encode(broken, "TIFF"), broken):
            with pytest.raises(UserError, match=r"part\.tif.*finite and in 0\.\.1"):
                decode(encoded, (12, 10), "grey", "part.tif")


def test_resize_is_antialiased_and_keeps_the_orientation():
    # The finest checkerboard must become flat grey, not alias to black and white.
    board = np.indices((64, 64)).sum(0) % 2
    small = decode((255 * board).astype(np.uint8), (8, 8), "grey")[2:-2, 2:-2]
    np.testing.assert_allclose(small, 0.5, atol=0.02)
    ramp = np.repeat(np.linspace(0, 1, 40)[None], 20, 0)
    resized = decode(np.stack([ramp, 0 * ramp, 1 - ramp], -1), (10, 30), "rgb")
    assert resized.shape == (10, 30, 3)
    assert (np.diff(resized[..., 0], axis=1) > 0).all()
    assert np.abs(np.diff(resized, axis=0)).max() < 1e-6


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_truncated_and_foreign_files_are_named(tmp_path, suffix):
    path = write_image(tmp_path / f"image.{suffix}", noise(0, (40, 40, 3)))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not an image", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"image\.{suffix}.*replace or delete") as error:
            decode(path, (8, 8), "grey")
        assert "\n" not in str(error.value)


def test_missing_file_and_one_pixel_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png"):
        decode(tmp_path / "gone.png", (8, 8), "grey")
    path = write_image(tmp_path / "dot.png", noise(0, (1, 1, 3)))
    with pytest.raises(UserError, match=r"dot\.png: 1x1 pixels"):
        decode(path, (8, 8), "grey")


def test_a_range_says_which_values_are_black_and_white():
    pixels = np.arange(120, dtype=np.uint16).reshape(12, 10) * 34  # of 12 bits
    for encoded in (encode(pixels), encode(pixels, "TIFF"), pixels):
        grey = decode(encoded, (12, 10), "grey", options=Decoding(range=(0.0, 4095.0)))
        np.testing.assert_allclose(grey[..., 0], pixels / 4095, rtol=1e-6)
    for ends in ((0.0, 4045.0), (1.0, 4095.0)):
        message = r"a\.png: values from 0 to 4046: .* within data\.range = .*; widen it"
        with pytest.raises(UserError, match=message):
            decode(encode(pixels), (12, 10), "grey", "a.png", Decoding(range=ends))
    floats = np.linspace(-3, 7, 120, dtype=np.float32).reshape(12, 10)
    grey = decode(encode(floats, "TIFF"), (12, 10), "grey", options=Decoding(range=(-3.0, 7.0)))
    np.testing.assert_allclose(grey[..., 0], np.linspace(0, 1, 120).reshape(12, 10), atol=1e-6)
    with pytest.raises(UserError, match=r"from nan to nan: must be finite"):
        decode(floats * np.nan, (12, 10), "grey", options=Decoding(range=(-3.0, 7.0)))


def test_an_8_bit_image_among_deeper_ones_is_named():
    with pytest.raises(UserError, match=r"a\.png: is of 8 bits and data\.range = \(0, 4095\) goes"):
        decode(encode(noise(0)), (8, 8), "grey", "a.png", Decoding(range=(0.0, 4095.0)))


@pytest.mark.parametrize("type", [np.uint8, np.uint16])
def test_the_range_of_a_type_changes_no_bit(type):
    top = np.iinfo(type).max
    levels = np.arange(top + 1, dtype=type).reshape(2, -1)
    found = decode(levels, levels.shape, "grey", options=Decoding(range=(0.0, float(top))))
    np.testing.assert_array_equal(found, decode(levels, levels.shape, "grey"))


def test_mask_threshold_and_resize():
    mask = np.full((8, 8), 127, np.uint8)  # noise of a lossy file: not a defect
    mask[:4, :4] = 128
    expected = np.zeros((8, 8), bool)
    expected[:4, :4] = True
    np.testing.assert_array_equal(decode_mask(encode(mask), (8, 8), (8, 8)), expected)
    np.testing.assert_array_equal(decode_mask(mask, (4, 2), (8, 8)), expected[::2, ::4])
    half = np.zeros((4, 4), bool)
    half[:, 0] = True  # covers just half of each left pixel
    np.testing.assert_array_equal(decode_mask(half, (2, 2), (4, 4)), [[True, False]] * 2)
    ranged = Decoding(range=(0.0, 4095.0))  # of images
    np.testing.assert_array_equal(decode_mask(mask, (8, 8), (8, 8), options=ranged), expected)
    dot = np.zeros((8, 8), bool)
    dot[5, 1] = True  # too small for half a pixel, but the image is marked
    np.testing.assert_array_equal(decode_mask(dot, (2, 2), (8, 8)), [[False] * 2, [True, False]])
    assert not decode_mask(np.zeros((8, 8), bool), (2, 2), (8, 8)).any()


def test_mask_of_another_size_or_scale_is_named():
    for exif in ("ignore", "apply"):
        with pytest.raises(UserError, match=rf"a_mask.*10x8.*12x8.*\(data.exif = {exif}\)"):
            options = Decoding(exif=exif)
            decode_mask(np.zeros((8, 10), np.uint8), (8, 8), (8, 12), "a_mask", options)
    with pytest.raises(UserError, match=r"a_mask.*largest mask value is 1 "):
        decode_mask(np.eye(8, dtype=np.uint8), (8, 8), (8, 8), "a_mask")
    assert not decode_mask(np.zeros((8, 8), np.uint8), (8, 8), (8, 8)).any()
