"""README.md and results/README.md say what the records say, and `--check` notices if not."""

import json
import re
import shutil

import pytest

from docs import write
from sparse_ad.errors import UserError


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the README and the records, and a page of options."""
    shutil.copy(write.README, tmp_path)
    (tmp_path / "configs.md").write_text("options")
    shutil.copytree(write.RESULTS, tmp_path / "results")
    monkeypatch.setattr(write, "README", tmp_path / "README.md")
    monkeypatch.setattr(write, "CONFIGS", tmp_path / "configs.md")
    monkeypatch.setattr(write.options, "page", lambda: "options")  # the real one takes seconds
    monkeypatch.setattr(write, "RESULTS", tmp_path / "results")
    return tmp_path


def edit(path, change):
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def set_auroc(record):
    record["image"]["auroc"]["value"] = 0.123


def set_dirty(record):
    record["environment"]["commit"]["dirty"] = True


def test_pages_are_those_that_the_records_give(capsys):
    assert write.main(["--check"]) == 0, capsys.readouterr().out


def test_links_of_the_page_of_all_records_lead_somewhere():
    for link in re.findall(r"\]\((\S+?)\)", (write.RESULTS / "README.md").read_text("utf-8")):
        assert (write.RESULTS / link).exists(), link


@pytest.mark.slow
def test_a_changed_record_is_noticed_and_written(checkout, capsys):
    edit(checkout / "results" / "sparse_patches" / "elpv.json", set_auroc)
    assert write.main(["--check"]) == 1
    assert capsys.readouterr().out.count("is out of date; run python -m docs.write") == 2
    assert write.main([]) == 0
    for page in (checkout / "README.md", checkout / "results" / "README.md"):
        assert "0.123 (" in page.read_text("utf-8")
    assert write.main(["--check"]) == 0


@pytest.mark.slow
def test_a_changed_page_of_options_is_noticed_and_written(checkout, capsys):
    (checkout / "configs.md").write_text("old")
    assert write.main(["--check"]) == 1
    assert f"{checkout / 'configs.md'}: is out of date" in capsys.readouterr().out
    assert write.main([]) == 0 and write.main(["--check"]) == 0


def test_a_record_of_edited_code_is_noticed(checkout, capsys):
    edit(checkout / "results" / "sparse_patches" / "elpv.json", set_dirty)
    assert write.main(["--check"]) == 1
    assert "elpv.json: lacks a commit without later edits" in capsys.readouterr().out


def test_a_readme_without_markers_is_an_error(checkout, capsys):
    (checkout / "README.md").write_text("no markers")
    assert write.main([]) == 2
    assert re.search("error: README.md: <!-- .* is missing", capsys.readouterr().err)


def test_only_what_stands_between_the_markers_is_replaced():
    page = "a\n<!-- x -->\nold\nrows\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    expected = "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert write.fill(page, "x", "new") == expected
    assert write.fill(page, "y", r"\1").endswith("<!-- y -->\n\\1\n<!-- /y -->\n")
    with pytest.raises(UserError, match="<!-- speed -->"):
        write.fill(page, "speed", "content")
