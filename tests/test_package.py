"""What pyproject.toml names is there."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_pattern_of_package_data_matches_a_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for pattern in project["tool"]["setuptools"]["package-data"]["*"]:
        assert list((ROOT / "sparse_ad").rglob(pattern)), pattern
