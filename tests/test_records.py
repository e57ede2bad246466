"""The README says what the records say, and no more."""

import pytest

from sparse_ad import records
from sparse_ad.errors import UserError


def test_readme_is_rendered_from_the_records():
    page = (records.ROOT / "README.md").read_text("utf-8")
    assert records.fill_all(page, records.ROOT / "results") == page


def test_every_record_says_where_it_comes_from():
    paths = list((records.ROOT / "results").glob("*/*.json"))
    assert paths
    for path in paths:
        environment = records.read_json(path)["environment"]
        assert environment["commit"]["id"], path
        assert environment["versions"]["jax"], path
        assert environment["device"]["platform"], path
        assert environment["command"], path


def test_a_page_without_markers_is_refused():
    with pytest.raises(UserError, match="<!-- speed -->"):
        records.fill("no markers", "speed", "content")
