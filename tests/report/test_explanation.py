"""What a report shows of each layer: sampled fairly, counted and scaled by normal images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.evaluating import IMAGES, OPTIONS, run
from helpers.toy import SIZE, broken, fit, make_splits, mean_image

from sparse_ad.evaluation.results import ScoreRow
from sparse_ad.methods.compiled import compile_score
from sparse_ad.report import layer_figures, page
from sparse_ad.report.pictures import SAMPLED, Layer, choose_sample, gather_pictures
from sparse_ad.types import Explanation, Views

BLOCK = 4  # side of a patch of the toy
PLANTED = 7  # the channel of "deep" that sees bright squares
NAMES = set(page.LAYER_FIGURES)


def _explain(params, maps):
    """Two layers: patch errors are block means of differences, or their squares."""
    difference = jnp.abs(maps["pixels"] - params["mean"]).mean(-1)
    blocks = difference.reshape(SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK)
    errors = blocks.mean((1, 3)).ravel()
    steady = 1 + 1e-3 * jnp.arange(24.0)
    deep = steady.at[PLANTED].set(1 + 1e3 * (errors**2).max())
    return {
        "shallow": Explanation(errors, difference, steady[:3]),
        "deep": Explanation(errors**2, difference**2, deep),
    }


def _explain_some(names, params, maps):
    return {name: _explain(params, maps)[name] for name in names}


def _explaining(*names):
    return mean_image()._replace(views=Views(explain=partial(_explain_some, names)))


def _evaluate(method, test=None):
    splits = make_splits()
    splits = splits._replace(test=splits.test if test is None else test)
    params, score = fit(splits), compile_score(method)
    _, results, rows = run(score, params, splits)
    batches = IMAGES, OPTIONS.batch_size
    return results, rows, gather_pictures(method, score, params, splits.test, rows, *batches)


def _written(folder):
    return {path.stem for path in (folder / "figures").iterdir()} & NAMES


def _drawn(results, pictures):
    figures = {
        "layers": layer_figures.draw_layers(pictures.layers),
        "layer_maps": layer_figures.draw_layer_maps(pictures, results.scale),
        "channels": layer_figures.draw_channels(pictures),
    }
    return {name for name, figure in figures.items() if figure}


def _by_hand(label):
    """Explanations of the toy's test images of a class, by numpy."""
    splits = make_splits()
    some = [each.image for each in splits.test if each.label == label]
    maps = {"pixels": jnp.asarray(np.stack(some)[..., None] / 255)}
    return jax.vmap(partial(_explain, fit(splits)))(maps)


@pytest.fixture(scope="module")
def evaluated():
    return _evaluate(_explaining("shallow", "deep"))


def test_layers_are_shown_where_there_is_an_explanation(tmp_path, evaluated):
    text = page.write_report(tmp_path, *evaluated).read_text("utf-8")
    assert _written(tmp_path) == NAMES
    assert all(f'alt="{name}"' in text for name in NAMES) and "<h2>Layers</h2>" in text
    results, rows, pictures = evaluated
    bare = pictures._replace(layers=None, highest_anomalous=(), lowest_normal=(), highest_normal=())
    text = page.write_report(tmp_path, results, rows, bare).read_text("utf-8")
    assert not _written(tmp_path)  # those of the run before are gone
    assert "<h2>Layers</h2>" not in text


@pytest.mark.parametrize(("label", "left"), [(0, NAMES), (1, {"layers"})])
def test_one_class_alone(label, left):
    test = tuple(each for each in make_splits().test if each.label == label)
    results, _, pictures = _evaluate(_explaining("shallow", "deep"), test)
    assert _drawn(results, pictures) == left  # nothing can be measured without normal images
    counts = len(pictures.layers["deep"].normal), len(pictures.layers["deep"].anomalous)
    assert counts == ((len(test), 0) if label == 0 else (0, len(test)))
    titles = list(layer_figures.named_pictures(pictures))
    assert titles == [f"{end} {('normal', 'anomalous')[label]}" for end in ("highest", "lowest")]


@pytest.mark.parametrize("name", ["deep", "shallow"])
def test_one_layer_alone(name):
    results, _, pictures = _evaluate(_explaining(name))
    assert _drawn(results, pictures) == NAMES and set(pictures.layers) == {name}


def test_nothing_is_explained_by_a_method_that_cannot():
    results, _, pictures = _evaluate(mean_image())
    assert pictures.layers is None and pictures.highest_anomalous[0].layers is None
    assert not _drawn(results, pictures)


def test_one_channel_has_no_chart(evaluated):
    layers = {"deep": evaluated[2].layers["deep"]._replace(channels=np.ones((4, 1)))}
    assert layer_figures.draw_channels(evaluated[2]._replace(layers=layers)) is None


def test_sample_is_bounded_even_and_repeatable():
    rows = [ScoreRow(str(i), "", "", int(i >= 300), i % 9, 0.0, True) for i in range(320)]
    chosen = choose_sample(rows)
    assert chosen == choose_sample(rows) and list(chosen.values()) == [0] * SAMPLED + [1] * 20
    places = np.array([int(path) for path, label in chosen.items() if label == 0])
    assert places[0] == 0 and places[-1] == 299 and set(np.diff(places)) <= {9, 10}


def test_no_more_images_are_explained_than_are_needed(monkeypatch):
    monkeypatch.setattr("sparse_ad.report.pictures.SAMPLED", 3)
    _, _, pictures = _evaluate(_explaining("deep"))
    assert [len(each) for each in pictures.layers["deep"][:2]] == [3, 3]
    explained = [each.layers is not None for group in pictures[:4] for each in group]
    assert explained == [True, False, False] * 4


def test_sample_is_explained(evaluated):
    layers, normal, anomalous = evaluated[2].layers, _by_hand(0), _by_hand(1)
    assert list(layers) == ["deep", "shallow"]  # by name
    for name, layer in layers.items():
        for got, wanted in (
            (layer.normal, normal[name].errors),
            (layer.anomalous, anomalous[name].errors),
            (layer.channels, normal[name].channels),
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)  # float32
        span = np.quantile(normal[name].map, (0.5, 0.995))
        assert (layer.low, layer.high) == pytest.approx(span, rel=1e-4)


def test_large_maps_are_thinned(monkeypatch, evaluated):
    monkeypatch.setattr("sparse_ad.report.pictures.SIDE", 8)
    _, _, pictures = _evaluate(_explaining("shallow"))
    few = np.asarray(_by_hand(0)["shallow"].map)[:, 1::3, 1::3]
    assert pictures.layers["shallow"].high == pytest.approx(np.quantile(few, 0.995), rel=1e-4)
    assert pictures.highest_anomalous[0].layers["shallow"].map.shape == (
        SIZE,
        SIZE,
    )  # shown in full


def test_unreadable_images_are_left_out():
    test = make_splits().test
    _, _, pictures = _evaluate(_explaining("deep"), (broken(test[0]), *test[1:]))
    wanted = _by_hand(0)["deep"].errors[1:]
    np.testing.assert_allclose(pictures.layers["deep"].normal, wanted, rtol=1e-4, atol=1e-6)


def test_chart_names_the_planted_channel(evaluated):
    figure = layer_figures.draw_channels(evaluated[2])
    first, _, normal, _ = figure.axes
    assert first.get_title().startswith("highest anomalous")
    assert first.get_yticklabels()[0].get_text() == f"deep · {PLANTED}"
    lengths = [bar.get_width() for bar in first.patches]
    usual = _by_hand(0)["deep"].channels[:, PLANTED]
    row = max((row for row in evaluated[1] if row.label), key=lambda row: row.score)
    paths = [each.path for each in make_splits().test if each.label]
    added = _by_hand(1)["deep"].channels[paths.index(row.path), PLANTED]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == layer_figures.TOP
    assert lengths[0] == pytest.approx(float(added / usual.mean()), rel=1e-4)
    assert normal.patches[0].get_width() < lengths[0]
    (line,) = first.lines
    extreme = np.maximum(usual / usual.mean(), 1)
    assert line.get_xdata()[0] == pytest.approx(float(np.median(extreme)), rel=1e-3)


def test_silent_channels_do_not_lead():
    usual = np.tile([1.0, 2.0, 1e-9, 0.0], (5, 1))
    layers = {"a": Layer(np.ones((5, 2)), np.ones((5, 2)), 0.0, 1.0, usual)}
    top = layer_figures.top_channels({"a": np.array([1.0, 8.0, 1e-5, 0.0])}, layers)
    assert [name for name, _ in top] == ["a · 1", "a · 0", "a · 2", "a · 3"]
    assert top[0][1] == 4 and top[2][1] == pytest.approx(1e-5 / (0.01 * 0.75))


def test_histograms_count_every_patch():
    errors = np.array([[0.0, 0.5, 1.5], [2.5, 3.0, 99.0]])
    found = layer_figures.fractions(errors, np.array([0.0, 1.0, 2.0, 3.0]))
    assert found == pytest.approx(np.array([2, 1, 3]) / 6)  # 99 in the last bin
    assert not layer_figures.fractions(np.empty((0, 3)), np.array([0.0, 1.0])).any()


@pytest.mark.parametrize(
    ("errors", "wide"), [([1, 2, 29], False), ([1, 2, 61], True), ([0, 0, 1, 1, 90], True)]
)
def test_long_tails_get_a_logarithmic_axis(errors, wide):
    edges, logarithmic = layer_figures.bins(np.array(errors, float))
    assert logarithmic == wide and (np.diff(edges) > 0).all() and edges[-1] == max(errors)


@pytest.mark.parametrize("errors", [0.0, 7.0])
def test_equal_errors_are_drawn(errors):
    same = Layer(np.full((2, 3), errors), np.full((1, 3), errors), 0.0, 0.0, np.zeros((2, 4)))
    figure = layer_figures.draw_layers({"a": same})
    assert "0.0 % of anomalous beyond" in figure.axes[0].get_title()
    assert (np.diff(layer_figures.bins(same.normal)[0]) > 0).all()


def test_titles_say_what_the_panels_show():
    normal = np.arange(100.0).reshape(10, 10)
    anomalous = np.array([[1.0, 1, 1, 200], [1, 1, 96, 300], [1, 1, 1, 1]])
    figure = layer_figures.draw_layers({"a": Layer(normal, anomalous, 0.0, 1.0, normal)})
    title = figure.axes[0].get_title()
    assert title.startswith("a\n25.0 % of anomalous beyond the line")  # 3 of 12 above 94.05
    assert title.endswith("AUROC 0.67")  # 20 of 30 pairs
    (line,) = figure.axes[0].lines
    assert line.get_xdata()[0] == pytest.approx(94.05)


def test_maps_of_a_layer_share_one_scale(evaluated):
    results, _, pictures = evaluated
    figure = layer_figures.draw_layer_maps(pictures, results.scale)
    panels = [axes for axes in figure.axes if axes.images]
    rows = [panels[start : start + 4] for start in range(0, len(panels), 4)]
    assert len(rows) == 4
    assert [axes.get_title() for axes in rows[0]] == ["image", "deep", "shallow", "heat map"]
    scale = results.scale
    spans = [(each.low, each.high) for each in pictures.layers.values()]
    spans.append((scale.low, scale.high))
    for row in rows:
        assert [axes.images[0].get_clim() for axes in row[1:]] == spans
    hit = pictures.highest_anomalous[0]
    np.testing.assert_array_equal(rows[0][1].images[0].get_array(), hit.layers["deep"].map)
    np.testing.assert_array_equal(rows[0][3].images[0].get_array(), hit.map)
