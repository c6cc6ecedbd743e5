"""One look for every figure: sizes, and colors that the color-blind can tell apart.

What the panels of ROC and precision-recall figures show: one for each class, or each level.

The confusion matrix of one split: counts, and shares of each row as color.

Differences between runs, each with its interval, against the smallest one that matters.

Forest plots: a line a group (or class), a column a metric, each interval drawn and in digits.

Reliability diagrams: what was predicted against what came true, before and after tempering.

ROC and precision-recall figures: curves with bands, and the operating point with its own limits.

All text stands outside the axes, above a panel or below it, where no curve can reach it.

All figures that follow from one evaluation.

Learning curves of one run: loss and validation rates by epoch.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import OVERALL, to_level
from fracnet.evaluation.assessment import Assessment, Stratum
from fracnet.evaluation.decisions import calibrated
from fracnet.evaluation.predictions import classes_of, clusters_of, probabilities, targets
from fracnet.evaluation.summary import TOO_FEW, ClassSummary, Estimate, Summary
from fracnet.metrics import roc
from fracnet.metrics.calibration import (
    ESTIMATOR,
    Reliability,
    calibration_error,
    calibration_interval,
    outcome,
    reliability,
)
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import ALPHA
from fracnet.metrics.roc import Band
from fracnet.utils.errors import UserError
from fracnet.utils.text import limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design"; without its yellow, too faint for lines on white.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"

# Light to dark along one hue: reads the same in grey.
RAMP = ("#FFFFFF", SKY, BLUE, "#003A61")
INK, MUTED, GRID, EMPTY = "#222222", "#6B6B6B", "#E4E4E4", "#F1F1F1"
DPI = 150

# Characters of small type to an inch, and inches to a line of it.
LINE_SET, LINE = 13.5, 0.155

# Any: matplotlib's type for the keys differs from release to release.
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    # A dollar sign in a class name is a dollar sign, not mathematics.
    "text.parse_math": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # The same figure gives the same file: names inside an SVG are random otherwise.
    "svg.hashsalt": "fracnet",
}


@contextmanager
def canvas(width: float, height: float, *, placed: bool = False) -> Iterator["Figure"]:
    """Give an empty figure of this size in inches, in the house style; no pyplot state is touched.

    Its axes make room for one another, unless they are to be `placed` one by one.

    Draw and `save` inside the `with` block: some settings are read only when a figure is drawn.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), layout=None if placed else "constrained")
        FigureCanvasAgg(figure)
        yield figure


def heading(figure: "Figure", text: str) -> None:
    """A bold title over all panels, in the upper left corner."""
    place = {} if figure.get_layout_engine() else {"y": 1 - 0.1 / figure.get_figheight()}
    x = 0.12 / figure.get_figwidth()
    figure.suptitle(text, x=x, **place, ha="left", va="top", weight="bold", fontsize=11)


def footnote(figure: "Figure", text: str) -> None:
    """Sentences in small type below all panels, wrapped to the figure's width."""
    wrapped = textwrap.fill(text, int(figure.get_figwidth() * LINE_SET))
    place = {} if figure.get_layout_engine() else {"y": 0.0}
    x = 0.12 / figure.get_figwidth()
    figure.supxlabel(wrapped, x=x, **place, va="bottom", ha="left", fontsize=8.5, color=MUTED)


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write `name`.png (150 dots an inch) and `name`.svg into the folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    if figure.get_layout_engine() is not None:
        # Laid out here, once for both files; twice, since the first layout guesses some sizes.
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(0.12)
    for path in paths:
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=DPI, bbox_inches=box, metadata=undated)
    return paths


def ink_on(color: tuple[float, float, float]) -> str:
    """`INK` or white, whichever contrasts more with this color (RGB in 0..1), as WCAG counts."""
    from matplotlib.colors import to_rgb

    dark, ground = _luminance(to_rgb(INK)), _luminance(color)
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / (dark + 0.05) else INK


def _luminance(color: tuple[float, float, float]) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# More panels than this make no figure: the classes with the most cases are drawn.
MOST = 24


@dataclass(frozen=True)
class Panel:
    """One class against the rest. `case` bool[N], `score` float64[N], `clusters` of these rows.

    `summary` has its figures at the operating point, which `decision` puts into words; `chosen` is
    (sensitivity, specificity) on the validation rows that chose the point, None if none did.
    """

    title: str
    level: str
    case: np.ndarray
    score: np.ndarray
    clusters: Clusters
    summary: ClassSummary
    decision: str
    chosen: tuple[float, float] | None = None


def by_class(table: pd.DataFrame, summary: Summary) -> list[Panel]:
    """One panel a class, in their order; `summary` is of the same rows, decided by argmax."""
    target, prob, clusters = targets(table), probabilities(table), clusters_of(table)
    most = sorted(range(len(summary.classes)), key=lambda c: -summary.per_class[c].n)[:MOST]
    return [
        Panel(
            title=summary.classes[c],
            level="image",
            case=target == c,
            score=prob[:, c],
            clusters=clusters,
            summary=summary.per_class[c],
            decision="the most likely class",
        )
        for c in sorted(most)
    ]


def by_level(
    tables: Mapping[str, pd.DataFrame],
    strata: Mapping[str, Stratum],
    decisions: Mapping[str, Any] | None,
) -> list[Panel]:
    """One panel a level of a two-class task, of its second class; `strata` are of these tables."""
    operating_point = (decisions or {}).get("operating_point") or {}
    panels = []
    for level, table in tables.items():
        point = operating_point.get(level, {})
        threshold = strata[level].threshold
        words = f"threshold {0.5 if threshold is None else threshold:.3g}"
        chosen = point.get("sensitivity"), point.get("specificity")
        if decisions is not None and None not in chosen:
            words += f" ({in_words(decisions['rule'])})"
        panels.append(
            Panel(
                title=f"{level} level",
                level=level,
                case=targets(table) == 1,
                score=probabilities(table)[:, 1],
                clusters=clusters_of(table),
                summary=strata[level].summary.per_class[1],
                decision=words,
                chosen=None if None in chosen else chosen,
            )
        )
    return panels


def in_words(rule: Mapping[str, Any]) -> str:
    """How an operating point was chosen: `Youden`, `sensitivity 0.9`, `a miss costs 5`."""
    name, value = next(iter(rule.items()))
    return {"youden": "Youden", "cost_ratio": f"a miss costs {value:g}"}.get(
        name, f"{name} {value:g}"
    )


def told(estimate: Estimate, name: str = "") -> str:
    """`AUC 0.984 (0.944-0.996)`; the note where there is no interval or no value."""
    if np.isnan(estimate.value):
        return f"{name} n/a".strip()
    text = f"{name} {estimate.value:.3f}".strip()
    if estimate.low is not None and estimate.high is not None:
        return f"{text} ({limits(estimate.low, estimate.high)})"
    return f"{text} (no interval)"


def counted(n: int, level: str) -> str:
    """1 image, 83 images, 12 studies."""
    if n == 1:
        return f"1 {level}"
    return f"{n} studies" if level == "study" else f"{n} {level}s"


# Characters of a class name in a line, and of one shortened to a single slanted line.
NAME_WIDTH, SLANTED_WIDTH = 18, 26


def confusion_matrix(summary: Summary, folder: Path, *, level: str = "image") -> list[Path]:
    """Draw counts and row shares into confusion_matrix_<split>.png and .svg.

    At another `level` than the image its name follows that of the split.

    Color is the share of a row, so that classes of any size compare; the diagonal then is the
    sensitivity. The row of a class without cases stays grey.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.array(summary.confusion, dtype=np.int64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    names = [_lines(name, NAME_WIDTH, 3) for name in summary.classes]
    size = len(names)
    ramp = LinearSegmentedColormap.from_list("share", RAMP)
    colors = ramp.with_extremes(bad=EMPTY)
    cell = 0.74 if size > 3 else 1.1
    with canvas(cell * size + 2.6, cell * size + 1.7) as figure:
        axis = figure.subplots()
        image = axis.imshow(share, cmap=colors, vmin=0, vmax=1)
        # White gaps between the cells, without ticks of their own.
        axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axis.grid(False)
        axis.grid(which="minor", color="white", linewidth=2)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
        for row, column in np.ndindex(size, size):
            count, part = counts[row, column], share[row, column]
            ink = ink_on(colors(part)[:3])
            if count == 0:
                axis.text(column, row, "0", ha="center", va="center", color=MUTED, fontsize=9)
                continue
            axis.text(
                column, row - 0.02, f"{count}", ha="center", va="bottom", color=ink, weight="bold"
            )
            axis.text(
                column, row + 0.06, f"{part:.0%}", ha="center", va="top", color=ink, fontsize=8
            )
        if size <= 3:
            axis.set_xticks(range(size), names)
        else:
            axis.set_xticks(
                range(size), [_lines(name, SLANTED_WIDTH, 1) for name in summary.classes]
            )
            for label in axis.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(
            range(size), [f"{n}  (n={t})" for n, t in zip(names, total[:, 0], strict=True)]
        )
        axis.set_xlabel("predicted")
        axis.set_ylabel("truth")
        axis.set_title(f"{summary.split} split, {counted(summary.n, level)}")
        bar = figure.colorbar(image, ax=axis, shrink=0.6, aspect=18, format="{x:.0%}")
        bar.set_label("share of the row")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        name = "_".join(["confusion_matrix", summary.split] + [level] * (level != "image"))
        return save(figure, folder, name)


def _lines(name: str, width: int, most: int) -> str:
    return textwrap.fill(name, width, max_lines=most, placeholder="…")


# A stretch of the axis with nothing on it has no width.
LEAST_REACH = 0.01
LABEL_WIDTH = 34


@dataclass(frozen=True)
class DifferenceRow:
    """One comparison: `value` is the first run's metric minus the reference's.

    `low` and `high` are the limits of its 95 % interval, None with a `note` where there is none.
    `p` is the p-value as reported, None where there is no test; the line is filled only where it,
    too, is below 0.05.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    note: str = ""


def differences(
    rows: Sequence[DifferenceRow],
    folder: Path,
    *,
    metric: str,
    reference: str = "",
    margin: float | None = None,
    higher_is_better: bool = True,
    note: str = "",
    p_name: str = "p",
    name: str = "differences",
) -> list[Path]:
    """Draw one line a comparison into `name`.png and .svg, in the order given; their paths.

    Args:
        rows: what is compared; at least one.
        folder: where to; made if missing.
        metric: what was measured, in words: `macro AUC`.
        reference: of all rows, where they share one; named on the axis.
        margin: the smallest difference that matters, a positive number; shaded from -margin to
            margin. None shades nothing.
        higher_is_better: False for a loss or an error: then the sides are named the other way.
        note: a sentence under the figure: how intervals were made, how many patients.
        p_name: what `p` is, `p (Holm)` where it is corrected.
        name: of the files.
    """
    from matplotlib.ticker import MaxNLocator

    assert rows, "nothing to compare"
    assert margin is None or margin > 0, margin
    tested = f" and {p_name} < {ALPHA:g}" if any(row.p is not None for row in rows) else ""
    key = f"Bars: 95 % intervals; filled: 0 lies outside{tested}."
    sides = ("worse", "better") if higher_is_better else ("better", "worse")
    low, high = _reach(rows, margin or 0.0)
    labels = [textwrap.fill(row.label, LABEL_WIDTH, max_lines=2, placeholder="…") for row in rows]
    with canvas(8.2, 1.75 + 0.4 * len(rows)) as figure:
        axis = figure.subplots()
        axis.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if margin is not None:
            axis.axvspan(-margin, margin, color=EMPTY, zorder=0.5)
            key += f" Grey: within ±{margin:g}."
        axis.axvline(0, color=MUTED, linewidth=1)
        for y, row in enumerate(rows):
            _line(axis, y, row, higher_is_better, p_name)
        axis.set_yticks(range(len(rows)), labels)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        against = f" from {textwrap.shorten(reference, 40, placeholder='…')}" if reference else ""
        axis.set_xlabel(f"difference in {metric}{against}")
        look: dict[str, Any] = {
            "transform": axis.transAxes,
            "fontsize": 8.5,
            "color": MUTED,
            "va": "bottom",
        }
        axis.text(0, 1.01, f"← {sides[0]}", ha="left", **look)
        axis.text(1, 1.01, f"{sides[1]} →", ha="right", **look)
        heading(figure, f"Differences in {metric}")
        footnote(figure, f"{key} {note}".strip())
        return save(figure, folder, name)


def _line(axis: "Axes", y: int, row: DifferenceRow, higher_is_better: bool, p_name: str) -> None:
    """Point, bar and digits: filled where interval and test show a difference; else hollow."""
    low = np.nan if row.low is None else row.low
    high = np.nan if row.high is None else row.high
    known = bool(np.isfinite([low, high]).all())
    away = known and (low > 0 or high < 0) and (row.p is None or row.p < ALPHA)
    good = (row.value > 0) == higher_is_better
    color = MUTED if not away else BLUE if good else VERMILION
    axis.plot([low, high], [y, y], color=color, zorder=2.5)
    look: dict[str, Any] = {
        "marker": "o" if good or not away else "s",
        "markersize": 6.5,
        "zorder": 3,
    }
    axis.plot(row.value, y, color=color, markerfacecolor=color if away else "white", **look)
    value = "n/a" if np.isnan(row.value) else f"{row.value:+.3f}"
    words = f"{value} ({low:+.3f} to {high:+.3f})" if known else f"{value} (no interval)"
    if row.p is not None:
        words += f"  {p_name} < 0.001" if row.p < 0.001 else f"  {p_name} = {row.p:.3f}"
    if row.note:
        words += "\n" + textwrap.fill(row.note, LABEL_WIDTH + 6, max_lines=2, placeholder="…")
    place: dict[str, Any] = {
        "transform": axis.get_yaxis_transform(),
        "va": "center",
        "fontsize": 8.5,
    }
    axis.text(1.03, y, words, **place)


def _reach(rows: Sequence[DifferenceRow], margin: float) -> tuple[float, float]:
    """Ends of the axis: all there is, and 0 in the middle, so that no side looks longer."""
    ends = [abs(v) for row in rows for v in (row.low, row.value, row.high) if v is not None]
    reach = 1.08 * max([margin * 1.5, LEAST_REACH, *(v for v in ends if not np.isnan(v))])
    return -reach, reach


FOREST_NAME_WIDTH = 28

# Inches: of a column's axes, and of the digits to its right.
SIDE, DIGITS = 1.7, 1.65
MACRO = {
    "accuracy": "accuracy",
    "macro_sensitivity": "macro sensitivity",
    "macro_auc": "macro AUC",
}
ONE = {"sensitivity": "sensitivity", "specificity": "specificity", "auc": "AUC"}


@dataclass(frozen=True)
class Line:
    """A line of a forest plot; the first one is what the others are seen against."""

    name: str
    count: str
    estimates: Mapping[str, Estimate]


def group_lines(overall: Summary, groups: Sequence[tuple[str, Summary]]) -> list[Line]:
    """All rows first, then each group: of the second class if there are two, else macro."""
    told_of = [("all", overall), *groups]
    lines = []
    for name, summary in told_of:
        if len(summary.classes) == 2:
            positive = summary.per_class[1]
            estimates = {title: getattr(positive, key) for key, title in ONE.items()}
            count = f"{positive.n}/{summary.n}"
        else:
            estimates = {title: summary.metrics[key] for key, title in MACRO.items()}
            count = f"{summary.n}"
        lines.append(Line(name, count, estimates))
    return lines


def class_lines(summary: Summary) -> list[Line]:
    """A line a class against the rest, below the macro averages."""
    macro = {title: summary.metrics[f"macro_{key}"] for key, title in ONE.items()}
    return [
        Line("macro average", f"{summary.n}", macro),
        *(
            Line(one.name, f"{one.n}", {title: getattr(one, key) for key, title in ONE.items()})
            for one in summary.per_class
        ),
    ]


def forest_figure(
    lines: Sequence[Line], folder: Path, name: str, overall: Summary, level: str, decision: str
) -> list[Path]:
    """Draw the lines, in their order, into `name`.png and .svg; their paths.

    `overall` is the summary of all rows, at this `level`, and `decision` says what decided.
    """
    titles = list(lines[0].estimates)
    low = _lowest(lines)
    about = f": {overall.classes[1]}" if len(overall.classes) == 2 else ""
    few = any(_few(estimate) for line in lines for estimate in line.estimates.values())
    note = f"95 % intervals by {overall.unit}. Dashed: {lines[0].name}."
    note += f" Operating point: {decision}."
    note += f" Hollow: {TOO_FEW} cases (or others)." if few else ""
    names = [textwrap.shorten(line.name, FOREST_NAME_WIDTH, placeholder="…") for line in lines]
    names = [f"{name}  ({line.count})" for name, line in zip(names, lines, strict=True)]
    left = 0.25 + max(map(len, names)) / 11
    width = left + (SIDE + DIGITS) * len(titles)
    foot = 0.35 + LINE * (1 + len(note) // int(LINE_SET * width))
    tall = 0.27 * len(lines)
    height = foot + tall + 0.7
    with canvas(width, height, placed=True) as figure:
        for place, title in enumerate(titles):
            x = left + (SIDE + DIGITS) * place
            axis = figure.add_axes((x / width, foot / height, SIDE / width, tall / height))
            axis.set_title(title)
            axis.set(xlim=(low, 1.0), ylim=(len(lines) - 0.5, -0.5), yticks=range(len(lines)))
            axis.set_yticklabels(names if place == 0 else [])
            axis.grid(axis="y", visible=False)
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
            _column(axis, [line.estimates[title] for line in lines], lines[0].estimates[title])
            if place == 0:
                axis.get_yticklabels()[0].set_fontweight("bold")
        heading(figure, f"{overall.split} split, {level} level{about}")
        footnote(figure, note)
        return save(figure, folder, name)


def _few(estimate: Estimate) -> bool:
    return TOO_FEW in estimate.note.split("; ")


def _column(axis: "Axes", estimates: Sequence[Estimate], overall: Estimate) -> None:
    """One metric: points with bars, and the figures to their right."""
    if not np.isnan(overall.value):
        axis.axvline(overall.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for y, estimate in enumerate(estimates):
        few = _few(estimate)
        if estimate.low is not None and estimate.high is not None:
            axis.plot([estimate.low, estimate.high], [y, y], color=BLUE, zorder=2.5)
        fill = "white" if few else BLUE
        axis.plot(
            estimate.value,
            y,
            color=BLUE,
            marker="D" if y == 0 else "o",
            markersize=5.5,
            markerfacecolor=fill,
            clip_on=False,
            zorder=3,
        )
        axis.text(
            1.06,
            y,
            told(estimate),
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=MUTED if few else INK,
            weight="bold" if y == 0 else "normal",
        )


def _lowest(lines: Sequence[Line]) -> float:
    """Where all axes begin: a round tenth below everything drawn."""
    ends: list[Any] = [0.9]
    for line in lines:
        for estimate in line.estimates.values():
            ends += [v for v in (estimate.low, estimate.value) if v is not None and v == v]
    return float(max(0.0, np.floor(min(ends) * 10 - 1e-9) / 10))


# Of equal width: the strip below a diagram shows where the probabilities lie.
STRIP = np.linspace(0, 1, 26)

# Inches: of a diagram, left of the first, and between two.
RELIABILITY_SIDE, LEFT, GAP = 3.1, 0.75, 0.4


def reliability_figure(
    table: pd.DataFrame, temperature: float | None, folder: Path, name: str
) -> list[Path]:
    """Draw the diagram into `name`.png and .svg; their paths.

    Args:
        table: predictions of one split as they are.
        temperature: by which logits are divided for a second diagram; with None or 1 there is none.
        folder: where to.
        name: of the files.
    """
    shown = {"probabilities as they are": probabilities(table)}
    if temperature is not None and temperature != 1:
        shown = {
            "before calibration": probabilities(table),
            f"after (temperature {temperature:.3g})": probabilities(calibrated(table, temperature)),
        }
    target, clusters = targets(table), clusters_of(table)
    classes = classes_of(table)
    binary = len(classes) == 2
    width = LEFT + (RELIABILITY_SIDE + GAP) * len(shown)
    drawn = [reliability(*outcome(target, values), clusters) for values in shown.values()]
    note = _note(drawn, len(table), clusters)
    foot = 0.65 + LINE * (1 + len(note) / (LINE_SET * width))
    height = foot + 0.75 + 0.22 + RELIABILITY_SIDE + 0.8
    with canvas(width, height, placed=True) as figure:
        pairs = []
        for column, (title, values) in enumerate(shown.items()):
            x = (LEFT + (RELIABILITY_SIDE + GAP) * column) / width
            above = figure.add_axes(
                (x, (foot + 0.97) / height, RELIABILITY_SIDE / width, RELIABILITY_SIDE / height)
            )
            below = figure.add_axes((x, foot / height, RELIABILITY_SIDE / width, 0.75 / height))
            score, _ = outcome(target, values)
            _diagram(above, below, score, drawn[column])
            above.set_title(title, pad=21)
            line: dict[str, Any] = {"transform": above.transAxes, "fontsize": 8.5}
            above.text(0, 1.02, _error(target, values, clusters), **line)
            for axis in (above, below):
                axis.tick_params(labelleft=column == 0, labelbottom=axis is below)
            pairs.append((above, below))
        most = max(below.get_ylim()[1] for _, below in pairs)
        positive = textwrap.shorten(classes[1], 24, placeholder="…")
        pairs[0][0].set_ylabel(f"share that is {positive}" if binary else "share that is right")
        pairs[0][1].set_ylabel("images")
        about = f"predicted probability of {positive}"
        said = about if binary else "probability of the class named"
        for _, below in pairs:
            below.set_ylim(0, most)
            below.set_xlabel(said)
        heading(figure, f"Reliability: {table['split'].iloc[0]} split")
        footnote(figure, note)
        return save(figure, folder, name)


def _error(target: np.ndarray, values: np.ndarray, clusters: Clusters) -> str:
    """The figure of the tables. It is of the class named, also where another one is drawn."""
    error = calibration_error(target, values, clusters)
    if np.isnan(error):
        return "top-label calibration error n/a"
    found = calibration_interval(target, values, clusters)
    interval = "no interval"
    if found.low is not None and found.high is not None:
        interval = limits(found.low, found.high)
    return f"top-label calibration error {error:.3f} ({interval})"


def _note(drawn: Sequence[Reliability], n: int, clusters: Clusters) -> str:
    sizes = np.concatenate([bins.n for bins in drawn])
    few, many = int(sizes.min()), int(sizes.max())
    held = counted(many, "image") if few == many else f"{few} to {many} images"
    return (
        f"Points: bins of {held}, 95 % intervals by {clusters.unit}. Below: where the "
        f"probabilities of {counted(n, 'image')} lie. Calibration error: {ESTIMATOR}."
    )


def _diagram(above: "Axes", below: "Axes", score: np.ndarray, bins: Reliability) -> None:
    """The diagram, and the strip that shows where the scores lie."""
    from matplotlib.ticker import MaxNLocator

    above.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
    known = ~np.isnan(bins.low)
    above.vlines(bins.score[known], bins.low[known], bins.high[known], BLUE, linewidth=1.4)
    above.plot(bins.score, bins.share, color=BLUE, marker="o", linewidth=0.9, clip_on=False)
    ticks = np.linspace(0, 1, 6)
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
    below.set(xlim=(-0.02, 1.02), xticks=ticks)
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    below.hist(score, bins=list(STRIP), color=SKY)


# Characters of a title to an inch.
TITLE_SET = 9.5

# Inches left of the first panel, and between panels.
ROC_LEFT, ROC_GAP = 0.7, 0.4

BAND: dict[str, Any] = {"color": BLUE, "alpha": 0.16, "linewidth": 0}

CHANCE: dict[str, Any] = {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.1}

POINT: dict[str, Any] = {"color": VERMILION, "marker": "o", "markersize": 5.5}

HOLLOW: dict[str, Any] = {**POINT, "markerfacecolor": "white", "markersize": 6.5, "linestyle": ""}


@dataclass(frozen=True)
class _Kind:
    """What makes one figure differ from the other."""

    x: str
    y: str
    no_skill: str
    area: str
    band: Callable[..., Band]
    draw: "Callable[[Axes, Panel, Band], None]"


def roc_figure(
    panels: Sequence[Panel], folder: Path, name: str, title: str, resamples: int
) -> list[Path]:
    """Draw sensitivity against the false positive rate into `name`.png and .svg; their paths.

    `panels` is not empty. One whose class has no cases, or nothing else, says so. Bands rest on
    `resamples`.
    """
    kind = _Kind("1 - specificity", "sensitivity", "no skill", "AUC", roc.roc_band, _roc)
    return _figure(panels, folder, name, title, kind, resamples)


def precision_recall_figure(
    panels: Sequence[Panel], folder: Path, name: str, title: str, resamples: int
) -> list[Path]:
    """Draw precision against recall into `name`.png and .svg; else as `roc_figure`."""
    no_skill = "no skill: the share of cases"
    band, draw = roc.precision_recall_band, _precision_recall
    kind = _Kind("recall (sensitivity)", "precision", no_skill, "AUC-PR", band, draw)
    return _figure(panels, folder, name, title, kind, resamples)


def _figure(
    panels: Sequence[Panel],
    folder: Path,
    name: str,
    title_of_all: str,
    kind: _Kind,
    resamples: int,
) -> list[Path]:
    n = len(panels)
    columns = n if n <= 3 else 2 if n == 4 else 3 if n in (5, 6, 9) else 4
    rows = -(-n // columns)
    side = 3.6 if n == 1 else 3.1 if n <= 3 else 2.25
    drawn = [
        kind.band(panel.case, panel.score, panel.clusters, resamples=resamples) for panel in panels
    ]
    heads = [_head(panel, kind, band, side) for panel, band in zip(panels, drawn, strict=True)]
    details = [_details(panel, kind) if n <= 3 else [] for panel in panels]
    # All in inches: what stands above and below each panel, and at the foot of the figure.
    above = 0.2 + LINE * max(len(title) * 1.3 + len(lines) for title, lines in heads)
    below = 0.55 if n <= 3 else 0.1
    below += LINE * 1.25 * max(map(len, details))
    keys, across = _keys(panels, drawn, kind, (side + ROC_GAP) * columns)
    foot = 0.1 + (0 if n <= 3 else 0.35) + 0.21 * -(-len(keys) // across)
    width, height = (
        ROC_LEFT + (side + ROC_GAP) * columns,
        0.3 + (above + side + below) * rows + foot,
    )
    with canvas(width, height, placed=True) as figure:
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            x, y = (
                ROC_LEFT + (side + ROC_GAP) * column,
                height - 0.3 - (above + side + below) * (row + 1),
            )
            axis = figure.add_axes((x / width, (y + below) / height, side / width, side / height))
            _axes(axis, kind, left=column == 0, bottom=place + columns >= n)
            title, lines = heads[place]
            axis.set_title("\n".join(title), pad=7 + 72 * LINE * len(lines))
            look: dict[str, Any] = {"fontsize": 8.5, "va": "bottom", "linespacing": 1.25}
            axis.text(0, 1.02, "\n".join(lines), transform=axis.transAxes, **look)
            why = roc.drawable(panel.case)
            if why:
                axis.set_facecolor(EMPTY)
                axis.grid(False)
                axis.text(0.5, 0.5, f"no curve: {why}", ha="center", color=MUTED)
            else:
                kind.draw(axis, panel, drawn[place])
                _below(axis, details[place], side)
        heading(figure, title_of_all)
        if keys:
            corner = (0.0, 0.05 / height)
            figure.legend(handles=keys, loc="lower left", bbox_to_anchor=corner, ncols=across)
        return save(figure, folder, name)


def _axes(axis: "Axes", kind: _Kind, *, left: bool, bottom: bool) -> None:
    ticks = np.linspace(0, 1, 6)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
    axis.tick_params(labelleft=left, labelbottom=bottom)
    axis.set_xlabel(kind.x if bottom else "")
    axis.set_ylabel(kind.y if left else "")


def _roc(axis: "Axes", panel: Panel, band: Band) -> None:
    curve = roc.roc(panel.case, panel.score)
    axis.plot([0, 1], [0, 1], **CHANCE)
    axis.fill_between(band.x, band.low, band.high, **BAND)
    axis.plot(curve.x, curve.y, color=BLUE)
    rates = panel.summary
    _cross(axis, _turned(rates.specificity), rates.sensitivity)
    if panel.chosen is not None:
        axis.plot(1 - panel.chosen[1], panel.chosen[0], zorder=3.5, **HOLLOW)


def _precision_recall(axis: "Axes", panel: Panel, band: Band) -> None:
    curve = roc.precision_recall(panel.case, panel.score)
    axis.axhline(float(panel.case.mean()), **CHANCE)
    axis.fill_between(band.x, band.low, band.high, **BAND)
    recall, precision = roc.steps(curve)
    axis.step(recall, precision, where="pre", color=BLUE)
    _cross(axis, panel.summary.sensitivity, panel.summary.precision)


def _cross(axis: "Axes", x: Estimate, y: Estimate) -> None:
    """The operating point, with a bar of each coordinate's interval."""
    line: dict[str, Any] = {"color": VERMILION, "linewidth": 1.2, "zorder": 3.8}
    if x.low is not None and x.high is not None:
        axis.plot([x.low, x.high], [y.value, y.value], **line)
    if y.low is not None and y.high is not None:
        axis.plot([x.value, x.value], [y.low, y.high], **line)
    axis.plot(x.value, y.value, zorder=4, markeredgecolor="white", clip_on=False, **POINT)


def _turned(rate: Estimate) -> Estimate:
    """One minus a rate."""
    low = None if rate.high is None else 1 - rate.high
    high = None if rate.low is None else 1 - rate.low
    return Estimate(1 - rate.value, low, high, rate.method, rate.n, rate.note)


def _head(panel: Panel, kind: _Kind, band: Band, side: float) -> tuple[list[str], list[str]]:
    """Lines of the title; and below it area under the curve, cases, and why there is no band."""
    estimate = panel.summary.auc if kind.area == "AUC" else panel.summary.average_precision
    few = f" ({TOO_FEW})" if TOO_FEW in estimate.note.split("; ") else ""
    n = int(panel.case.sum())
    cases = f"{n} {'case' if n == 1 else 'cases'} in {counted(len(panel.case), panel.level)}{few}"
    lines = [told(estimate, kind.area), cases]
    if band.note and not roc.drawable(panel.case):
        lines += textwrap.wrap(f"no band: {band.note}", int(LINE_SET * side))
    title = textwrap.wrap(panel.title, int(TITLE_SET * side), max_lines=2, placeholder="…")
    return title, lines


def _details(panel: Panel, kind: _Kind) -> list[tuple[Any, str]]:
    """What the operating point is and gives, a line each with its key."""
    from matplotlib.lines import Line2D

    rates = panel.summary
    nothing = Line2D([], [], linestyle="")
    named = ("sensitivity", "specificity", "precision")
    lines: list[tuple[Any, str]] = [
        (Line2D([], [], linestyle="", markeredgecolor="white", **POINT), panel.decision),
        *((nothing, told(getattr(rates, name), name)) for name in named),
    ]
    if panel.chosen is not None and kind.area == "AUC":
        sensitivity, specificity = panel.chosen
        words = f"on validation, where chosen: {sensitivity:.3f}, {specificity:.3f}"
        lines.append((Line2D([], [], **HOLLOW), words))
    return lines


def _below(axis: "Axes", details: Sequence[tuple[Any, str]], side: float) -> None:
    if details:
        axis.legend(
            *zip(*details, strict=True),
            loc="upper left",
            bbox_to_anchor=(-0.04, -0.42 / side),
            fontsize=8.5,
            handlelength=1.0,
            labelspacing=0.25,
        )


def _keys(
    panels: Sequence[Panel], bands: Sequence[Band], kind: _Kind, width: float
) -> tuple[list[Any], int]:
    """The entries of the figure's legend, and how many fit a line of this width in inches."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if all(roc.drawable(panel.case) for panel in panels):
        return [], 1
    said = "operating point" if len(panels) <= 3 else f"operating point ({panels[0].decision})"
    keys: list[Any] = [
        Line2D([], [], label=f"{said}, 95 % intervals", linewidth=1.2, **POINT),
        Line2D([], [], label=kind.no_skill, **CHANCE),
    ]
    methods = [band.method for band in bands if not band.note]
    if methods:
        keys.insert(0, Patch(label=f"95 % band ({methods[0]})", **BAND))
    longest = max(len(str(key.get_label())) for key in keys)
    return keys, max(1, int(width / (longest / 12.5 + 0.7)))


IMAGE = "image"


def draw_confusion(assessment: Assessment, folder: Path) -> list[Path]:
    """The one of `draw_all`'s figures that takes no time: the confusion matrix of images."""
    overall, _ = _overall(assessment)
    return confusion_matrix(overall[IMAGE].summary, folder)


def draw_all(assessment: Assessment, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what an evaluation shows: confusion, ROC, precision-recall, reliability, forest plots.

    Of the test rows, as the strata have them: calibrated and, with two classes, at the operating
    point. Where there are no test rows, of the validation rows as they are. Learning curves are
    not among them: `curves` draws those from metrics.csv.

    Args:
        assessment: what `assess` made of the table.
        table: the predictions as they are, before calibration.
        folder: where to; made if missing.

    Returns:
        The files written, a PNG and an SVG a figure: `<what>_<split>`, with `_<level>` after it
        for levels other than the image, and `forest_<column>_<split>` for groups. What cannot be
        drawn (a class without cases) says so in its place in the figure.
    """
    overall, decisions = _overall(assessment)
    image = overall[IMAGE].summary
    rows = table[table["split"] == image.split].sort_values("path")  # sums depend on the order
    warm = rows if decisions is None else calibrated(rows, float(decisions["temperature"]))
    paths: list[Path] = []
    for level, stratum in overall.items():
        paths += confusion_matrix(stratum.summary, folder, level=level)
    if len(image.classes) == 2:
        tables = {level: to_level(warm, level, assessment.options.views) for level in overall}
        panels, about = by_level(tables, overall, decisions), image.classes[1]
    else:
        panels, about = by_class(warm, image), "each class against the rest"
    about, drawn = f"{about}, {image.split} split", assessment.options.resamples
    name, title = f"roc_{image.split}", f"ROC: {about}"
    paths += roc_figure(panels, folder, name, title, drawn)
    name, title = f"precision_recall_{image.split}", f"Precision and recall: {about}"
    paths += precision_recall_figure(panels, folder, name, title, drawn)
    temperature = None if decisions is None else float(decisions["temperature"])
    paths += reliability_figure(rows, temperature, folder, f"reliability_{image.split}")
    rule = {panel.level: panel.decision for panel in panels}
    if len(image.classes) > 2:
        name, lines = f"forest_class_{image.split}", class_lines(image)
        paths += forest_figure(lines, folder, name, image, IMAGE, rule[IMAGE])
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in assessment.strata:
        if stratum.by != OVERALL:
            groups.setdefault((stratum.level, stratum.by), []).append(stratum)
    for (level, by), members in groups.items():
        whole = overall[level].summary
        lines = group_lines(whole, [(member.value, member.summary) for member in members])
        column = re.sub(r"[^\w.-]+", "-", by)  # of a table, so any text
        name = "_".join(["forest", column, whole.split] + [level] * (level != IMAGE))
        decided = rule.get(level, rule[IMAGE])
        paths += forest_figure(lines, folder, name, whole, level, decided)
    return paths


def _overall(assessment: Assessment) -> tuple[dict[str, Stratum], Mapping[str, Any] | None]:
    """Level -> all rows of the test, and the decisions; else of validation, nothing decided."""
    strata = [stratum for stratum in assessment.strata if stratum.by == OVERALL]
    if strata:
        return {stratum.level: stratum for stratum in strata}, assessment.decisions
    assert assessment.val is not None, "neither test nor validation rows"
    return {IMAGE: Stratum(IMAGE, OVERALL, OVERALL, None, None, assessment.val)}, None


LOSSES = {
    "train/loss": ("train", BLUE, "o"),
    "val/loss": ("validation", VERMILION, "s"),
}
RATES = {
    "val/accuracy": ("accuracy", BLUE, "o"),
    "val/macro_sensitivity": ("macro sensitivity", VERMILION, "s"),
    "val/macro_specificity": ("macro specificity", GREEN, "^"),
    "val/macro_auc": ("macro AUC", PURPLE, "D"),
}

# With more epochs than this, markers run into one another.
MARKED = 40


def curves(metrics_csv: Path, folder: Path, *, selected: int | None = None) -> list[Path]:
    """Draw loss and validation rates by epoch from a run's metrics.csv, into curves.png and .svg.

    `selected` is the epoch whose checkpoint was kept. Columns that are missing or empty are left
    out; `UserError` if there is no epoch, or nothing to draw.
    """
    table = pd.read_csv(metrics_csv)
    if "epoch" not in table:
        columns = ", ".join(map(str, table.columns))
        raise UserError(f"{metrics_csv} has no column 'epoch', only: {columns}.")
    # A file that mixes training and validation rows has gaps: the last value of an epoch counts.
    wanted = [name for name in (*LOSSES, *RATES) if name in table]
    values = table[["epoch", *wanted]].replace([np.inf, -np.inf], np.nan)
    values = values.groupby("epoch").last().dropna(axis=1, how="all")
    panels = [
        (title, {name: look for name, look in lines.items() if name in values})
        for title, lines in (("Loss", LOSSES), ("Validation", RATES))
    ]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        allowed = ", ".join((*LOSSES, *RATES))
        raise UserError(f"{metrics_csv} has no values to draw; wanted any column of: {allowed}.")
    with canvas(4.6 * len(panels), 4.0) as figure:
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        for axis, (title, lines) in zip(axes, panels, strict=True):
            for name, (label, color, marker) in lines.items():
                shown = values[name].dropna()
                mark = marker if len(values) <= MARKED else None
                axis.plot(shown.index, shown, color=color, marker=mark, label=label, clip_on=False)
            axis.set_title(title)
            _epochs(axis, values.index.to_numpy(), selected)
            axis.set_ylim(0, None if title == "Loss" else 1)
            # Below the axes, where no curve can run through it.
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return save(figure, folder, "curves")


def _epochs(axis: "Axes", epochs: np.ndarray, selected: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    # One epoch alone would give an axis of no width.
    reach = max(0.5, 0.02 * float(np.ptp(epochs)))
    axis.set_xlim(epochs.min() - reach, epochs.max() + reach)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if selected is not None:
        label = f"selected (epoch {selected})"
        axis.axvline(selected, label=label, color=MUTED, linewidth=1.2, linestyle="--", zorder=1.5)
