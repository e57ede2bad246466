"""Figures of what each layer of a detector sees: errors, maps, channels.

Maps and channels are scaled by normal images; without any, only the histogram is drawn.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_auc_score

from sparse_ad.evaluation.results import Scale
from sparse_ad.report.figures import (
    ANOMALOUS,
    NORMAL,
    add_legend,
    caption,
    finish_panel,
    panel_size,
    show_image,
)
from sparse_ad.report.heatmaps import COLOURS, to_rgb
from sparse_ad.report.pictures import Explanations, Layer, Picture, Pictures

ACROSS = 3  # histograms side by side
BINS = 40
TAIL = 30  # times the median: a largest error beyond it calls for a logarithmic axis
REFERENCE = 0.95  # quantile of normal patch errors that is marked
TOP = 10  # channels shown of an image
EXTREME = "most extreme channel of a typical normal image"
SILENT = 0.01  # of the average channel of its layer: what adds less is measured in this


def draw_layers(layers: dict[str, Layer] | None) -> Figure | None:
    """Draws histograms of the patch errors of normal and anomalous images, a panel for each layer.

    Source: Imamura et al., MLF-SC, Fig. 4.
    """
    if not layers:
        return None
    across = min(ACROSS, len(layers))
    down = -(-len(layers) // across)
    figure = Figure(figsize=(max(3.4 * across, 4.6), 3.4 * down + 0.8), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, layer) in zip(panels, layers.items(), strict=False):
        _draw_errors(axes, name, layer)
    for axes in panels[len(layers) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel("fraction of the class's patches")
    add_legend(figure, panels[0], columns=3 if across == 3 else 1)
    return figure


def draw_layer_maps(pictures: Pictures, scale: Scale) -> Figure | None:
    """Draws image, map of each layer and heat map: a row for each image, a scale for each column.

    None without normal images, by which layers are scaled.
    """
    explained, layers = named_pictures(pictures), _measured(pictures)
    if not explained or not layers:
        return None
    names = ("image", *layers, "heat map")
    scales = [_norm(each.low, each.high) for each in layers.values()]
    scales.append(_norm(scale.low, scale.high))
    width, height = panel_size([picture for picture, _ in explained.values()], 1.7)
    size = width * len(names) + 0.7, height * len(explained) + 0.6
    figure = Figure(figsize=size, layout="constrained")
    *panels, bars = figure.subplots(
        len(explained) + 1, len(names), squeeze=False, height_ratios=[1] * len(explained) + [0.05]
    )
    for (title, (picture, parts)), (first, *others) in zip(explained.items(), panels, strict=True):
        show_image(first, to_rgb(picture.image))
        finish_panel(first, picture)
        first.set_ylabel(f"{title}\n{caption(picture)}", fontsize=7.5)
        maps = [parts[name].map for name in layers] + [picture.map]
        for axes, each, norm in zip(others, maps, scales, strict=True):
            show_image(axes, each, cmap=COLOURS, norm=norm)
            finish_panel(axes, picture)
    bars[0].set_axis_off()
    for axes, norm in zip(bars[1:], scales, strict=True):
        _draw_bar(figure, axes, norm)
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=10)
    return figure


def draw_channels(pictures: Pictures) -> Figure | None:
    """Draws the channels of an image that add most, in units of what they add in normal images.

    None without normal images, and with fewer than two channels.
    """
    explained, layers = named_pictures(pictures), _measured(pictures)
    if not explained or sum(each.channels.shape[1] for each in layers.values()) < 2:
        return None
    limit = typical_extreme(layers)
    across = min(2, len(explained))
    down = -(-len(explained) // across)
    figure = Figure(figsize=(4.6 * across, 3.4 * down + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    for axes, (title, (picture, parts)) in zip(panels, explained.items(), strict=False):
        added = {name: np.asarray(parts[name].channels) for name in layers}
        names, values = zip(*top_channels(added, layers), strict=True)
        axes.barh(names, values, color=ANOMALOUS if picture.row.label else NORMAL)
        axes.axvline(limit, label=EXTREME, color="black", linewidth=1.2, linestyle="--")
        axes.set_title(f"{title}\n{' · '.join(caption(picture).splitlines())}", fontsize=8.5)
        axes.set_xlabel("times the mean of normal images", fontsize=9)
        axes.invert_yaxis()
        axes.tick_params("y", labelsize=8, length=0)
        axes.tick_params("x", labelsize=9, labelbottom=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(explained) :]:
        axes.set_visible(False)
    add_legend(figure, panels[0])
    return figure


def named_pictures(pictures: Pictures) -> dict[str, tuple[Picture, Explanations]]:
    """Returns the first picture of each group and its layers, by what it is the extreme of."""
    groups = {
        "highest anomalous": pictures.highest_anomalous,
        "lowest anomalous": pictures.lowest_anomalous,
        "highest normal": pictures.highest_normal,
        "lowest normal": pictures.lowest_normal,
    }
    firsts = {name: group[0] for name, group in groups.items() if group}
    return {name: (first, first.layers) for name, first in firsts.items() if first.layers}


def top_channels(
    added: dict[str, Float[np.ndarray, " c"]], layers: dict[str, Layer]
) -> list[tuple[str, float]]:
    """Returns (layer and number, times the normal mean) of the TOP most unusual channels."""
    every = []
    for name, values in added.items():
        usual = layers[name].channels.mean(0)
        unit = np.maximum(usual, SILENT * usual.mean())
        ratios = values / np.where(unit > 0, unit, 1.0)
        largest = np.argsort(-ratios, kind="stable")[:TOP]
        every += [(f"{name} · {channel}", float(ratios[channel])) for channel in largest]
    return sorted(every, key=lambda named: -named[1])[:TOP]


def typical_extreme(layers: dict[str, Layer]) -> float:
    """Returns the median over sampled normal images of the value of their first top channel."""
    count = len(next(iter(layers.values())).channels)
    every = ({name: each.channels[row] for name, each in layers.items()} for row in range(count))
    return float(np.median([top_channels(added, layers)[0][1] for added in every]))


def fractions(
    errors: Float[np.ndarray, "n p"], edges: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " a"]:
    """Returns the fraction of errors in each bin; those beyond the edges count in the outermost."""
    inside = np.clip(errors.ravel(), edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / max(1, errors.size)


def bins(errors: Float[np.ndarray, "..."]) -> tuple[Float[np.ndarray, " b"], bool]:
    """Returns bin edges for errors of both classes, and whether they are spaced logarithmically.

    They are where a linear axis would leave most errors in one bin.
    """
    above = errors[errors > 0]
    if above.size and errors.max() > TAIL * np.median(above):
        return np.geomspace(np.quantile(above, 0.001), errors.max(), BINS + 1), True
    low, high = float(errors.min()), float(errors.max())
    return np.linspace(low, max(high, low + 1e-6 * max(1.0, abs(low))), BINS + 1), False


def _draw_errors(axes, name: str, layer: Layer) -> None:
    edges, wide = bins(np.concatenate([layer.normal.ravel(), layer.anomalous.ravel()]))
    both = (layer.normal, "normal", NORMAL, "--"), (layer.anomalous, "anomalous", ANOMALOUS, "-")
    for errors, label, colour, line in both:
        heights, label = fractions(errors, edges), f"{label} ({len(errors)} images)"
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35, label=label)
        axes.stairs(heights, edges, color=colour, linewidth=1.5, linestyle=line)
    title = [name]
    if len(layer.normal):
        limit = np.quantile(layer.normal, REFERENCE)
        label = f"{100 * REFERENCE:.0f} % quantile of normal patches"
        axes.axvline(limit, color="black", linewidth=1.2, label=label)
        if len(layer.anomalous):
            title.append(
                f"{100 * np.mean(layer.anomalous > limit):.1f} % of anomalous beyond the line"
            )
            title.append(f"largest of each image: AUROC {_separation(layer):.2f}")
    axes.set_title("\n".join(title), fontsize=9)
    axes.set(xlabel="patch error", xscale="log" if wide else "linear")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    if not wide:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.spines[["top", "right"]].set_visible(False)


def _separation(layer: Layer) -> float:
    """AUROC of the largest patch error of each sampled image."""
    largest = np.concatenate([layer.normal.max(1), layer.anomalous.max(1)])
    label = np.repeat((0, 1), (len(layer.normal), len(layer.anomalous)))
    return float(roc_auc_score(label, largest))


def _measured(pictures: Pictures) -> dict[str, Layer]:
    """The layers, where there are normal images to measure them by."""
    layers = pictures.layers or {}
    return {name: each for name, each in layers.items() if len(each.normal)}


def _norm(low: float, high: float) -> Normalize:
    return Normalize(low, max(high, low + 1e-6 * max(1.0, abs(low))))


def _draw_bar(figure: Figure, axes: Any, norm: Normalize) -> None:
    heat = ScalarMappable(norm, COLOURS)
    bar = figure.colorbar(heat, cax=axes, orientation="horizontal", extend="both")
    assert norm.vmin is not None and norm.vmax is not None  # see _norm
    ends = norm.vmin, norm.vmax
    bar.set_ticks(ends, labels=[f"{each:.3g}" for each in ends])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set(horizontalalignment=side, fontsize=8)  # not into the next column
