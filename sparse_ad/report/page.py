"""What a person reads: the table in the terminal, the figures, and one self-contained page."""

import base64
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.image import imsave

from sparse_ad.fitting.metrics_log import read_metrics
from sparse_ad.nets.losses import ACTIVE
from sparse_ad.report import curves, figures, heatmaps, layer_figures
from sparse_ad.report.pictures import SAMPLED, Pictures
from sparse_ad.system.files import write_bytes, write_json, write_text

COLUMNS = ("path", "kind", "group", "label", "score", "threshold", "flagged")
FIGURES = (  # file, what is seen
    (
        "histogram",
        "Scores of normal and anomalous test images. Images right of the line are flagged.",
    ),
    ("roc", "ROC curve over all thresholds, and the point at which the threshold works."),
    (
        "worst",
        "The highest-scored normal and the lowest-scored anomalous images. The outline is the "
        "mask. All heat maps share one scale, set by held-out normal images: the upper half of "
        "its colours is beyond what they reach but at the stated false-alarm rate.",
    ),
    ("best", "The highest-scored anomalous and the lowest-scored normal images, on that scale."),
    ("reconstructions", "Original, reconstruction and their difference."),
    ("atoms", "What was learned, each atom on its own scale."),
    (
        "latents",
        "The units of the latent, of a sample of the test images: how large they are beside the "
        f"largest of their image. Active are those of more than {ACTIVE:.0%} of it.",
    ),
    (
        "curves",
        f"What each step of the fit measured. Of more than {curves.BINS} steps the line is the "
        "mean of neighbours, the band goes from their least to their largest value.",
    ),
)
LAYER_FIGURES = (  # of a method that can say what each layer adds
    (
        "layers",
        "Patch errors of each layer, summed over its channels; each class adds up to 100 %. The "
        "line is passed by 5 % of the patches of normal images; the title says by how many of "
        "anomalous images, most of whose patches may show nothing wrong. AUROC: of the "
        "largest error of each image. Sampled, evenly over the test set, are at most "
        f"{SAMPLED} normal and {SAMPLED} anomalous images: the figures are rough.",
    ),
    (
        "layer_maps",
        "What each layer adds to the heat map, for the highest- and lowest-scored images of each "
        "class. The outline is the mask. A layer has one scale in all images, from the median to "
        "the 99.5 % quantile of its maps of the sampled normal images; the last column is the "
        "heat map, on the report's scale.",
    ),
    (
        "channels",
        "The channels of the same images that are most out of the ordinary: what each adds (the "
        "sum of its largest patch errors), in units of its mean over the sampled normal images, "
        "or of 1 % of the layer's average channel where it adds less than that. The line is "
        "where the most extreme channel of a typical (median) normal image lies.",
    ),
)


def write_scores(path: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a CSV row for each image; what is None is left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"flagged": _yes_no(row["flagged"])} for row in rows)
    write_text(path, buffer.getvalue())


def write_results(
    workdir: Path | str, results: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> None:
    """Writes scores.csv and then results.json, whose presence says that all of it is there."""
    write_scores(Path(workdir) / "scores.csv", rows)
    write_json(Path(workdir) / "results.json", results)


def write_report(
    workdir: Path | str,
    results: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    pictures: Pictures,
) -> Path:
    """Writes figures/*.png and report.html, which holds them; returns the path of the page."""
    workdir, drawn = Path(workdir), _draw(results, rows, pictures)
    drawn["curves"] = curves.draw_curves(read_metrics(workdir / "metrics.jsonl"))
    shown = _write_figures(workdir / "figures", drawn, FIGURES)
    shown_layers = _write_figures(workdir / "figures", drawn, LAYER_FIGURES)
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    page = environment.get_template("report.html.jinja").render(
        results=results,
        figures=shown,
        layer_figures=shown_layers,
        quality=_quality(results),
        promise=describe_threshold(results["threshold"]),
        costs=_costs(results),
        diagnostics=list(_flatten(results["score_info"])),
        config=list(_flatten(results["config"])),
        fit=list(_flatten(results["fit"])),
        environment=list(_flatten(results["environment"])),
    )
    write_text(workdir / "report.html", page)
    return workdir / "report.html"


def write_overlay(
    path: Path | str,
    image: Float[np.ndarray, "h w c"],
    anomaly_map: Float[np.ndarray, "h w"],
    scale: dict[str, float],
) -> None:
    """Writes the heat map over the image as PNG, on the scale that calibration set."""
    buffer = io.BytesIO()
    imsave(buffer, heatmaps.overlay(image, anomaly_map, scale), format="png")
    write_bytes(path, buffer.getvalue())


def format_results(results: dict[str, Any]) -> str:
    """Formats the figures as an aligned table for the terminal."""
    counts, threshold = results["counts"], results["threshold"]
    table = [("", "value", "95 % interval"), *_quality(results)]
    for kind, figure in results["kinds"].items():
        table.append((f"  AUROC {kind} ({figure['count']})", *_figure(figure["auroc"])))
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    lines = [f"{name:<{first}}  {value:>{second}}  {span}".rstrip() for name, value, span in table]
    cost = "; ".join(f"{name} {value}" for name, value in _costs(results))
    return "\n".join(
        [
            f"{results['name']}: {counts['train']} training, {counts['calibration']} calibration, "
            f"{counts['test_normal']} normal and {counts['test_anomalous']} anomalous test images",
            *lines,
            f"threshold {_number(threshold['value'])}: {describe_threshold(threshold)}",
            cost,
            *(f"skipped: {each['problem']}" for each in results["skipped"]),
        ]
    )


def describe_threshold(threshold: dict[str, Any]) -> str:
    """Says in words what the threshold promises."""
    rate, count = threshold["false_alarm_rate"], threshold["calibration_images"]
    if threshold["guaranteed"]:
        return f"at most {rate:.3g} of normal images flagged, by {count} calibration images"
    return (
        f"the largest of {count} calibration scores, no guarantee: a false-alarm rate of "
        f"{rate:.3g} needs {threshold['images_needed']} calibration images"
    )


def _write_figures(folder: Path, drawn: dict, titles) -> list[dict[str, str]]:
    """Writes what was drawn of the figures in `titles`; returns what the page needs of each."""
    shown = []
    for name, text in titles:
        path = folder / f"{name}.png"
        if drawn[name] is None:
            path.unlink(missing_ok=True)  # of an earlier run
            continue
        content = figures.render(drawn[name])
        write_bytes(path, content)
        shown.append({"name": name, "text": text, "png": base64.b64encode(content).decode()})
    return shown


def _draw(results, rows, pictures: Pictures) -> dict[str, Figure | None]:
    scale = results["scale"]
    firsts = (pictures.calm[:1], pictures.false_alarms[:1], pictures.hits[:1], pictures.misses[:1])
    return {
        "histogram": figures.draw_histogram(rows, results["threshold"]["value"]),
        "roc": figures.draw_roc(rows, results),
        "worst": figures.draw_examples(pictures.false_alarms + pictures.misses, scale),
        "best": figures.draw_examples(pictures.hits + pictures.calm, scale),
        "reconstructions": figures.draw_reconstructions(sum(firsts, ())),
        "atoms": figures.draw_atoms(pictures.atoms),
        "latents": figures.draw_latents(pictures.latents),
        "layers": layer_figures.draw_layers(pictures.layers),
        "layer_maps": layer_figures.draw_layer_maps(pictures, scale),
        "channels": layer_figures.draw_channels(pictures),
    }


def _quality(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    image, pixel = results["image"], results["pixel"]
    named = (
        ("image AUROC", image["auroc"]),
        ("image AP", image["ap"]),
        ("R1: normal images not flagged", image["r1"]),
        ("R2: anomalous images flagged", image["r2"]),
        ("pixel AUROC", pixel["auroc"]),
        ("AUPRO to 0.3 false positives", pixel["aupro_0.3"]),
        ("AUPRO to 0.05 false positives", pixel["aupro_0.05"]),
    )
    return [(name, *_figure(figure)) for name, figure in named]


def _costs(results: dict[str, Any]) -> list[tuple[str, str]]:
    cost = results["cost"]
    rows = [
        ("images per second", _number(cost["images_per_second"])),
        ("ms per image, median", _number(cost["milliseconds_p50"])),
        ("ms per image, 95th percentile", _number(cost["milliseconds_p95"])),
        ("compile s", _number(cost["compile_seconds"])),
        ("peak memory MB", _number(cost["peak_memory"] / 1e6)),
        ("model MB", _number(cost["params"] / 1e6)),
    ]
    if cost["peak_device_memory"] is not None:
        rows.append(("peak device memory MB", _number(cost["peak_device_memory"] / 1e6)))
    return rows


def _figure(figure: dict[str, Any]) -> tuple[str, str]:
    """The value and the interval of a figure as text; a dash and the reason where it has none."""
    if figure["value"] is None:
        return "–", figure["reason"]
    return f"{figure['value']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}"


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Pairs of a dotted name and a value as text."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _number(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _yes_no(flagged: bool | None) -> int | None:
    return None if flagged is None else int(flagged)
