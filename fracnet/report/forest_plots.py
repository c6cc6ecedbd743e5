"""Intervals under one another: metrics by group or class, and differences between runs."""

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
from fracnet.evaluation.summary import TOO_FEW, Estimate, Summary
from fracnet.metrics.hypothesis_tests import ALPHA
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
    if estimate.low is not None and estimate.high is not None:
        axis.plot([estimate.low, estimate.high], [y, y], color=BLUE, zorder=2.5)
    mark: dict[str, Any] = {"marker": "o" if y else "D", "markersize": 5.5}
    fill = WHITE if few else BLUE
    axis.plot(estimate.value, y, color=BLUE, markerfacecolor=fill, clip_on=False, zorder=3, **mark)
    axis.text(
        1.06,
        y,
        estimate_text(estimate),
        transform=axis.get_yaxis_transform(),
        va="center",
        fontsize=8.5,
        color=MUTED if few else INK,
        weight="normal" if y else "bold",
    )


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


@dataclass(frozen=True)
class DifferenceRow:
    """One comparison: `value` is the first run's metric minus the reference's.

    `low` and `high` are the limits of its 95 % interval, None with a `note` where there is none.
    `p` is the p-value as reported, None without a test; the mark is filled only where `p`, too,
    is below 0.05.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    note: str = ""


def differences(
    rows: Sequence[DifferenceRow],
    *,
    metric: str,
    reference: str = "",
    margin: float | None = None,
    higher_is_better: bool = True,
    note: str = "",
    p_name: str = "p",
    name: str = "differences",
) -> Figure:
    """One line per comparison, in the order given.

    Args:
        rows: at least one.
        metric: what was measured, in words: `macro AUC`.
        reference: of all rows, where they share one; named on the axis.
        margin: the smallest difference that matters, a positive number; shaded from -margin to
            margin. None shades nothing.
        higher_is_better: False for a loss or an error: then the sides are named the other way.
        note: a sentence under the figure: how intervals were made, how many patients.
        p_name: what `p` is, `p (Holm)` where it is corrected.
        name: of the files.
    """
    assert rows, "nothing to compare"
    assert margin is None or margin > 0, margin
    tested = f" and {p_name} < {ALPHA:g}" if any(row.p is not None for row in rows) else ""
    key = f"Bars: 95 % intervals; filled: 0 lies outside{tested}."
    if margin is not None:
        key += f" Grey: within ±{margin:g}."
    sides = ("worse", "better") if higher_is_better else ("better", "worse")
    end = _end(rows, margin or 0.0)
    labels = [textwrap.fill(row.label, LABEL_WIDTH, max_lines=2, placeholder="…") for row in rows]
    base = f" from {textwrap.shorten(reference, 40, placeholder='…')}" if reference else ""

    def draw(axis: Axes) -> None:

        axis.set(xlim=(-end, end), ylim=(len(rows) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if margin is not None:
            axis.axvspan(-margin, margin, color=EMPTY, zorder=0.5)
        axis.axvline(0, color=MUTED, linewidth=1)
        for y, row in enumerate(rows):
            _draw_difference(axis, y, row, higher_is_better, p_name)
        _rows_only(axis, labels)
        axis.set_xlabel(f"difference in {metric}{base}")
        look: dict[str, Any] = {"fontsize": 8.5, "color": MUTED, "va": "bottom"}
        top = 1 + 0.04 / (DIFFERENCE_ROW * len(rows))
        axis.text(0, top, f"← {sides[0]}", ha="left", transform=axis.transAxes, **look)
        axis.text(1, top, f"{sides[1]} →", ha="right", transform=axis.transAxes, **look)

    longest = max(len(line) for label in labels for line in label.split("\n"))
    size = (3.4, DIFFERENCE_ROW * len(rows))
    title = f"Differences in {metric}"
    # A blank note leaves room for the names of the sides.
    chart = Chart("", title, draw, [" "], (), size, gap=2.9, left=0.3 + longest / 12)
    return Figure(name, title, [chart], (), f"{key} {note}".strip())


def _draw_difference(
    axis: Axes, y: int, row: DifferenceRow, higher_is_better: bool, p_name: str
) -> None:
    """Point, bar and digits: filled where interval and test show a difference; else hollow."""
    low = np.nan if row.low is None else row.low
    high = np.nan if row.high is None else row.high
    known = bool(np.isfinite([low, high]).all())
    decided = known and (low > 0 or high < 0) and (row.p is None or row.p < ALPHA)
    better = (row.value > 0) == higher_is_better
    color = MUTED if not decided else BLUE if better else VERMILION
    axis.plot([low, high], [y, y], color=color, zorder=2.5)
    mark: dict[str, Any] = {"marker": "o" if better or not decided else "s", "markersize": 6.5}
    fill = color if decided else WHITE
    axis.plot(row.value, y, color=color, markerfacecolor=fill, zorder=3, **mark)
    text = str(EstimateCell(row.value, row.low, row.high, signed=True))
    if row.p is not None:
        text += f"  {p_name} < 0.001" if row.p < 0.001 else f"  {p_name} = {row.p:.3f}"
    if row.note:
        text += "\n" + textwrap.fill(row.note, LABEL_WIDTH + 6, max_lines=2, placeholder="…")
    axis.text(1.03, y, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8.5)


def _end(rows: Sequence[DifferenceRow], margin: float) -> float:
    """Upper end of the axis, whose middle is 0, so that no side looks longer."""
    ends = [abs(v) for row in rows for v in (row.low, row.value, row.high) if v is not None]
    return 1.08 * max([margin * 1.5, SHORTEST_AXIS, *(v for v in ends if not np.isnan(v))])
