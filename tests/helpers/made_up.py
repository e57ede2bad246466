"""Small data sets on disk, for tests."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

# Where real sets lie, for tests that skip without them.
ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("SPARSE_AD_DATA", ROOT.parent / "shared" / "data"))


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(seed: int, shape=(12, 10, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_folder(root: Path) -> Path:
    """Five training images, two good and two cracked test images, one of them with a mask."""
    for index in range(5):
        write_image(root / "train" / "good" / f"{index:03d}.png", noise(index))
    for index in range(2):
        write_image(root / "test" / "good" / f"{index:03d}.JPG", noise(10 + index))
        write_image(root / "test" / "crack" / f"{index:03d}.png", noise(20 + index))
    mask = np.zeros((12, 10), np.uint8)
    mask[3:6, 2:4] = 255
    write_image(root / "ground_truth" / "crack" / "000_mask.png", mask)
    return root


def make_ham10000(root: Path, lesions: int = 18) -> Path:
    """Two images of each lesion, in the two folders of the archive; each third is no nevus."""
    rows = ["lesion_id,image_id,dx"]
    others = ("akiec", "bcc", "bkl", "df", "mel", "vasc")
    for lesion in range(lesions):
        for part in (1, 2):
            name = f"ISIC_{part}{lesion:03d}"
            rows.append(f"HAM_{lesion},{name},{'nv' if lesion % 3 else others[lesion // 3 % 6]}")
            pixels = noise(2 * lesion + part)
            write_image(root / f"HAM10000_images_part_{part}" / f"{name}.jpg", pixels)
    (root / "HAM10000_metadata.csv").write_text("\n".join(rows))
    return root


def make_driver(root: Path, drivers: int = 5) -> Path:
    """Each driver once in each class c0 to c9."""
    rows = ["subject,classname,img"]
    for driver in range(drivers):
        for kind in range(10):
            rows.append(f"p{driver},c{kind},img_{driver}.jpg")
            write_image(root / "train" / f"c{kind}" / f"img_{driver}.jpg", noise(driver))
    (root / "driver_imgs_list.csv").write_text("\n".join(rows))
    return root
