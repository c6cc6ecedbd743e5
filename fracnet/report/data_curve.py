"""The learning curve of data of a sweep over `data.fraction`: table, chart and sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from fracnet.evaluation.sweep_statistics import MIN_SEEDS, MIN_SIZES, SMALL
from fracnet.report.plots import SERIES, Chart, Figure, Key, Look
from fracnet.report.sweep_charts import mark
from fracnet.report.sweep_tables import Sweep, metric_title, settings_text
from fracnet.report.tables import Table, mean_cell
from fracnet.utils.text import are, counted

KEY = "data.fraction"
SIZE = (5.2, 3.2)  # inches
METHOD = (
    "The curve is an inverse power law of the number of train images, fitted by least squares; the "
    "interval resamples seeds and covers neither another form of the curve nor other validation "
    "images."
)


def data_curve_table(sweep: Sweep) -> Table | None:
    """Images and mean metric of each fraction; None where `data.fraction` does not vary."""
    curves = sweep["data_curves"]
    if not curves:
        return None
    rows = [
        [
            settings_text(curve["overrides"]) or "all jobs",
            f"{point['fraction']:g}",
            f"{point['images']:.0f}",
            str(len(point["values"])),
            mean_cell(point),
        ]
        for curve in curves
        for point in curve["points"]
    ]
    several = len(curves) > 1
    known = any(point["low"] is not None for curve in curves for point in curve["points"])
    interval = " (95 % CI)" if known else ""
    heads = ["configuration", "data.fraction", "train images", "runs", f"mean{interval}"]
    return Table(
        f"Validation {metric_title(sweep['objective'])} by number of train images",
        heads if several else heads[1:],
        rows if several else [row[1:] for row in rows],
    )


def data_curve_notes(sweep: Sweep) -> list[str]:
    """What a doubling of the train images would buy, a sentence for each configuration."""
    return [_note(sweep, curve) for curve in sweep["data_curves"]]


def _note(sweep: Sweep, curve: Mapping[str, Any]) -> str:
    which = settings_text(curve["overrides"])
    start = f"{which}: " if which else ""
    title = f"validation {metric_title(sweep['objective'])}"
    unknown = f"{start}What a doubling of the train images would buy cannot be told"
    fit, points = curve["fit"], curve["points"]
    if fit is None:
        return (
            f"{unknown}: a curve takes {MIN_SIZES} values of {KEY} with a result, and there "
            f"{are(len(points))} {len(points)}."
        )
    sign = 1 if sweep["better"] == "larger" else -1
    gain = sign * fit["gain"]
    if fit["low"] is None:
        return (
            f"{unknown}: an interval takes {MIN_SEEDS} seeds of each fraction that differ. The "
            f"fitted curve alone says {gain:+.3f} {title}."
        )
    low, high = sorted((sign * fit["low"], sign * fit["high"]))
    interval = f"95 % CI {low:+.3f} to {high:+.3f}"
    if not fit["is_precise"]:
        return (
            f"{unknown}: the change of {title} is {gain:+.3f} ({interval}). More seeds or more "
            "fractions narrow the interval."
        )
    n = f"Doubling the {fit['images']:.0f} train images"
    if fit["low"] <= 0:
        return (
            f"{start}{n} is estimated to change {title} by less than {SMALL:g}: {gain:+.3f} "
            f"({interval})."
        )
    return f"{start}{n} is estimated to change {title} by {gain:+.3f} ({interval})."


def data_curve_figure(sweep: Sweep) -> Figure | None:
    """Metric of each run by number of train images, with the fitted curve to twice the most."""
    curves = sweep["data_curves"][: len(SERIES)]
    if not curves:
        return None
    title, sign = metric_title(sweep["objective"]), sweep["better"] == "larger"

    def draw(axis: Axes) -> None:
        axis.set_xscale("log", base=2)
        ticks = sorted({round(point["images"]) for curve in curves for point in curve["points"]})
        for (color, marker), curve in zip(SERIES, curves, strict=False):
            which = settings_text(curve["overrides"])
            for point in curve["points"]:
                for images, value in zip(point["each"], point["values"], strict=True):
                    label = f"{which} {images} images: {value:.3f}".strip()
                    look: Look = {"color": color, "marker": marker, "alpha": 0.55, "zorder": 2}
                    mark(axis, images, value, label, **look)
            if fit := curve["fit"]:
                x = np.geomspace(min(curve["points"][0]["each"]), 2 * fit["images"], 60)
                error = fit["floor"] + fit["scale"] * x ** -fit["exponent"]
                y, seen = (1 - error if sign else error), x <= fit["images"]
                axis.plot(x[seen], y[seen], color=color)
                axis.plot(x[~seen], y[~seen], color=color, linestyle=(0, (4, 3)))
                ticks.append(round(2 * fit["images"]))
        axis.set_xticks(_spaced(ticks))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.minorticks_off()
        axis.set(xlabel="train images, logarithmic", ylabel=f"validation {title}")

    keys = [
        Key({"color": color, "marker": marker}, settings_text(curve["overrides"]))
        for (color, marker), curve in zip(SERIES, curves, strict=False)
    ]
    runs = sum(len(point["values"]) for curve in curves for point in curve["points"])
    notes = ["Each mark is one run. Dashed: the fitted curve beyond the data."]
    if len(sweep["data_curves"]) > len(curves):
        more = len(sweep["data_curves"]) - len(curves)
        notes.append(f"Not drawn: {counted(more, 'further configuration')}.")
    label = f"validation {title} by number of train images, {counted(runs, 'run')}"
    chart = Chart("By number of train images", label, draw, notes, (), SIZE)
    return Figure("data_curve", "", [chart], keys if len(curves) > 1 else [])


def _spaced(ticks: Sequence[int]) -> list[int]:
    """Ticks in ascending order, without those that would touch the one before."""
    kept: list[int] = []
    for tick in sorted(set(ticks)):
        if not kept or math.log2(tick / kept[-1]) > 0.3:
            kept.append(tick)
    return kept
