"""The figure of the units that errors are scored in: mean and std of normal images."""

import numpy as np
from matplotlib.figure import Figure

from sparse_ad.report.figures import show_image
from sparse_ad.report.heatmaps import COLOURS
from sparse_ad.types import NormalMaps

SIDE = 3.4  # inches of a map


def draw_normal(normal: NormalMaps | None) -> Figure | None:
    """Draws the maps of mean and std side by side, each with a scale of its own from 0."""
    if normal is None:
        return None
    height, width = np.asarray(normal.mean).shape
    figure = Figure(figsize=(2 * SIDE + 1.6, SIDE * height / width + 0.5), layout="constrained")
    for axes, name, values in zip(figure.subplots(1, 2), ("mean", "std"), normal, strict=True):
        values = np.asarray(values)
        drawn = show_image(axes, values, cmap=COLOURS, vmin=0, vmax=float(values.max()) or 1.0)
        axes.set_title(name, fontsize=10)
        figure.colorbar(drawn, ax=axes, shrink=0.8).set_label("error")
    return figure
