"""Results as text: the table in the terminal, and what the report shows of them."""

from collections.abc import Iterator
from typing import Any

from sparse_ad.data.sizes import STRETCH
from sparse_ad.evaluation.error_units import FEW
from sparse_ad.evaluation.results import Cost, ErrorUnitsUsed, Interval, Results, Threshold
from sparse_ad.report.html import number
from sparse_ad.report.tables import text

PLACES = {  # by: where the errors lie that are the unit of an error
    "whole": "at all positions of a layer",
    "border": "at the same distance to the border",
    "position": "at the same position",
}
OWN = {"border": "a distance", "position": "a position"}


def format_results(results: Results) -> str:
    """Returns the metrics as an aligned table for the terminal."""
    counts, threshold = results.counts, results.threshold
    rows = list_metrics(results)
    for kind, metrics in results.kinds.items():
        rows.append((f"  AUROC {kind} ({metrics.count})", *format_interval(metrics.auroc)))
    tested = (
        f"{counts.test_normal} normal and {counts.test_anomalous} anomalous test images",
        text(("", "value", "95 % interval"), rows, "<><"),
    )
    test, *metrics = tested if is_tested(results) else ("no test images",)
    lines = [
        f"{results.name}: {counts.train} training, {counts.calibration} calibration, {test}",
        *metrics,
        f"threshold {number(threshold.value)}: {describe_threshold(threshold)}",
        *([units] if (units := describe_units(results.error_units)) else []),
        "; ".join(f"{name} {value}" for name, value in list_costs(results.cost)),
        *(f"skipped: {each.problem}" for each in results.skipped),
        *(
            f"not used: {each.count} {each.reason}, such as {each.example}"
            for each in results.left_out
        ),
        *([describe_copies(results.copies)] if results.copies else []),
        *([stretched] if (stretched := describe_stretched(results)) else []),
    ]
    return "\n".join(lines)


def is_tested(results: Results) -> bool:
    """Returns whether there were test images."""
    counts = results.counts
    return counts.test_normal + counts.test_anomalous + counts.test_skipped > 0


def describe_threshold(threshold: Threshold) -> str:
    """Returns in words what the threshold guarantees."""
    rate, count = threshold.false_alarm_rate, threshold.calibration_images
    if threshold.guaranteed:
        return f"at most {rate:.3g} of normal images flagged, by {count} calibration images"
    return (
        f"the largest of {count} calibration scores, no guarantee: a false-alarm rate of "
        f"{rate:.3g} needs {threshold.images_needed} calibration images "
        "(data.calibration_fraction of the normal ones)"
    )


def describe_units(used: ErrorUnitsUsed) -> str:
    """Returns in words what the unit of errors is, and what it falls short of; "": raw errors."""
    if used.asked == "none":
        return ""
    if used.by == "none":
        return f"Errors are not calibrated (evaluation.calibration.by = {used.asked}): {used.note}."
    parts = [
        f"Errors are in units of those of {used.images} held-out normal images, "
        f"{PLACES[used.by]}: z = (error - mean) / std"
    ]
    few = used.by == "position" and used.images < FEW  # the note says how much they weigh
    if used.by != "whole" and not few:
        parts.append(f"the statistics of {OWN[used.by]} weigh {used.weight:.0%} against wider ones")
    if used.note:
        parts.append(used.note)
    return "; ".join(parts) + "."


def describe_copies(count: int) -> str:
    """Returns in words what is wrong with test images that were trained on."""
    return f"{count} test images are copies of training or calibration images, byte for byte"


def describe_stretched(results: Results) -> str:
    """Returns in words which images do not keep their aspect; "": none are stretched by far."""
    counts = (("test", results.stretched), ("training", results.stretched_training))
    parts = [f"{count} {name} images" for name, count in counts if count]
    factor = f"are stretched by more than a factor of {STRETCH:g}"
    return f"{' and '.join(parts)} {factor}" if parts else ""


def list_metrics(results: Results) -> list[tuple[str, str, str]]:
    """Returns name, value and interval of the image and pixel metrics."""
    image, pixel = results.image, results.pixel
    named = (
        ("image AUROC", image.auroc),
        ("image AP", image.ap),
        ("R1: normal images not flagged", image.r1),
        ("R2: anomalous images flagged", image.r2),
        ("pixel AUROC", pixel.auroc),
        ("AUPRO to 0.3 false positives", pixel.aupro_30),
        ("AUPRO to 0.05 false positives", pixel.aupro_05),
    )
    return [(name, *format_interval(metric)) for name, metric in named]


def list_costs(cost: Cost) -> list[tuple[str, str]]:
    """Returns name and value of speed and memory."""
    rows = [
        ("images per second, decoding apart", number(cost.images_per_second)),
        ("ms per image, median", number(cost.milliseconds_p50)),
        ("ms per image, 95th percentile", number(cost.milliseconds_p95)),
        ("compile s", number(cost.compile_seconds)),
        ("peak memory MB", number(cost.peak_memory / 1e6)),
        ("model MB", number(cost.params / 1e6)),
    ]
    if cost.peak_device_memory is not None:
        rows.append(("peak device memory MB", number(cost.peak_device_memory / 1e6)))
    return rows


def format_interval(metric: Interval) -> tuple[str, str]:
    """Returns value and interval as text; a dash and the reason where the metric is undefined."""
    if metric.value is None:
        return "–", metric.reason
    return f"{metric.value:.3f}", f"{metric.low:.3f} to {metric.high:.3f}"


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields a dotted name and a value as text for each leaf."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", number(value)
