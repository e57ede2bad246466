"""The report holds what it should, from real figures, and nothing from outside."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.evaluating import IMAGES, OPTIONS, run
from helpers.toy import broken, fit, make_splits, mean_image
from helpers.undrawn import not_drawn

from sparse_ad.errors import UserError
from sparse_ad.evaluation.results import Scale, ScoreRow
from sparse_ad.methods.compiled import compile_score
from sparse_ad.report import figures, heatmaps, page, summary
from sparse_ad.report.pictures import choose_rows, gather_pictures
from sparse_ad.types import Views

PNG = b"\x89PNG\r\n\x1a\n"


def _evaluate(splits, method):
    params, score = fit(splits), compile_score(method)
    _, results, rows = run(score, params, splits)
    batches = IMAGES, OPTIONS.batch_size
    pictures = gather_pictures(method, score, params, splits.test, rows, *batches)
    return results, rows, pictures


@pytest.fixture(scope="module")
def evaluated():
    splits = make_splits()
    unreadable = broken(splits.test[0])._replace(path="good/<b>&.png")
    return _evaluate(splits._replace(test=(unreadable, *splits.test[1:])), mean_image())


@pytest.fixture
def undrawn():
    """For tests of the text alone."""
    with not_drawn():
        yield


class _Page(HTMLParser):
    """Collects the sources that a page loads."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_stretched_images_are_shown_where_there_are_any(tmp_path, evaluated, undrawn):
    results, rows, pictures = evaluated
    shown = "3 test images and 6 training images are stretched by more than a factor of 1.25"
    for count in (0, 3):
        odd = results._replace(stretched=count, stretched_training=2 * count)
        page_text = page.write_report(tmp_path, odd, rows, pictures).read_text("utf-8")
        for text in (page_text, summary.format_results(odd)):
            assert (shown in text) == bool(count)


def test_copies_are_shown_where_there_are_any(tmp_path, evaluated, undrawn):
    results, rows, pictures = evaluated
    for count in (0, 3):
        odd = results._replace(copies=count)
        page_text = page.write_report(tmp_path, odd, rows, pictures).read_text("utf-8")
        for text in (page_text, summary.format_results(odd)):
            assert ("3 test images are copies of training" in text) == bool(count)


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
    none = {"latents", "curves", "normal_errors"}  # no latent, nothing logged, raw errors
    assert names == set(page.FIGURES) - none
    assert all(path.read_bytes().startswith(PNG) for path in (tmp_path / "figures").iterdir())


def test_report_of_one_class_without_extras(tmp_path):
    splits = make_splits()
    bare = mean_image()._replace(views=Views())
    results, rows, pictures = _evaluate(splits._replace(test=splits.test[:1]), bare)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc.png").write_bytes(b"of an earlier run")
    text = page.write_report(tmp_path, results, rows, pictures).read_text("utf-8")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"histogram", "worst"}
    assert "no anomalous images" in text


def test_table_is_aligned(evaluated):
    lines = summary.format_results(evaluated[0]).splitlines()
    assert "19 calibration" in lines[0]
    table = [line for line in lines if re.search(r" to [01]\.", line)]
    assert len(table) == 9  # 4 image metrics, 3 pixel metrics, 2 kinds
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
    rows = [
        ScoreRow(str(i), "", "", label, float(i % 7), 0.0, True) for i, label in enumerate(labels)
    ]
    groups = choose_rows(rows)
    paths = [row.path for group in groups.values() for row in group]
    assert len(paths) == len(set(paths)) == min(normal, 6) + min(anomalous, 6)
    for name, group in groups.items():
        assert all(row.label == int("anomalous" in name) for row in group)
        scores = [row.score for row in group]
        assert scores == sorted(scores, reverse="highest" in name)


def test_equal_scores_get_equal_colours_in_all_images():
    scale = Scale(low=0.0, limit=1.0, high=2.0)
    image = np.full((4, 4, 1), 0.5)
    quiet, loud = np.full((4, 4), 0.25), np.zeros((4, 4))
    quiet[0, 0], loud[0, 0], loud[1, 1] = 0.5, 0.5, 50
    first, second = (heatmaps.overlay(image, each, scale) for each in (quiet, loud))
    assert (first[0, 0] == second[0, 0]).all() and (first[0, 0] != second[1, 1]).any()
    assert second[3, 3] == pytest.approx(0.5)  # clear where nothing is wrong
    assert (second >= 0).all() and (second <= 1).all()


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (200, 16, 16, 1), (7, 5, 5, 3), (3, 2, 2, 9)])
def test_atoms_of_any_kind_are_drawn(shape):
    atoms = np.random.default_rng(0).normal(size=shape)
    atoms[0] = 1.0  # flat: no scale of its own
    assert figures.render(figures.draw_atoms(atoms)).startswith(PNG)


def test_the_legend_of_latents_counts_active_units():
    codes = np.random.default_rng(0).normal(size=(6, 50)) ** 7  # some below 1 % of the largest
    figure = figures.draw_latents((codes, codes[:0]))
    active = np.mean([np.abs(code) > 0.01 * np.abs(code).max() for code in codes])
    assert 0.1 < active < 0.9
    assert figure.legends[0].get_texts()[0].get_text() == f"normal: {active:.1%} active"


def test_drawing_does_not_touch_pyplot():
    code = "import sys, sparse_ad.report.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ignored_pixels_are_hatched(tmp_path):
    splits, hidden = make_splits(), np.zeros((24, 24), bool)
    hidden[4:9, 3:20] = True
    test = tuple(each._replace(ignore=hidden) for each in splits.test)
    page.write_report(tmp_path / "with", *_evaluate(splits._replace(test=test), mean_image()))
    text = (tmp_path / "with" / "report.html").read_text("utf-8")
    assert text.count(page.HATCHED) == 3  # the figures of images that this detector has
    picture = np.random.default_rng(0).random((24, 24, 3))
    np.testing.assert_array_equal(heatmaps.cover(picture, hidden & False), picture)
    hatched = heatmaps.cover(picture, hidden)
    np.testing.assert_array_equal(picture[~hidden], hatched[~hidden])
    greys = np.unique(hatched[hidden], axis=0)
    assert len(greys) == 2 and (greys == greys[:, :1]).all()


def test_a_report_without_ignored_pixels_does_not_mention_them(tmp_path, evaluated, undrawn):
    assert page.HATCHED not in page.write_report(tmp_path, *evaluated).read_text("utf-8")
