"""Tables as Markdown and as text."""

from sparse_ad.report import tables

HEAD, ROWS = ("name", "value"), [("a", "1.0"), ("longer", "–")]


def test_markdown_has_a_line_for_each_row():
    lines = tables.markdown(HEAD, ROWS).splitlines()
    assert lines == ["| name | value |", "| --- | --- |", "| a | 1.0 |", "| longer | – |"]


def test_text_is_aligned():
    assert tables.text(HEAD, ROWS) == "name    value\na         1.0\nlonger      –"
    assert tables.text(HEAD, ROWS, "><") == "  name  value\n     a  1.0\nlonger  –"
