"""Intervals under one another: metrics by group or class, and differences between runs."""

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import Stratum
from fracnet.evaluation.comparison import Comparison, Difference
from fracnet.evaluation.summary import TOO_FEW, Estimate, Summary
from fracnet.metrics.hypothesis_tests import ALPHA
from fracnet.report.comparison_page import describe_test_rows, display_name, p_equals
from fracnet.report.plots import BLUE, EMPTY, INK, MUTED, VERMILION, WHITE, Chart, Figure
from fracnet.report.run_content import IMAGE, Evaluated
from fracnet.report.tables import EstimateCell, estimate_text

NAME_WIDTH, LABEL_WIDTH = 28, 34  # characters
COLUMN, DIGITS = 1.95, 1.75  # inches of a column's axes, and of the digits to its right
ROW, DIFFERENCE_ROW = 0.3, 0.4
SHORTEST_AXIS = 0.01

MACRO = {
    "accuracy": "accuracy",
    "macro_sensitivity": "macro sensitivity",
    "macro_auc": "macro AUC",
}
ONE_CLASS = {"sensitivity": "sensitivity", "specificity": "specificity", "auc": "AUC"}


@dataclass(frozen=True)
class Line:
    """A line of a forest plot; the others are compared with the first one."""

    name: str
    count: str
    estimates: Mapping[str, Estimate]


def forests(evaluated: Evaluated, decisions: Mapping[str, str]) -> Iterator[Figure]:
    """A forest plot of the classes, where there are more than two, and of each column of groups.

    decisions: describes the operating point of each level.
    """
    shown = evaluated.summary
    if not evaluated.binary:
        yield _forest(f"forest_class_{shown.split}", class_lines(shown), shown, decisions[IMAGE])
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in evaluated.assessment.strata:
        if stratum.by != OVERALL:
            groups.setdefault((stratum.level, stratum.by), []).append(stratum)
    for (level, by), members in groups.items():
        whole = evaluated.overall[level].summary
        column = re.sub(r"[^\w.-]+", "-", by)  # of a table, so any text
        suffix = [] if level == IMAGE else [level]
        name = "_".join(["forest", column, whole.split, *suffix])
        lines = group_lines(whole, [(member.value, member.summary) for member in members])
        yield _forest(name, lines, whole, decisions.get(level, decisions[IMAGE]), level)


def group_lines(overall: Summary, groups: Sequence[tuple[str, Summary]]) -> list[Line]:
    """All rows first, then each group: of the second class if there are two, else macro."""
    lines = []
    for name, summary in [("all", overall), *groups]:
        if len(summary.classes) == 2:
            positive = summary.per_class[1]
            estimates = {title: getattr(positive, key) for key, title in ONE_CLASS.items()}
            lines.append(Line(name, f"{positive.n}/{summary.n}", estimates))
        else:
            estimates = {title: summary.metrics[key] for key, title in MACRO.items()}
            lines.append(Line(name, f"{summary.n}", estimates))
    return lines


def class_lines(summary: Summary) -> list[Line]:
    """One line per class, against the rest, below the macro averages."""
    macro = {title: summary.metrics[f"macro_{key}"] for key, title in ONE_CLASS.items()}
    classes = [
        Line(c.name, f"{c.n}", {title: getattr(c, key) for key, title in ONE_CLASS.items()})
        for c in summary.per_class
    ]
    return [Line("macro average", f"{summary.n}", macro), *classes]


def _forest(
    name: str, lines: Sequence[Line], overall: Summary, decision: str, level: str = IMAGE
) -> Figure:
    few = any(_few(estimate) for line in lines for estimate in line.estimates.values())
    note = f"95 % intervals by {overall.unit}. Dashed: {lines[0].name}."
    note += f" Operating point: {decision}."
    note += f" Hollow: {TOO_FEW} cases (or others)." if few else ""
    about = f": {overall.classes[1]}" if len(overall.classes) == 2 else ""
    titles = list(lines[0].estimates)
    charts = [_column(title, lines, first=title == titles[0]) for title in titles]
    return Figure(name, f"{overall.split} split, {level} level{about}", charts, (), note)


def _column(title: str, lines: Sequence[Line], *, first: bool) -> Chart:
    """One metric: points with bars, and the digits to their right."""
    names = [textwrap.shorten(line.name, NAME_WIDTH, placeholder="…") for line in lines]
    names = [f"{name}  ({line.count})" for name, line in zip(names, lines, strict=True)]
    low = _lowest(lines)

    def draw(axis: Axes) -> None:
        axis.set(xlim=(low, 1.0), ylim=(len(lines) - 0.5, -0.5))
        _rows_only(axis, names if first else [""] * len(lines))
        if first:
            axis.get_yticklabels()[0].set_fontweight("bold")
        overall = lines[0].estimates[title]
        if not np.isnan(overall.value):
            axis.axvline(overall.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for y, line in enumerate(lines):
            _draw_estimate(axis, y, line.estimates[title])

    size = (COLUMN, ROW * len(lines))
    left = 0.25 + max(map(len, names)) / 11.5
    return Chart(
        title, f"{title} of {len(lines)} groups", draw, (), (), size, gap=DIGITS, left=left
    )


def _draw_estimate(axis: Axes, y: int, estimate: Estimate) -> None:
    few = _few(estimate)
    _draw_row(axis, y, estimate, BLUE, WHITE if few else BLUE, marker="o" if y else "D")
    look: dict[str, Any] = {"color": MUTED if few else INK, "weight": "normal" if y else "bold"}
    _digits(axis, 1.06, y, estimate_text(estimate), **look)


def _draw_row(
    axis: Axes, y: int, of: Estimate | Difference, color: str, fill: str, **mark: Any
) -> None:
    """Bar and point."""
    if of.low is not None and of.high is not None:
        axis.plot([of.low, of.high], [y, y], color=color, zorder=2.5)
    look: dict[str, Any] = {"markersize": 5.5, "clip_on": False, "zorder": 3} | mark
    axis.plot(of.value, y, color=color, markerfacecolor=fill, **look)


def _digits(axis: Axes, x: float, y: int, text: str, **look: Any) -> None:
    """Text to the right of a row."""
    across = axis.get_yaxis_transform()
    axis.text(x, y, text, transform=across, va="center", fontsize=8.5, **look)


def _rows_only(axis: Axes, names: Sequence[str]) -> None:
    """Names instead of ticks on the left, and no horizontal lines."""
    axis.set_yticks(range(len(names)), names)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)


def _few(estimate: Estimate) -> bool:
    return TOO_FEW in estimate.note.split("; ")


def _lowest(lines: Sequence[Line]) -> float:
    """Where all axes begin: a round tenth below everything drawn."""
    ends = [0.9]
    for line in lines:
        for estimate in line.estimates.values():
            ends += [v for v in (estimate.low, estimate.value) if v is not None and v == v]
    return float(max(0.0, np.floor(min(ends) * 10 - 1e-9) / 10))


def differences(result: Comparison, rows: Sequence[Difference], name: str) -> Figure:
    """One line per defined difference of a kind, in the order given; at least one is defined.

    The margin of the comparison is shaded. name: of the files.
    """
    metric, margin = result.metric, result.margin
    p_name = "p (Holm)" if len(rows) > 1 else "p"
    rows = [row for row in rows if not math.isnan(row.value)]
    shared = len({row.reference for row in rows}) == 1
    tested = f" and {p_name} < {ALPHA:g}" if any(row.holm is not None for row in rows) else ""
    note = f"Bars: 95 % intervals; filled: 0 lies outside{tested}."
    if margin is not None:
        note += f" Grey: within ±{margin:g}."
    sides = ("worse", "better") if metric.larger_is_better else ("better", "worse")
    # Its middle is 0, so that no side looks longer.
    ends = [abs(v) for row in rows for v in (row.low, row.value, row.high) if v is not None]
    end = 1.08 * max([1.5 * (margin or 0.0), SHORTEST_AXIS, *(v for v in ends if v == v)])
    labels = [
        textwrap.fill(
            display_name(row, 0) + ("" if shared else f" minus {display_name(row, 1)}"),
            LABEL_WIDTH,
            max_lines=2,
            placeholder="…",
        )
        for row in rows
    ]
    reference = textwrap.shorten(display_name(rows[0], 1), 40, placeholder="…")
    title = f"Differences in {metric.title}"

    def draw(axis: Axes) -> None:
        axis.set(xlim=(-end, end), ylim=(len(rows) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if margin is not None:
            axis.axvspan(-margin, margin, color=EMPTY, zorder=0.5)
        axis.axvline(0, color=MUTED, linewidth=1)
        for y, row in enumerate(rows):
            _draw_difference(axis, y, row, metric.larger_is_better, p_name)
        _rows_only(axis, labels)
        axis.set_xlabel(f"difference in {metric.title}{f' from {reference}' if shared else ''}")
        look: dict[str, Any] = {"fontsize": 8.5, "color": MUTED, "va": "bottom"}
        top = 1 + 0.04 / (DIFFERENCE_ROW * len(rows))
        axis.text(0, top, f"← {sides[0]}", ha="left", transform=axis.transAxes, **look)
        axis.text(1, top, f"{sides[1]} →", ha="right", transform=axis.transAxes, **look)

    longest = max(len(line) for label in labels for line in label.split("\n"))
    size = (3.4, DIFFERENCE_ROW * len(rows))
    # A blank note leaves room for the names of the sides.
    chart = Chart("", title, draw, [" "], (), size, gap=2.9, left=0.3 + longest / 12)
    return Figure(name, title, [chart], (), f"{note} {describe_test_rows(result)}.")


def _draw_difference(
    axis: Axes, y: int, row: Difference, larger_is_better: bool, p_name: str
) -> None:
    """Point, bar and digits: filled where interval and test show a difference; else hollow."""
    decided = row.leaves_out_0 and (row.holm is None or row.holm < ALPHA)
    better = (row.value > 0) == larger_is_better
    color = MUTED if not decided else BLUE if better else VERMILION
    marker = "o" if better or not decided else "s"
    fill = color if decided else WHITE
    _draw_row(axis, y, row, color, fill, marker=marker, markersize=6.5, clip_on=True)
    text = str(EstimateCell(row.value, row.low, row.high, signed=True))
    if row.holm is not None:
        text += f"  {p_equals(row.holm, p_name)}"
    if row.note:
        text += "\n" + textwrap.fill(row.note, LABEL_WIDTH + 6, max_lines=2, placeholder="…")
    _digits(axis, 1.03, y, text)
