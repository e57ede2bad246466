"""Training curves are the numbers of the log, or means of neighbours."""

import numpy as np
import pytest
from helpers.evaluating import IMAGES, OPTIONS, run
from helpers.toy import fit, make_splits, mean_image

from sparse_ad.methods.compiled import compile_score
from sparse_ad.report.curves import BINS, draw_curves
from sparse_ad.report.page import write_report
from sparse_ad.report.pictures import gather_pictures


def drawn(lines):
    """The curves of a figure: {title: (steps, values)}."""
    figure = draw_curves(lines)
    return {axes.get_title(): axes.lines[0].get_data() for axes in figure.axes if axes.lines}


def test_curves_of_few_steps_are_the_numbers():
    lines = [{"step": step, "loss": 1.0 / step, "share": 0.5} for step in range(1, 8)]
    found = drawn(lines)
    assert found.keys() == {"loss", "share"}
    np.testing.assert_array_equal(found["loss"], (np.arange(1, 8), 1 / np.arange(1, 8)))


def test_curves_of_many_steps_are_means():
    """Checked by their sum, which groups of one size keep."""
    count = 4 * BINS - 3
    lines = [{"step": step, "loss": float(step % 7)} for step in range(1, count + 1)]
    steps, values = drawn(lines)["loss"]
    assert len(steps) == BINS
    np.testing.assert_allclose(values[0], np.mean([1, 2, 3, 4]))
    np.testing.assert_allclose(steps[1], 6.5)
    total = 4 * values[:-1].sum() + values[-1]
    np.testing.assert_allclose(total, sum(line["loss"] for line in lines))


def test_curves_are_in_the_report(tmp_path):
    """Written again without a log, the report shows none."""
    splits, method = make_splits(), mean_image()
    params, score = fit(splits), compile_score(method)
    _, results, rows = run(score, params, splits)
    batches = IMAGES, OPTIONS.batch_size
    pictures = gather_pictures(method, score, params, splits.test, rows, *batches)
    figure = tmp_path / "figures" / "curves.png"
    metrics = [{"step": 1, "loss": 0.5}]
    page = write_report(tmp_path, results, rows, pictures, metrics).read_text("utf-8")
    assert figure.exists() and 'alt="curves"' in page
    page = write_report(tmp_path, results, rows, pictures).read_text("utf-8")
    assert not figure.exists() and 'alt="curves"' not in page


@pytest.mark.parametrize("lines", [[], [{"step": 1}]])
def test_no_numbers_no_curves(lines):
    assert draw_curves(lines) is None
