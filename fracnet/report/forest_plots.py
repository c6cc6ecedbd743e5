"""Intervals under one another: metrics by group or class."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import Stratum
from fracnet.evaluation.comparison import Difference
from fracnet.evaluation.summary import TOO_FEW, Estimate, Summary
from fracnet.report.plots import BLUE, INK, MUTED, WHITE, Chart, Figure
from fracnet.report.run_content import IMAGE, Evaluated
from fracnet.report.tables import estimate_text
from fracnet.utils.text import shortened

NAME_WIDTH, LABEL_WIDTH = 28, 34  # characters
COLUMN, DIGITS = 1.95, 1.75  # inches of a column's axes, and of the digits to its right
ROW = 0.3

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
        name = f"forest_class_{shown.split}"
        yield _forest(name, "class", class_lines(shown), shown, decisions[IMAGE])
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
        yield _forest(name, by, lines, whole, decisions.get(level, decisions[IMAGE]), level)


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
    name: str, by: str, lines: Sequence[Line], overall: Summary, decision: str, level: str = IMAGE
) -> Figure:
    few = any(_few(estimate) for line in lines for estimate in line.estimates.values())
    note = f"95 % intervals by {overall.unit}. Dashed: {lines[0].name}."
    note += f" Operating point: {decision}."
    note += f" Hollow: {TOO_FEW} cases (or others)." if few else ""
    about = f": {overall.classes[1]}" if len(overall.classes) == 2 else ""
    title = f"By {by}{about}, {overall.split} split, {level} level"
    titles = list(lines[0].estimates)
    charts = [_column(title, lines, first=title == titles[0]) for title in titles]
    return Figure(name, title, charts, (), note)


def _column(title: str, lines: Sequence[Line], *, first: bool) -> Chart:
    """One metric: points with bars, and the digits to their right."""
    names = [shortened(line.name, NAME_WIDTH) for line in lines]
    names = [f"{name}  ({line.count})" for name, line in zip(names, lines, strict=True)]
    low = _lowest(lines)

    def draw(axis: Axes) -> None:
        axis.set(xlim=(low, 1.0), ylim=(len(lines) - 0.5, -0.5))
        rows_only(axis, names if first else [""] * len(lines))
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
    draw_row(axis, y, estimate, BLUE, WHITE if few else BLUE, marker="o" if y else "D")
    look: dict[str, Any] = {"color": MUTED if few else INK, "weight": "normal" if y else "bold"}
    row_digits(axis, 1.06, y, estimate_text(estimate), **look)


def draw_row(
    axis: Axes, y: int, estimate: Estimate | Difference, color: str, fill: str, **mark: Any
) -> None:
    """Bar and point."""
    if estimate.low is not None and estimate.high is not None:
        axis.plot([estimate.low, estimate.high], [y, y], color=color, zorder=2.5)
    look: dict[str, Any] = {"markersize": 5.5, "clip_on": False, "zorder": 3} | mark
    axis.plot(estimate.value, y, color=color, markerfacecolor=fill, **look)


def row_digits(axis: Axes, x: float, y: int, text: str, **look: Any) -> None:
    """Text to the right of a row."""
    across = axis.get_yaxis_transform()
    axis.text(x, y, text, transform=across, va="center", fontsize=8.5, **look)


def rows_only(axis: Axes, names: Sequence[str]) -> None:
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
