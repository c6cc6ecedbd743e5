"""The charts of one evaluation: ROC, precision-recall, reliability, confusion matrix, learning.

Each function gives a `Figure`, which a page shows and `save_figures` writes as files.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.assessment import Assessment
from fracnet.evaluation.decisions import calibrate, temperature_text
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import NOT_FROM_0, TOO_FEW, ClassSummary, Estimate, Summary
from fracnet.metrics.calibration import (
    ESTIMATOR,
    Reliability,
    calibration_error,
    calibration_interval,
    reliability,
    score_and_hit,
)
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.roc import (
    Band,
    no_curve_reason,
    precision_recall,
    precision_recall_band,
    roc,
    roc_band,
    steps,
)
from fracnet.report import forest_plots
from fracnet.report.plots import (
    BLUE,
    DASHED,
    EMPTY,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    SKY,
    VERMILION,
    WHITE,
    Chart,
    Figure,
    Key,
    Look,
    hover,
    save,
)
from fracnet.report.run_content import IMAGE, Evaluated
from fracnet.report.run_tables import (
    decision_rule,
    format_threshold,
    rule_text,
)
from fracnet.report.tables import EstimateCell, estimate_cell, estimate_text
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted, shortened

MOST = 24  # panels of a figure; of more classes, those with the most cases
DETAILED = 3  # with up to this many panels, each lists the rates at its operating point
MARKED = 40  # epochs; with more, markers run into one another

BAND: Look = {"color": BLUE, "alpha": 0.16, "linewidth": 0}
CROSS: Look = {"color": VERMILION, "linewidth": 1.2}
POINT: Look = {
    "color": VERMILION,
    "marker": "o",
    "markersize": 5.5,
    "markeredgecolor": WHITE,
    "linestyle": "",
}
HOLLOW: Look = {
    "color": VERMILION,
    "marker": "o",
    "markersize": 6.5,
    "markerfacecolor": WHITE,
    "linestyle": "",
}


@dataclass(frozen=True)
class Panel:
    """One class against the rest. `case` bool[N], `score` float64[N], `clusters` of these rows.

    `summary` holds the metrics at the operating point that `decision` describes; `chosen` is
    (sensitivity, specificity) on the validation rows that chose it, None if none did.
    """

    title: str
    level: str
    case: np.ndarray
    score: np.ndarray
    clusters: Clusters
    summary: ClassSummary
    decision: str
    chosen: tuple[float, float] | None = None


def panels(evaluated: Evaluated) -> list[Panel]:
    """Two classes: the positive one at each level. More: each class, of the raw probabilities."""
    if evaluated.binary:
        return [_level_panel(evaluated, level) for level in evaluated.levels]
    rows, summary = evaluated.decided, evaluated.summary
    target, scores, clusters = rows.targets, rows.scores, rows.clusters
    most = sorted(range(len(summary.classes)), key=lambda c: -summary.per_class[c].n)[:MOST]
    return [
        Panel(
            title=summary.classes[c],
            level=IMAGE,
            case=target == c,
            score=scores[:, c],
            clusters=clusters,
            summary=summary.per_class[c],
            decision="the most likely class",
        )
        for c in sorted(most)
    ]


def _level_panel(evaluated: Evaluated, level: str) -> Panel:
    rows = to_level(evaluated.decided, level, evaluated.assessment.options.views)
    stratum, decisions = evaluated.overall[level], evaluated.decisions or {}
    point = (decisions.get("operating_point") or {}).get(level, {})
    chosen = point.get("sensitivity"), point.get("specificity")
    threshold = 0.5 if stratum.threshold is None else stratum.threshold
    decision = f"threshold {format_threshold(threshold)}"
    if None not in chosen:
        decision += f" ({rule_text(decisions['rule'])})"
    return Panel(
        title=f"{level} level",
        level=level,
        case=rows.targets == 1,
        score=rows.scores[:, 1],
        clusters=rows.clusters,
        summary=stratum.summary.per_class[1],
        decision=decision,
        chosen=None if None in chosen else chosen,
    )


@dataclass(frozen=True)
class _Kind:
    """What makes one kind of curve differ from the other."""

    name: str
    title: str
    x: str
    y: str
    no_skill: str
    area: str
    band: Callable[..., Band]
    draw: "Callable[[Axes, Panel], None]"


def roc_figure(evaluated: Evaluated) -> Figure:
    """Sensitivity against the false positive rate, with bands and operating points."""
    return _curves(evaluated, _ROC)


def precision_recall_figure(evaluated: Evaluated) -> Figure:
    """Precision against recall, in steps, with bands and operating points."""
    return _curves(evaluated, _PRECISION_RECALL)


def _curves(evaluated: Evaluated, kind: _Kind) -> Figure:
    shown, resamples = panels(evaluated), evaluated.assessment.options.resamples
    bands = [kind.band(p.case, p.score, p.clusters, resamples=resamples) for p in shown]
    detailed = len(shown) <= DETAILED
    charts = [_curve(*pair, kind, detailed) for pair in zip(shown, bands, strict=True)]
    keys = []
    if not all(no_curve_reason(panel.case) for panel in shown):
        point = "operating point" if detailed else f"operating point ({shown[0].decision})"
        keys = [
            Key({**POINT, "linestyle": "-"}, f"{point}, 95 % intervals"),
            Key(DASHED, kind.no_skill),
        ]
        methods = [band.method for band in bands if not band.note]
        if methods:
            keys.insert(0, Key(BAND, f"95 % band ({methods[0]})", area=True))
    split = evaluated.summary.split
    about = evaluated.classes[1] if evaluated.binary else "each class against the rest"
    return Figure(f"{kind.name}_{split}", f"{kind.title}: {about}, {split} split", charts, keys)


def _curve(panel: Panel, band: Band, kind: _Kind, detailed: bool) -> Chart:
    why = no_curve_reason(panel.case)

    def draw(axis: Axes) -> None:
        ticks = np.linspace(0, 1, 6)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
        axis.set(xlabel=kind.x, ylabel=kind.y)
        if why:
            axis.set_facecolor(EMPTY)
            axis.grid(False)
            axis.text(0.5, 0.5, f"no curve: {why}", ha="center", color=MUTED)
            return
        axis.fill_between(band.x, band.low, band.high, **BAND)
        kind.draw(axis, panel)

    summary = panel.summary
    area = summary.auc if kind.area == "AUC" else summary.average_precision
    few = f" ({TOO_FEW})" if TOO_FEW in area.note.split("; ") else ""
    cases = f"{counted(int(panel.case.sum()), 'case')} in {counted(len(panel.case), panel.level)}"
    notes = [estimate_text(area, kind.area), cases + few]
    if band.note and not why:
        notes.append(f"no band: {band.note}")
    keys = _details(panel, kind) if detailed and not why else ()
    label = f"{kind.y} against {kind.x}: {panel.title}"
    return Chart(panel.title, label, draw, notes, keys)


def _details(panel: Panel, kind: _Kind) -> list[Key]:
    """What the operating point is and which rates it gives."""
    rates = ("sensitivity", "specificity", "precision")
    keys = [Key(POINT, panel.decision)]
    keys += [Key({}, estimate_text(getattr(panel.summary, name), name)) for name in rates]
    if panel.chosen is not None and kind.area == "AUC":
        sensitivity, specificity = panel.chosen
        text = f"on validation, where chosen: {sensitivity:.3f}, {specificity:.3f}"
        keys.append(Key(HOLLOW, text))
    return keys


def _draw_roc(axis: Axes, panel: Panel) -> None:
    curve = roc(panel.case, panel.score)
    axis.plot([0, 1], [0, 1], **DASHED)
    axis.plot(curve.x, curve.y, color=BLUE)
    rates = panel.summary
    specificity = rates.specificity
    low, high = (None if e is None else 1 - e for e in (specificity.high, specificity.low))
    false_positives = EstimateCell(1 - specificity.value, low, high)
    _cross(axis, false_positives, rates.sensitivity)
    if panel.chosen is not None:
        sensitivity, specificity_there = panel.chosen
        (mark,) = axis.plot(1 - specificity_there, sensitivity, zorder=3.5, **HOLLOW)
        hover(mark, "operating point on validation")


def _draw_precision_recall(axis: Axes, panel: Panel) -> None:
    axis.axhline(float(panel.case.mean()), **DASHED)
    recall, precision = steps(precision_recall(panel.case, panel.score))
    axis.step(recall, precision, where="pre", color=BLUE)
    _cross(axis, panel.summary.sensitivity, panel.summary.precision)


def _cross(axis: Axes, x: Estimate | EstimateCell, y: Estimate) -> None:
    """The operating point, with a bar for each coordinate's interval."""
    if x.low is not None and x.high is not None:
        axis.plot([x.low, x.high], [y.value, y.value], zorder=3.8, **CROSS)
    if y.low is not None and y.high is not None:
        axis.plot([x.value, x.value], [y.low, y.high], zorder=3.8, **CROSS)
    if math.isfinite(x.value) and math.isfinite(y.value):
        (mark,) = axis.plot(x.value, y.value, zorder=4, clip_on=False, **POINT)
        hover(mark, "operating point")


_ROC = _Kind("roc", "ROC", "1 - specificity", "sensitivity", "no skill", "AUC", roc_band, _draw_roc)
_PRECISION_RECALL = _Kind(
    "precision_recall",
    "Precision and recall",
    "recall (sensitivity)",
    "precision",
    "no skill: the share of cases",
    "AUC-PR",
    precision_recall_band,
    _draw_precision_recall,
)

# Of equal width: the strip below a diagram shows the distribution of the probabilities.
BINS = np.linspace(0, 1, 26)
STRIP = 0.75  # inches


def calibration_charts(evaluated: Evaluated) -> Figure:
    """Reliability diagrams: predicted against observed, before and after temperature scaling."""
    rows, temperature = evaluated.rows, evaluated.temperature
    states = {"uncalibrated probabilities": rows.probabilities}
    if temperature != 1:
        states = {
            "before calibration": rows.probabilities,
            f"after (temperature {temperature_text(temperature)})": calibrate(
                rows, temperature
            ).probabilities,
        }
    target, clusters, classes = rows.targets, rows.clusters, rows.classes
    positive = shortened(classes[1], 24)
    x, y = f"predicted probability of {positive}", f"share that is {positive}"
    if len(classes) != 2:
        x, y = "probability of the predicted class", "share that is right"
    scores = [score_and_hit(target, prob) for prob in states.values()]
    bins = [reliability(score, hit, clusters) for score, hit in scores]
    tallest = max(int(np.histogram(score, BINS)[0].max()) for score, _ in scores)
    charts = [
        _reliability_chart(title, score, found, (x, y), tallest, _error(target, prob, clusters))
        for (title, prob), (score, _), found in zip(states.items(), scores, bins, strict=True)
    ]
    sizes = np.concatenate([found.n for found in bins])
    few, many = int(sizes.min()), int(sizes.max())
    size = counted(many, "image") if few == many else f"{few} to {many} images"
    note = (
        f"Points: bins of {size}, 95 % intervals by {clusters.unit}. Dashed: perfect calibration. "
        f"Below: distribution of the probabilities of {counted(len(rows), 'image')}. "
        f"Calibration error: {ESTIMATOR}."
    )
    split = evaluated.summary.split
    return Figure(f"reliability_{split}", f"Reliability: {split} split", charts, (), note)


def _error(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> str:
    """The metric of the tables: of the predicted class, also where another class is drawn."""
    error = calibration_error(target, prob, clusters)
    interval = calibration_interval(target, prob, clusters)
    cut_off = NOT_FROM_0 if error == 0 else ""
    cell = estimate_cell(Estimate(error, interval.low, interval.high, "", len(target), cut_off))
    return f"top-label calibration error {cell}"


def _reliability_chart(
    title: str,
    score: np.ndarray,
    bins: Reliability,
    labels: tuple[str, str],
    tallest: int,
    note: str,
) -> Chart:
    size = (3.6, 3.6)

    def draw(axis: Axes) -> None:
        ticks = np.linspace(0, 1, 6)
        axis.plot([0, 1], [0, 1], **DASHED)
        axis.plot(bins.score, bins.share, color=BLUE, linewidth=0.9)
        for x, y, low, high, n in zip(
            bins.score, bins.share, bins.low, bins.high, bins.n, strict=True
        ):
            if math.isfinite(low):
                axis.plot([x, x], [low, high], color=BLUE, linewidth=1.4)
            (mark,) = axis.plot(x, y, "o", color=BLUE, clip_on=False)
            hover(mark, f"{counted(int(n), 'image')}: {x:.3f} predicted, {y:.3f} observed")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
        axis.set_ylabel(labels[1])
        axis.tick_params(labelbottom=False)
        strip = axis.inset_axes((0, -(STRIP + 0.12) / size[1], 1, STRIP / size[1]))
        strip.hist(score, bins=list(BINS), color=SKY)
        strip.set(xlim=(-0.02, 1.02), ylim=(0, tallest), xticks=ticks, yticks=[0, tallest])
        strip.set(xlabel=labels[0], ylabel="images")

    return Chart(title, f"{labels[1]} against {labels[0]}", draw, [note], (), size, STRIP + 0.12)


NAME_WIDTH, SLANTED_WIDTH = 18, 26  # characters of a class name in a line, and of a slanted one
STRONGEST = 0.5  # opacity of a whole row: text must stay readable on it, in light and in dark


def confusion_matrix(summary: Summary, *, level: str = IMAGE, rule: str = "") -> Figure:
    """Counts, and shares of each row as color, so that classes of any size compare.

    rule: how the predictions were decided, e.g. `predicted abnormal: above 0.391`. The share on
    the diagonal is the sensitivity. A row without cases stays grey.
    """
    size = len(summary.classes)
    slanted = size > 3
    cell = 1.1 if not slanted else 0.74 if size <= 10 else 0.48  # inches; room for "100 %"
    names = [textwrap.fill(n, NAME_WIDTH, max_lines=3, placeholder="…") for n in summary.classes]
    across = [shortened(n, SLANTED_WIDTH) for n in summary.classes] if slanted else names
    totals = [sum(row) for row in summary.confusion]
    down = [f"{name}  (n={total})" for name, total in zip(names, totals, strict=True)]

    def draw(axis: Axes) -> None:
        axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
        axis.grid(False)
        axis.spines[:].set_visible(False)
        for (row, column), count in np.ndenumerate(np.array(summary.confusion)):
            _draw_cell(axis, (row, column), int(count), totals[row], summary.classes)
        axis.set_xticks(range(size), across)
        if slanted:
            for label in axis.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(size), down)
        axis.set(xlabel="predicted", ylabel="true")

    longest = max(len(line) for name in down for line in name.split("\n"))
    lines = max(name.count("\n") for name in across)
    below = 0.055 * max(map(len, across)) if slanted else LINE_OF_NAME * lines
    of = {"image": "image", "study": "study"}.get(level, level)
    title = f"{summary.split} split, {counted(summary.n, of)}"
    label = f"Confusion matrix, {title}"
    chart = Chart(
        title,
        label,
        draw,
        [*filter(None, [rule]), "count, and share of the row as color"],
        (),
        (cell * size, cell * size),
        below,
        left=0.5 + longest / 12,
    )
    suffix = [] if level == IMAGE else [level]
    name = "_".join(["confusion_matrix", summary.split, *suffix])
    return Figure(name, "Confusion matrix", [chart])


def _confusion_of(evaluated: Evaluated, level: str) -> Figure:
    rule = decision_rule(evaluated, level)
    return confusion_matrix(evaluated.overall[level].summary, level=level, rule=rule)


LINE_OF_NAME = 0.16  # inches


def _draw_cell(
    axis: Axes, place: tuple[int, int], count: int, total: int, classes: Sequence[str]
) -> None:
    row, column = place
    share = count / total if total else 0.0
    look: Look = {"facecolor": BLUE, "alpha": STRONGEST * share}
    if not total:
        look = {"facecolor": EMPTY}
    cell = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, linewidth=0, **look)
    percent = f"{100 * share:.0f} %"
    hover(cell, f"true: {classes[row]}, predicted: {classes[column]}: {count} ({percent})")
    axis.add_patch(cell)
    if count == 0:
        axis.text(column, row, "0", ha="center", va="center", color=MUTED)
        return
    text: dict[str, Any] = {"ha": "center", "color": INK}
    axis.text(column, row - 0.02, f"{count}", va="bottom", weight="bold", **text)
    axis.text(column, row + 0.06, percent, va="top", **text)


LOSSES = {
    "train/loss": ("train", BLUE, "o"),
    "val/loss": ("validation", VERMILION, "s"),
}
AS_MINIMIZED = "train: as minimized, with augmentation and added terms, if any"
RATES = {
    "val/accuracy": ("accuracy", BLUE, "o"),
    "val/macro_sensitivity": ("macro sensitivity", VERMILION, "s"),
    "val/macro_specificity": ("macro specificity", GREEN, "^"),
    "val/macro_auc": ("macro AUC", PURPLE, "D"),
}


def learning_curves(table: pd.DataFrame, selected: int | None) -> Figure | None:
    """Loss and validation rates by epoch; None where nothing is to be drawn.

    table: of metrics.csv, with a column `epoch`. selected: the epoch whose checkpoint was kept.
    Columns that are missing or empty are left out.
    """
    columns = [name for name in (*LOSSES, *RATES) if name in table]
    values = table[["epoch", *columns]].replace([np.inf, -np.inf], np.nan)
    # A file that mixes training and validation rows has gaps: the last value of an epoch counts.
    values = values.groupby("epoch").last().dropna(axis=1, how="all")
    charts = [
        _learning_chart(
            title, values, {k: look for k, look in lines.items() if k in values}, top, selected
        )
        for title, lines, top in (("Loss", LOSSES, None), ("Validation", RATES, 1))
        if any(name in values for name in lines)
    ]
    return Figure("curves", "Learning curves", charts) if charts else None


def _learning_chart(
    title: str,
    values: pd.DataFrame,
    lines: Mapping[str, tuple[str, str, str]],
    top: int | None,
    selected: int | None,
) -> Chart:
    def draw(axis: Axes) -> None:
        for name, (label, color, marker) in lines.items():
            series = values[name].dropna()
            (line,) = axis.plot(series.index, series, color=color)
            hover(line, label)
            if len(values) <= MARKED:
                for epoch, value in zip(series.index.tolist(), series.tolist(), strict=True):
                    (mark,) = axis.plot(
                        epoch, value, marker, color=color, markeredgecolor=WHITE, clip_on=False
                    )
                    hover(mark, f"{label}, epoch {epoch:g}: {value:.3f}")
        epochs = values.index.to_numpy()
        room = max(0.5, 0.02 * float(np.ptp(epochs)))  # a single epoch has no width of its own
        axis.set_xlim(epochs.min() - room, epochs.max() + room)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_ylim(0, top)
        axis.set_xlabel("epoch")
        if selected is not None:
            axis.axvline(selected, zorder=1.5, **DASHED)

    keys = [
        Key({"color": color, "marker": marker}, label) for label, color, marker in lines.values()
    ]
    if selected is not None:
        keys.append(Key(DASHED, f"selected (epoch {selected})"))
    notes = [AS_MINIMIZED] if "train/loss" in lines else []
    return Chart(title, f"{title} by epoch", draw, notes, keys, (3.8, 2.7))


def save_learning_curves(
    metrics_csv: Path, folder: Path, *, selected: int | None = None
) -> list[Path]:
    """Draw the learning curves of a metrics.csv into curves.png and .svg; their paths.

    Raises:
        UserError: there is no epoch, or nothing to draw.
    """
    table = pd.read_csv(metrics_csv)
    if "epoch" not in table:
        columns = ", ".join(map(str, table.columns))
        raise UserError(f"{metrics_csv} has no column 'epoch', only: {columns}.")
    figure = learning_curves(table, selected)
    if figure is None:
        allowed = ", ".join((*LOSSES, *RATES))
        raise UserError(f"{metrics_csv} has no values to draw; allowed columns: {allowed}.")
    return save(figure, folder)


def save_figures(
    assessment: Assessment, predictions: Predictions, folder: Path, everything: bool = True
) -> list[Path]:
    """Draw all figures of an evaluation: confusion, ROC, precision-recall, reliability, forests.

    Of the test rows; where there are none, of the validation rows. With two classes they are
    calibrated and decided at the operating point. What cannot be drawn (a class without cases)
    says so in its place. Learning curves are left to `save_learning_curves`.

    Args:
        assessment: of the predictions.
        predictions: before calibration.
        folder: where to; made if missing.
        everything: False draws the one that takes no time: the confusion matrix of images.

    Returns:
        A PNG and an SVG file a figure: `<what>_<split>`, with `_<level>` after it for levels other
        than the image, and `forest_<column>_<split>` for groups.
    """
    evaluated = Evaluated(assessment, predictions)
    if not everything:
        return save(_confusion_of(evaluated, IMAGE), folder)
    figures = [
        *(_confusion_of(evaluated, level) for level in evaluated.overall),
        roc_figure(evaluated),
        precision_recall_figure(evaluated),
        calibration_charts(evaluated),
        *forest_plots.forests(evaluated, {p.level: p.decision for p in panels(evaluated)}),
    ]
    return [path for figure in figures for path in save(figure, folder)]
