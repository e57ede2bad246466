"""The report holds what it should, from real figures, and nothing from outside."""

import csv
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.toy import broken, fit, make_config, make_splits, mean_image, run

from sparse_ad import stages
from sparse_ad.errors import UserError
from sparse_ad.report import figures, heatmaps, page
from sparse_ad.report.pictures import choose_rows, gather_pictures

PNG = b"\x89PNG\r\n\x1a\n"


def _evaluate(splits, method):
    config, params, score = make_config(), fit(splits), stages.scoring(method)
    _, results, rows = run(score, params, splits, config)
    pictures = gather_pictures(method, score, params, splits.test, rows, config)
    return results, rows, pictures


@pytest.fixture(scope="module")
def evaluated():
    splits = make_splits()
    unreadable = broken(splits.test[0])._replace(path="good/<b>&.png")
    return _evaluate(splits._replace(test=(unreadable, *splits.test[1:])), mean_image())


class _Page(HTMLParser):
    """Collects the sources that a page loads."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_page_is_self_contained_and_escaped(tmp_path, evaluated):
    text = page.write_report(tmp_path, *evaluated).read_text("utf-8")
    parsed = _Page(text)
    assert len(parsed.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert "script" not in parsed.tags and "b" not in parsed.tags
    assert "&lt;b&gt;" in text and not re.search(r"url\(|@import", text)
    for part in ("image AUROC", "AUPRO", "R2", "peak memory", "penalty", "commit", "cut", "hole"):
        assert part in text


def test_figures_are_pngs(tmp_path, evaluated):
    page.write_report(tmp_path, *evaluated)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    none = {"latents", "curves"}  # this detector has no latent, and nothing was logged
    assert names == {name for name, _ in page.FIGURES} - none
    assert all(path.read_bytes().startswith(PNG) for path in (tmp_path / "figures").iterdir())


def test_report_of_one_class_without_extras(tmp_path):
    splits = make_splits()
    bare = mean_image()._replace(reconstruct=None, atoms=None)
    results, rows, pictures = _evaluate(splits._replace(test=splits.test[:1]), bare)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc.png").write_bytes(b"of an earlier run")
    text = page.write_report(tmp_path, results, rows, pictures).read_text("utf-8")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"histogram", "worst"}
    assert "no anomalous images" in text


def test_scores_are_read_back(tmp_path, evaluated):
    results, rows, _ = evaluated
    page.write_results(tmp_path, results, [*rows, rows[0] | {"score": None, "flagged": None}])
    with (tmp_path / "scores.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["path", "kind", "group", "label", "score", "threshold", "flagged"]
    assert [float(each["score"]) for each in read[:-1]] == [row["score"] for row in rows]
    assert read[-1]["score"] == read[-1]["flagged"] == ""


def test_table_is_aligned(evaluated):
    lines = page.format_results(evaluated[0]).splitlines()
    assert "19 calibration" in lines[0]
    table = [line for line in lines if re.search(r" to [01]\.", line)]
    assert len(table) == 9  # 4 image figures, 3 pixel figures, 2 kinds
    assert len({line.rindex(" to ") for line in table}) == 1
    assert "good/<b>&.png" in lines[-1]


def test_full_disk_is_one_line(tmp_path, evaluated):
    (tmp_path / "figures").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="figures"):
        page.write_report(tmp_path, *evaluated)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("normal", "anomalous"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 5), (9, 9)])
def test_no_picture_is_shown_twice(normal, anomalous):
    labels = [0] * normal + [1] * anomalous
    rows = [{"path": str(i), "label": label, "score": i % 7} for i, label in enumerate(labels)]
    groups = choose_rows(rows)
    paths = [row["path"] for group in groups for row in group]
    assert len(paths) == len(set(paths)) == min(normal, 6) + min(anomalous, 6)
    assert all(
        row["label"] == label
        for label, group in zip((0, 1, 1, 0), groups, strict=True)
        for row in group
    )


def test_equal_scores_get_equal_colours_in_all_images():
    scale = {"low": 0.0, "limit": 1.0, "high": 2.0}
    image = np.full((4, 4, 1), 0.5)
    quiet, loud = np.full((4, 4), 0.25), np.zeros((4, 4))
    quiet[0, 0], loud[0, 0], loud[1, 1] = 0.5, 0.5, 50
    first, second = (heatmaps.overlay(image, each, scale) for each in (quiet, loud))
    assert (first[0, 0] == second[0, 0]).all() and (first[0, 0] != second[1, 1]).any()
    assert second[3, 3] == pytest.approx(0.5)  # clear where nothing is wrong
    assert (second >= 0).all() and (second <= 1).all()


def test_overlay_file_has_the_size_of_the_image(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "a" / "b.png"
    page.write_overlay(path, np.zeros((5, 7, 3)), np.ones((5, 7)), {"low": 0, "high": 1})
    assert imread(path).shape[:2] == (5, 7)


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (200, 16, 16, 1), (7, 5, 5, 3), (3, 2, 2, 9)])
def test_atoms_of_any_kind_are_drawn(shape):
    atoms = np.random.default_rng(0).normal(size=shape)
    atoms[0] = 1.0  # flat: no scale of its own
    assert figures.render(figures.draw_atoms(atoms)).startswith(PNG)


def test_drawing_does_not_touch_pyplot():
    code = "import sys, sparse_ad.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
