"""Forest plots: a line a group (or class), a column a metric, each interval drawn and in digits."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fracnet.evaluation.summary import TOO_FEW, Estimate, Summary
from fracnet.report import style
from fracnet.report.figures.panels import told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME_WIDTH = 28
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
    names = [textwrap.shorten(line.name, NAME_WIDTH, placeholder="…") for line in lines]
    names = [f"{name}  ({line.count})" for name, line in zip(names, lines, strict=True)]
    left = 0.25 + max(map(len, names)) / 11
    width = left + (SIDE + DIGITS) * len(titles)
    foot = 0.35 + style.LINE * (1 + len(note) // int(style.LINE_SET * width))
    tall = 0.27 * len(lines)
    height = foot + tall + 0.7
    with style.canvas(width, height, placed=True) as figure:
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
        style.heading(figure, f"{overall.split} split, {level} level{about}")
        style.footnote(figure, note)
        return style.save(figure, folder, name)


def _few(estimate: Estimate) -> bool:
    return TOO_FEW in estimate.note.split("; ")


def _column(axis: "Axes", estimates: Sequence[Estimate], overall: Estimate) -> None:
    """One metric: points with bars, and the figures to their right."""
    if not np.isnan(overall.value):
        axis.axvline(overall.value, color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for y, estimate in enumerate(estimates):
        few = _few(estimate)
        if estimate.low is not None and estimate.high is not None:
            axis.plot([estimate.low, estimate.high], [y, y], color=style.BLUE, zorder=2.5)
        fill = "white" if few else style.BLUE
        axis.plot(
            estimate.value,
            y,
            color=style.BLUE,
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
            color=style.MUTED if few else style.INK,
            weight="bold" if y == 0 else "normal",
        )


def _lowest(lines: Sequence[Line]) -> float:
    """Where all axes begin: a round tenth below everything drawn."""
    ends: list[Any] = [0.9]
    for line in lines:
        for estimate in line.estimates.values():
            ends += [v for v in (estimate.low, estimate.value) if v is not None and v == v]
    return float(max(0.0, np.floor(min(ends) * 10 - 1e-9) / 10))
