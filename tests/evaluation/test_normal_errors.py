"""The file of normal errors: whole, of this calibration, and of this detector, or an error."""

import jax
import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.evaluation.normal_errors import (
    NAME,
    is_whole,
    read_normal_errors,
    remove_unused,
    write_normal_errors,
)
from sparse_ad.methods.lifts.calibrated import NormalErrors

SHAPES = {"all": (3, 4), "deep/conv": (2, 3, 5)}
LIKE = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in SHAPES.items()}


def make(seed=0, **others):
    rng = np.random.default_rng(seed)
    parts = [
        {name: rng.uniform(1, 2, shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(2)
    ]
    return NormalErrors(*parts)._replace(**others)


def test_what_is_written_is_read(tmp_path):
    normal = make()
    sha256 = write_normal_errors(tmp_path, normal)
    found = read_normal_errors(tmp_path, sha256, LIKE)
    jax.tree.map(np.testing.assert_array_equal, found, normal)
    assert is_whole(tmp_path, sha256) and is_whole(tmp_path, "")
    assert write_normal_errors(tmp_path, make()) == sha256  # equal numbers, equal file
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_without_units_there_is_no_file(tmp_path):
    assert write_normal_errors(tmp_path, None) == ""
    write_normal_errors(tmp_path, make())
    remove_unused(tmp_path, "a hash")
    assert (tmp_path / NAME).exists()
    remove_unused(tmp_path, "")
    assert not (tmp_path / NAME).exists()
    remove_unused(tmp_path, "")


def test_another_file_is_not_believed(tmp_path):
    sha256 = write_normal_errors(tmp_path, make())
    write_normal_errors(tmp_path, make(1))
    assert not is_whole(tmp_path, sha256)
    with pytest.raises(UserError, match=f"{NAME}: does not belong .*; run --mode=evaluate"):
        read_normal_errors(tmp_path, sha256, LIKE)
    (tmp_path / NAME).unlink()
    assert not is_whole(tmp_path, sha256)
    with pytest.raises(UserError, match=f"{NAME}: No such file.*; run --mode=evaluate"):
        read_normal_errors(tmp_path, sha256, LIKE)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        ({"all": np.ones((3, 4))}, "does not hold the layers"),
        ({"all": np.ones((4, 3)), "deep/conv": np.ones((2, 3, 5))}, "all does not fit"),
        ({"all": np.ones((3, 4)), "deep/conv": np.full((2, 3, 5), np.nan)}, "deep/conv does not"),
        ({"all": np.array([None]), "deep/conv": np.ones((2, 3, 5))}, "does not hold"),
    ],
)
def test_arrays_of_another_detector_are_refused(tmp_path, mean, message):
    sha256 = write_normal_errors(tmp_path, make(mean=mean))
    with pytest.raises(UserError, match=f"{NAME}: {message}.*; run --mode=evaluate"):
        read_normal_errors(tmp_path, sha256, LIKE)


def test_a_std_of_0_is_refused(tmp_path):
    normal = make(std={name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
    sha256 = write_normal_errors(tmp_path, normal)
    with pytest.raises(UserError, match="all does not fit"):
        read_normal_errors(tmp_path, sha256, LIKE)
