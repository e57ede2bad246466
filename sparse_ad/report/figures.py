"""Figures of a report, drawn on Agg without pyplot: no global state, no display.

Colours can be told apart by colour-blind readers (Okabe and Ito). Heat maps share one scale, set
by normal images (see `protocol.set_scale`), so that equal colours mean equal scores everywhere.
"""

import io
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import ndimage
from sklearn.metrics import roc_curve

from sparse_ad.evaluation.results import ImageMetrics, Scale, ScoreRow
from sparse_ad.nets.losses import fraction_active
from sparse_ad.report.heatmaps import COLOURS, hatching, overlay, to_rgb
from sparse_ad.report.pictures import Picture

NORMAL, ANOMALOUS, CONTOUR = "#0072B2", "#D55E00", "#56F0FF"
LEAST, TALLEST, WIDEST = 0.5, 2.5, 1.25  # heights and widths of panels, in sides of square ones
SHORTEST = 3.0  # inches: room for the label of the colour bar
MAX_ATOMS = 400  # of a mosaic: more would be too small to see


def render(figure: Figure) -> bytes:
    """Returns the figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def draw_histogram(rows: Sequence[ScoreRow], threshold: float) -> Figure:
    """Draws histograms of the scores of normal and anomalous images, and the threshold."""
    figure, axes = _figure(6.4, 3.8)
    scores, labels = (np.array([getattr(row, name) for row in rows]) for name in ("score", "label"))
    wide = scores.min() > 0 and scores.max() > 30 * np.median(scores)  # a long tail
    bounds = scores.min(), max(scores.max(), scores.min() + 1e-6 * max(1.0, abs(scores.min())))
    edges = np.geomspace(*bounds, 31) if wide else np.linspace(*bounds, 31)
    for label, name, colour in ((0, "normal", NORMAL), (1, "anomalous", ANOMALOUS)):
        of_class = scores[labels == label]
        if not len(of_class):
            continue
        style = {"bins": edges, "color": colour}
        axes.hist(of_class, alpha=0.35, label=f"{name} ({len(of_class)})", **style)
        axes.hist(
            of_class, histtype="step", linewidth=1.5, linestyle="-" if label else "--", **style
        )
    axes.axvline(threshold, color="black", linewidth=1.5, label=f"threshold {threshold:.4g}")
    axes.set(xlabel="image score", ylabel="images", xscale="log" if wide else "linear")
    axes.locator_params(axis="y", integer=True)
    add_legend(figure, axes)
    return figure


def draw_roc(rows: Sequence[ScoreRow], metrics: ImageMetrics) -> Figure | None:
    """Draws the ROC curve and the point of the threshold used; None with one class."""
    auroc, _, r1, r2 = metrics
    if auroc.value is None or r1.value is None or r2.value is None:
        return None
    figure, axes = _figure(4.8, 4.8)
    false_positive, true_positive, _ = roc_curve(
        [row.label for row in rows], [row.score for row in rows]
    )
    interval = f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})"
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="chance")
    axes.plot(false_positive, true_positive, color=NORMAL, linewidth=2, label=interval)
    style = {"color": ANOMALOUS, "markersize": 9, "clip_on": False}
    axes.plot(1 - r1.value, r2.value, "o", label="at the threshold", **style)
    axes.set(
        xlabel="false-positive rate (fraction of normal images flagged)",
        ylabel="true-positive rate (fraction of anomalous images flagged)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="lower right", frameon=False)
    return figure


def draw_examples(pictures: Sequence[Picture], scale: Scale) -> Figure | None:
    """Draws each image with the outline of its mask, and below it the heat map over the image."""
    if not pictures:
        return None
    width, height = panel_size(pictures, 1.9)
    size = width * len(pictures) + 0.9, max(2 * height + 0.5, SHORTEST)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(pictures), squeeze=False)
    for picture, (above, below) in zip(pictures, axes.T, strict=True):
        show_image(above, to_rgb(picture.image))
        show_image(below, overlay(picture.image, picture.map, scale))
        for panel in (above, below):
            finish_panel(panel, picture)
        above.set_title(caption(picture), fontsize=8)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("heat map")
    _colour_bar(figure, axes, scale)
    return figure


def draw_reconstructions(pictures: Sequence[Picture]) -> Figure | None:
    """Draws original, reconstruction and difference, a row each as in Fig. 1 of the MLF-SC paper.

    Differences share one scale, clipped at the 99.9th percentile, so that one outlier does not
    flatten all others.
    """
    pairs = [
        (picture, picture.reconstruction)
        for picture in pictures
        if picture.reconstruction is not None
    ]
    if not pairs:
        return None
    width, height = panel_size([picture for picture, _ in pairs], 2.0)
    size = 3 * width + 1.2, height * len(pairs) + 0.4
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(pairs), 3, squeeze=False)
    differences = [
        np.where(picture.ignored, 0, np.abs(picture.image - drawn).mean(-1))
        for picture, drawn in pairs
    ]
    largest = float(np.quantile(differences, 0.999)) or 1.0
    for (picture, reconstruction), difference, panels in zip(pairs, differences, axes, strict=True):
        show_image(panels[0], to_rgb(picture.image))
        show_image(panels[1], to_rgb(reconstruction))
        drawn = show_image(panels[2], difference, cmap="inferno", vmin=0, vmax=largest)
        for panel in panels:
            finish_panel(panel, picture, outlined=panel is panels[0])
        panels[0].set_ylabel(caption(picture), fontsize=8)
    for panel, name in zip(axes[0], ("original", "reconstruction", "difference"), strict=True):
        panel.set_title(name, fontsize=10)
    bar = figure.colorbar(drawn, ax=axes[:, 2], shrink=0.6, extend="max")
    bar.set_label("|original − reconstruction| (pixels 0..1)")
    return figure


def draw_atoms(atoms: Float[np.ndarray, "k h w c"] | None) -> Figure | None:
    """Draws a mosaic of atoms, smooth ones first, each on its own grey (or colour) scale.

    Atoms are of unit norm and their signs are arbitrary: only the pattern matters. The first
    MAX_ATOMS are shown, and their features averaged where they are neither grey nor RGB.
    """
    if atoms is None or not len(atoms):
        return None
    values = np.asarray(atoms, np.float64)
    values = values if values.shape[-1] in (1, 3) else values.mean(-1, keepdims=True)
    drawn = values[np.argsort(_roughness(values))][:MAX_ATOMS]
    low, high = (bound(drawn, axis=(1, 2, 3), keepdims=True) for bound in (np.min, np.max))
    tiles = (drawn - low) / np.maximum(high - low, 1e-12)
    across = int(np.ceil(np.sqrt(2 * len(tiles))))
    down = -(-len(tiles) // across)
    framed = np.pad(
        tiles, ((0, down * across - len(tiles)), (1, 1), (1, 1), (0, 0)), constant_values=1
    )
    height, width, channels = framed.shape[1:]
    mosaic = framed.reshape(down, across, height, width, channels).swapaxes(1, 2)
    figure, axes = _figure(8.0, 8 * down * height / (across * width) + 0.4)
    show_image(axes, to_rgb(mosaic.reshape(down * height, across * width, channels)))
    count = len(drawn) if len(drawn) == len(atoms) else f"{len(drawn)} of {len(atoms)}"
    axes.set_title(f"{count} atoms, smooth ones first", fontsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def draw_latents(latents: tuple[Float[np.ndarray, "_ l"], ...] | None) -> Figure | None:
    """Draws histograms of the units, as fractions of the largest of their image.

    A decoder undoes any scale of the latent, so that only fractions can be compared. The legend
    says how many units are active: see `nets.losses`.
    """
    if latents is None:
        return None
    figure, axes = _figure(6.4, 3.8)
    for codes, name, colour in zip(
        latents, ("normal", "anomalous"), (NORMAL, ANOMALOUS), strict=True
    ):
        if not len(codes):
            continue
        size = np.abs(codes)
        largest = size.max(1, keepdims=True)
        fraction = size / np.maximum(largest, 1e-30)
        active = f"{name}: {fraction_active(codes).mean():.1%} active"
        style = {"bins": np.linspace(0, 1, 51), "weights": np.full(size.size, 1 / size.size)}
        line = {"histtype": "step", "linewidth": 1.5, "color": colour, "label": active}
        axes.hist(fraction.ravel(), **style, **line)
    axes.set(xlabel="unit / largest of its image", ylabel="fraction of units", yscale="log")
    add_legend(figure, axes)
    return figure


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def add_legend(figure: Figure, axes, columns: int = 3) -> None:
    """Adds the legend of a panel above all of the figure."""
    style = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(*axes.get_legend_handles_labels(), **style)


def show_image(axes, image, **style):
    """Shows an image or map without ticks; returns what a colour bar needs."""
    axes.set(xticks=[], yticks=[])
    return axes.imshow(image, interpolation="nearest", **style)


def panel_size(pictures: Sequence[Picture], side: float) -> tuple[float, float]:
    """Returns (width, height) of panels for pictures, in inches; side x side for square ones.

    Panels have the aspect of the middle picture, and no less room than captions need.
    """
    aspect = float(np.median([aspect_of(picture) for picture in pictures]))
    width = side * min(max(1.0, aspect**-0.5), WIDEST)
    return width, min(max(width * aspect, LEAST * side), TALLEST * side)


def aspect_of(picture: Picture) -> float:
    """Returns height / width that a picture is shown at: those of its image before the resize."""
    height, width = picture.shape or picture.mask.shape
    return height / width


def finish_panel(axes, picture: Picture, *, outlined: bool = True) -> None:
    """Hatches what is ignored, outlines the mask, and gives the panel the aspect of the image."""
    if picture.ignored.any():
        show_image(axes, hatching(picture.ignored))
    if outlined:
        outline_mask(axes, picture.mask)
    height, width = picture.mask.shape
    axes.set_aspect(aspect_of(picture) * width / height)  # of a pixel


def outline_mask(axes, mask) -> None:
    """Outlines the mask from a little outside, so that thin defects stay visible."""
    wide = ndimage.binary_dilation(mask, iterations=max(1, min(mask.shape) // 64))
    if wide.any() and not wide.all():
        axes.contour(wide, levels=[0.5], colors=[CONTOUR], linewidths=1)


def caption(picture: Picture) -> str:
    """Names an image in three short lines: file, kind and score, verdict."""
    row, name = picture.row, PurePath(picture.row.path).name
    name = name if len(name) <= 22 else f"{name[:9]}…{name[-12:]}"
    kind = row.kind or ""
    kind = kind if len(kind) <= 22 else f"{kind[:21]}…"
    return f"{name}\n{kind}: {row.score:.4g}\n{'flagged' if row.flagged else 'not flagged'}"


def _colour_bar(figure: Figure, axes, scale: Scale) -> None:
    heat = ScalarMappable(Normalize(scale.low, scale.high), COLOURS)
    bar = figure.colorbar(heat, ax=axes, shrink=0.8, pad=0.02, extend="both")
    bar.set_ticks(scale, labels=[f"{tick:.3g}" for tick in scale])
    bar.set_label("pixel score\n(middle: limit of normal images)")


def _roughness(atoms: Float[np.ndarray, "k h w c"]) -> Float[np.ndarray, " k"]:
    """Squared differences of neighbours against the atom's own energy around its mean."""
    energy = atoms.var(axis=(1, 2, 3)) * atoms[0].size
    steps = sum((np.diff(atoms, axis=axis) ** 2).sum(axis=(1, 2, 3)) for axis in (1, 2))
    return steps / np.maximum(energy, 1e-12)
