"""Training curves: the metrics of a fit over its steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

BINS = 250  # points of a curve at most: steps beyond are averaged in groups
WIDE = 30.0  # largest over smallest value: from here on the axis is logarithmic


def draw_curves(lines: Sequence[dict[str, Any]]) -> Figure | None:
    """Draws each metric of lines of {"step": ..., name: value} over the steps; None without any.

    Of more than BINS steps: the means of neighbouring steps, and a band from their smallest to
    their largest value.
    """
    names = [name for name in (lines[-1] if lines else {}) if name != "step"]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * rows + 0.2), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for name, axes in zip(names, panels, strict=False):
        known = [line for line in lines if name in line]
        steps, values = (np.array([line[key] for line in known], float) for key in ("step", name))
        _draw_curve(axes, steps, values)
        axes.set_title(name, fontsize=10)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


def _draw_curve(axes, steps: Float[np.ndarray, " t"], values: Float[np.ndarray, " t"]) -> None:
    size = -(-len(steps) // BINS)
    middle, mean = (summarise(each, size, np.mean) for each in (steps, values))
    if size > 1:
        bounds = (summarise(values, size, bound) for bound in (np.min, np.max))
        axes.fill_between(middle, *bounds, color="#0072B2", alpha=0.2, linewidth=0)
    axes.plot(middle, mean, color="#0072B2", linewidth=1.5, marker="o" if len(mean) == 1 else "")
    if values.min() > 0 and values.max() > WIDE * values.min():
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)


def summarise(values: Float[np.ndarray, " t"], size: int, function) -> Float[np.ndarray, " groups"]:
    """Returns function(group) of neighbouring values, the last group being what is left."""
    return np.array([function(values[at : at + size]) for at in range(0, len(values), size)])
