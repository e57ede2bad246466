"""Files as they are stored: large ones, every depth, EXIF orientation; what PIL would change."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.made_up import make_folder, noise, write_image
from PIL import Image, ImageOps

from sparse_ad.data import Folder
from sparse_ad.data.decode import decode, decode_mask, image_shape
from sparse_ad.data.pipeline import scoring_batches
from sparse_ad.data.reading import Decoding, find_largest, find_orientation
from sparse_ad.errors import FieldError, UserError
from sparse_ad.system.command_line import load_experiment

RAMP = np.arange(120).reshape(12, 10)


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG of any header, also of what PIL does not write. kind: 0 grey, 2 RGB."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def tiff(pixels: np.ndarray) -> bytes:
    """A TIFF of the type of the pixels, also of what PIL does not write."""
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    height, width = pixels.shape
    size, start = pixels.nbytes, 8 + 2 + 9 * 12 + 4
    tags = ((256, width), (257, height), (258, 8 * pixels.itemsize), (259, 1), (262, 1))
    tags += ((273, start), (278, height), (279, size), (339, kind))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels.tobytes()


def turned(pixels: np.ndarray, orientation: int, format="JPEG") -> bytes:
    """A file whose tag says how viewers turn it."""
    stream, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(stream, format, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("side", [9460, 13400])  # above PIL's own limit, and above twice that
def test_huge_images_are_told_by_their_header(tmp_path, side):
    path = tmp_path / "huge.png"
    path.write_bytes(png(side, side, 1, 0, b""))
    message = rf"huge\.png: {side}x{side} is over data\.max_pixels = 89478485: raise it, or cut"
    for read in (
        lambda: decode(path, (8, 8), "grey"),
        lambda: image_shape(path),
        lambda: decode_mask(path, (8, 8), (side, side)),
    ):
        with pytest.raises(UserError, match=message):
            read()
    assert image_shape(path, options=Decoding(side**2)) == (side, side)


def test_the_limit_may_be_lower_and_is_that_of_images_and_masks(tmp_path):
    encoded = write_image(tmp_path / "a.png", noise(0, (12, 10)))
    decode(encoded, (8, 8), "grey", options=Decoding(120))
    with pytest.raises(UserError, match=r"10x12 is over data\.max_pixels = 119"):
        decode(encoded, (8, 8), "grey", options=Decoding(119))
    root = make_folder(tmp_path / "set")
    write_image(root / "test" / "crack" / "000.png", noise(1, (40, 30)))
    mask = write_image(root / "ground_truth" / "crack" / "000_mask.png", noise(1, (40, 30)))
    Folder(root=str(root), max_pixels=1200).load(0)
    loaded = Folder(root=str(root), max_pixels=1199).load(0)  # found when it is scored
    (batch,) = scoring_batches(loaded.test[:1], Folder(max_pixels=1199, workers=0), 1)
    assert "000.png: 30x40 is over data.max_pixels" in batch.problem[0]
    write_image(root / "test" / "crack" / "000.png", noise(1, (12, 10)))
    with pytest.raises(UserError, match=rf"{mask.name}: 30x40 is over"):
        Folder(root=str(root), max_pixels=1199).load(0)


VALUES = {  # stored values, and the range that covers them
    "signed 16-bit": (RAMP.astype(np.int16) - 50, (-50.0, 69.0)),
    "signed 32-bit": (RAMP.astype(np.int32) * 70000 - 9, (-9.0, 119 * 70000 - 9.0)),
    "unsigned 32-bit": (RAMP.astype(np.uint32) * 36000000, (0.0, 119 * 36000000.0)),
    "float": (RAMP.astype(np.float32) * 2, (0.0, 238.0)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_beyond_a_type_need_a_range(name):
    pixels, ends = VALUES[name]
    with pytest.raises(UserError, match=r"a\.tif: .*set data\.range"):
        decode(tiff(pixels), (12, 10), "grey", "a.tif")
    grey = decode(tiff(pixels), (12, 10), "grey", options=Decoding(range=ends))
    np.testing.assert_allclose(grey[..., 0], RAMP / 119, atol=1e-6)


def test_32_bit_integers_up_to_65535_are_16_bit():
    grey = decode(tiff(RAMP.astype(np.int32) * 500), (12, 10), "grey")
    np.testing.assert_allclose(grey[..., 0], RAMP * 500 / 65535, rtol=1e-6)


def test_signed_bytes_are_not_taken_for_unsigned():
    with pytest.raises(UserError, match=r"a\.tif: .*signed 8-bit values"):
        decode(tiff(RAMP.astype(np.int8) - 9), (12, 10), "grey", "a.tif")


def wide(columns: int) -> bytes:
    """Rows of 16-bit colours, as PNG stores them."""
    deep = np.repeat(RAMP[..., None] * 30, columns, 2).astype(">u2")
    return b"".join(b"\0" + row.tobytes() for row in deep)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (png(10, 12, 16, 2, wide(3)), "16-bit colours"),
        (b"P5 10 12 4095\n" + (RAMP * 30).astype(">u2").tobytes(), "values of this PPM file"),
        (b"P2 10 12 200\n" + b" 1" * 120, "values of this PPM file"),
    ],
)
def test_values_that_pil_scales_fit_no_range(encoded, message):
    decode(encoded, (12, 10), "grey")
    with pytest.raises(UserError, match=f"{message} may be scaled .* data.range does not fit"):
        decode(encoded, (12, 10), "grey", options=Decoding(range=(0.0, 4095.0)))


def test_8_bit_files_fit_a_range():
    encoded = b"P5 10 12 255\n" + RAMP.astype(np.uint8).tobytes()
    grey = decode(encoded, (12, 10), "grey", options=Decoding(range=(0.0, 119.0)))
    np.testing.assert_allclose(grey[..., 0], RAMP / 119, rtol=1e-6)


def test_depth_is_that_of_the_header():
    deep = (RAMP * 30).astype(np.uint16)
    stored = (tiff(deep), png(10, 12, 16, 0, wide(1)), deep)
    assert [find_largest(each, Decoding()) for each in stored] == [3570] * 3
    shallow = (RAMP.astype(np.uint8), tiff(RAMP.astype(np.float32) / 119))
    assert [find_largest(each, Decoding()) for each in shallow] == [None] * 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_ignored_or_applied_as_by_viewers(format, orientation):
    corner = np.zeros((16, 24, 3), np.uint8)
    corner[:8, :8] = 255
    encoded = turned(corner, orientation, format)
    assert find_orientation(encoded) == orientation
    stored = decode(encoded, (16, 24), "rgb")
    np.testing.assert_allclose(stored, corner / 255, atol=0.1)
    assert image_shape(encoded) == (16, 24)
    with Image.open(io.BytesIO(encoded)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    apply = Decoding(exif="apply")
    assert image_shape(encoded, options=apply) == shown.shape[:2]
    np.testing.assert_array_equal(decode(encoded, shown.shape[:2], "rgb", "", apply) * 255, shown)


def test_masks_are_held_against_the_turned_image():
    """A mask as viewers see the image, or turned by a tag of its own."""
    image, apply = turned(noise(0, (16, 24, 3)), 6), Decoding(exif="apply")
    mask = np.zeros((16, 24), np.uint8)
    mask[:4, :6] = 255
    shape, shown = image_shape(image, options=apply), np.rot90(mask, -1)
    for encoded in (turned(mask, 6, "PNG"), np.ascontiguousarray(shown)):
        found = decode_mask(encoded, shape, shape, options=apply)
        np.testing.assert_array_equal(found, shown > 0)
    with pytest.raises(UserError, match=r"24x16 and its image is 16x24.*exif = apply"):
        decode_mask(mask, shape, shape, options=apply)


def test_what_is_no_image_has_no_orientation(tmp_path):
    assert find_orientation(b"junk") == find_orientation(tmp_path / "gone.jpg") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("range=(0,)", r"data\.range = \(0\.0,\): give \(black, white\), two finite values"),
        ("range=(5,5)", r"data\.range = \(5\.0, 5\.0\): give"),
        ("range=(0,1e999)", r"data\.range = inf: give a finite number"),
        ("range=('a','b')", r"data\.range = 'a': give a value of type float"),
        ("max_pixels=0", r"data\.max_pixels = 0: must be at least 1"),
        ("exif=on", r"data\.exif = 'on': choose one of apply, ignore"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(FieldError, match=message):
        load_experiment("configs/sparse_patches.py", [f"data.{change}"])


def test_options_from_the_command_line():
    changes = ["data.range=(0,4095)", "data.exif=apply", "data.max_pixels=200000000"]
    data = load_experiment("configs/sparse_patches.py", changes).data
    assert (data.range, data.exif, data.max_pixels) == ((0.0, 4095.0), "apply", 200000000)
