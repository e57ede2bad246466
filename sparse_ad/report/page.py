"""The report of a run: figures, and one self-contained page that holds them."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from sparse_ad.evaluation.results import Results, ScoreRow
from sparse_ad.nets.losses import ACTIVE
from sparse_ad.report import curves, figures, html, layer_figures, summary
from sparse_ad.report.normal_figure import draw_normal
from sparse_ad.report.pictures import SAMPLED, Picture, Pictures
from sparse_ad.system.files import write_bytes, write_text

FIGURES = {  # file -> caption
    "histogram": ("Scores of normal and anomalous images. Images right of the line are flagged."),
    "roc": "ROC curve over all thresholds, and the point of the threshold used.",
    "worst": (
        "The highest-scored normal and the lowest-scored anomalous images. The outline is the "
        "mask. All heat maps share one scale, set by held-out normal images: the upper half of "
        "its colours is beyond what they reach but at the stated false-alarm rate."
    ),
    "best": "The highest-scored anomalous and the lowest-scored normal images, on that scale.",
    "normal_errors": (
        "Mean and std of the errors of held-out normal images, drawn as heat maps are; the std "
        "with its floor. What is bright here is unusual only where an error is larger still."
    ),
    "reconstructions": "Original, reconstruction and their difference.",
    "atoms": "The atoms that were learned, each on its own scale.",
    "latents": (
        "The units of the latent, of a sample of the test images: their absolute values as "
        "fractions of the largest of their image. Active are those of more than "
        f"{ACTIVE:.0%} of it."
    ),
    "curves": (
        f"The metrics of each step of the fit. Of more than {curves.BINS} steps the line is the "
        "mean of neighbours, the band goes from their smallest to their largest value."
    ),
}
WITHOUT_TEST = {  # captions of runs without test images
    "histogram": (
        "Scores of the held-out normal images, which set the threshold: the line. New images right "
        "of it are flagged."
    ),
    "worst": (
        "The held-out normal images with the highest scores. All heat maps share one scale, set by "
        "these images."
    ),
    "best": "The held-out normal images with the lowest scores, on that scale.",
    "normal_errors": (
        "Mean and std of the errors of the held-out normal images, drawn as heat maps are; the std "
        "with its floor. The score of an image is by the statistics of the others, its heat map by "
        "those of all."
    ),
}
LAYER_FIGURES = {  # of a method that can explain its score by layers
    "layers": (
        "Patch errors of each layer, summed over its channels; each class adds up to 100 %. The "
        "line is exceeded by 5 % of the patches of normal images; the title says by how many of "
        "anomalous images, most of whose patches may show nothing wrong. AUROC: of the "
        "largest error of each image. Sampled, evenly over the test set, are at most "
        f"{SAMPLED} normal and {SAMPLED} anomalous images: the numbers are rough."
    ),
    "layer_maps": (
        "What each layer adds to the heat map, for the highest- and lowest-scored images of each "
        "class. The outline is the mask. A layer has one scale in all images, from the median to "
        "the 99.5 % quantile of its maps of the sampled normal images; the last column is the "
        "heat map, on the report's scale."
    ),
    "channels": (
        "The most unusual channels of the same images: what each adds (the sum of its largest "
        "patch errors), in units of its mean over the sampled normal images, or of 1 % of the "
        "layer's average channel where it adds less than that. The line is where the most extreme "
        "channel of a typical (median) normal image lies."
    ),
}
HATCHED = "Hatched pixels are ignored."  # in captions of figures of images, where there are any
OF_IMAGES = ("worst", "best", "reconstructions", "layer_maps")


class Embedded(NamedTuple):
    """A figure as the page holds it."""

    name: str
    text: str  # its caption
    png: str  # base64


def write_report(
    folder: Path | str,
    results: Results,
    rows: Sequence[ScoreRow],
    pictures: Pictures,
    metrics: Sequence[dict[str, Any]] = (),
) -> Path:
    """Writes figures/*.png and report.html, which holds them; returns the path of the page.

    `metrics`: of the steps of the fit, as `fitting.metrics_log.read_metrics` reads them.
    """
    folder = Path(folder)
    drawn = _draw(results, rows, pictures)
    drawn["curves"] = curves.draw_curves(metrics)
    tested = summary.is_tested(results)
    captions = dict(FIGURES if tested else FIGURES | WITHOUT_TEST)
    units = summary.describe_units(results.error_units)
    captions["normal_errors"] += f" {units}"
    hatched = any(picture.ignored.any() for picture in all_pictures(pictures))
    page = html.render(
        "report",
        results=results,
        tested=tested,
        figures=_write_figures(folder / "figures", drawn, captions, hatched),
        layer_figures=_write_figures(folder / "figures", drawn, LAYER_FIGURES, hatched),
        quality=summary.list_metrics(results),
        copies=summary.describe_copies(results.copies) if results.copies else "",
        stretched=summary.describe_stretched(results),
        promise=summary.describe_threshold(results.threshold),
        units=units,
        costs=summary.list_costs(results.cost),
        diagnostics=list(summary.flatten(results.score_info)),
        config=list(summary.flatten(results.config)),
        fit=list(summary.flatten(results.fit._asdict())),
        environment=list(summary.flatten(results.environment)),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _write_figures(
    folder: Path, drawn: dict[str, Figure | None], captions: dict[str, str], hatched: bool
) -> list[Embedded]:
    """Writes the figures that have captions here; removes old files of those not drawn."""
    embedded = []
    for name, caption in captions.items():
        path, figure = folder / f"{name}.png", drawn[name]
        if figure is None:
            path.unlink(missing_ok=True)  # of an earlier run
            continue
        content = figures.render(figure)
        write_bytes(path, content)
        caption += f" {HATCHED}" if hatched and name in OF_IMAGES else ""
        embedded.append(Embedded(name, caption, base64.b64encode(content).decode()))
    return embedded


def all_pictures(pictures: Pictures) -> tuple[Picture, ...]:
    """Returns all pictures, those of normal images first."""
    normal = pictures.lowest_normal + pictures.highest_normal
    return normal + pictures.highest_anomalous + pictures.lowest_anomalous


def _draw(
    results: Results, rows: Sequence[ScoreRow], pictures: Pictures
) -> dict[str, Figure | None]:
    scale = results.scale
    worst = pictures.highest_normal + pictures.lowest_anomalous
    best = pictures.highest_anomalous + pictures.lowest_normal
    return {
        "histogram": figures.draw_histogram(rows, results.threshold.value),
        "roc": figures.draw_roc(rows, results.image),
        "worst": figures.draw_examples(worst, scale),
        "best": figures.draw_examples(best, scale),
        "normal_errors": draw_normal(pictures.normal),
        "reconstructions": figures.draw_reconstructions(all_pictures(pictures)),
        "atoms": figures.draw_atoms(pictures.atoms),
        "latents": figures.draw_latents(pictures.latents),
        "layers": layer_figures.draw_layers(pictures.layers),
        "layer_maps": layer_figures.draw_layer_maps(pictures, scale),
        "channels": layer_figures.draw_channels(pictures),
    }
