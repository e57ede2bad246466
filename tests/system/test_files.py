"""Files are whole or not there, and what goes wrong is one line that names them."""

import errno
import json
import os
from typing import NamedTuple

import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.system import files


def test_writes_and_makes_folders(tmp_path):
    files.write_text(tmp_path / "a" / "b.txt", "ä\n")
    assert (tmp_path / "a" / "b.txt").read_text("utf-8") == "ä\n"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_json_is_strict_and_plain(tmp_path):
    content = {
        "nan": np.float32("nan"),
        "inf": float("inf"),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.array([[1.0, np.nan]]),
        "size": (2, 3),
        "none": None,
    }
    files.write_json(tmp_path / "x.json", content)
    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert read == {
        "nan": None,
        "inf": None,
        "count": 3,
        "flag": True,
        "array": [[1.0, None]],
        "size": [2, 3],
        "none": None,
    }
    assert files.read_json(tmp_path / "x.json") == read


def test_lines_are_appended_and_mended(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    files.append_lines(path, [{"step": 0}, {"step": 1, "loss": float("nan")}])
    with path.open("ab") as file:
        file.write(b'{"step": 2, "lo')  # as a kill leaves it
    files.append_lines(path, [{"step": 3}])
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines[:2]] == [{"step": 0}, {"step": 1, "loss": None}]
    assert len(lines) == 4 and json.loads(lines[3]) == {"step": 3}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, code, call):
    path = tmp_path / "results.json"
    files.write_json(path, {"old": True})

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError, match=f"results.json.*{os.strerror(code)}"):
        files.write_json(path, {"old": False})
    assert files.read_json(path) == {"old": True}
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_an_interrupt_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "x", "half")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [files.write_json, files.append_lines])
def test_a_path_below_a_file_is_named(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/below/x\.json"):
        write(tmp_path / "file" / "below" / "x.json", {})


def test_missing_and_broken_json_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"half\.json.*not JSON"):
        files.read_json(tmp_path / "half.json")


def test_missing_fields_are_named(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": 1, "b": None})
    assert files.read_fields(tmp_path / "x.json", ("a", "b")) == {"a": 1, "b": None}
    with pytest.raises(UserError, match=r"x\.json: c is missing"):
        files.read_fields(tmp_path / "x.json", ("a", "c"))
    files.write_json(tmp_path / "x.json", [1])
    with pytest.raises(UserError, match=r"x\.json: is \[1\], expected dict"):
        files.read_fields(tmp_path / "x.json", ("a",))


class Point(NamedTuple):
    x: float
    label: str = "none"


def test_json_is_read_as_a_kind(tmp_path):
    path = tmp_path / "point.json"
    files.write_json(path, Point(1.5, "a"))
    assert files.read_json(path, Point) == Point(1.5, "a")
    path.write_text('{"x": "wide"}')
    with pytest.raises(UserError) as error:
        files.read_json(path, Point)
    message = f"{path}: x is 'wide', expected int | float: delete the file and run again"
    assert str(error.value) == message
