"""ROC and precision-recall figures: curves with bands, and the operating point with its own limits.

All text stands outside the axes, above a panel or below it, where no curve can reach it.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fracnet.evaluation import curves
from fracnet.evaluation.curves import Band
from fracnet.evaluation.summary import TOO_FEW, Estimate
from fracnet.report import style
from fracnet.report.figures.panels import Panel, counted, told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Characters of a title to an inch.
TITLE_SET = 9.5
# Inches left of the first panel, and between panels.
LEFT, GAP = 0.7, 0.4
BAND: dict[str, Any] = {"color": style.BLUE, "alpha": 0.16, "linewidth": 0}
CHANCE: dict[str, Any] = {"color": style.MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.1}
POINT: dict[str, Any] = {"color": style.VERMILION, "marker": "o", "markersize": 5.5}
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
    kind = _Kind("1 - specificity", "sensitivity", "no skill", "AUC", curves.roc_band, _roc)
    return _figure(panels, folder, name, title, kind, resamples)


def precision_recall_figure(
    panels: Sequence[Panel], folder: Path, name: str, title: str, resamples: int
) -> list[Path]:
    """Draw precision against recall into `name`.png and .svg; else as `roc_figure`."""
    no_skill = "no skill: the share of cases"
    band, draw = curves.precision_recall_band, _precision_recall
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
    above = 0.2 + style.LINE * max(len(title) * 1.3 + len(lines) for title, lines in heads)
    below = 0.55 if n <= 3 else 0.1
    below += style.LINE * 1.25 * max(map(len, details))
    keys, across = _keys(panels, drawn, kind, (side + GAP) * columns)
    foot = 0.1 + (0 if n <= 3 else 0.35) + 0.21 * -(-len(keys) // across)
    width, height = LEFT + (side + GAP) * columns, 0.3 + (above + side + below) * rows + foot
    with style.canvas(width, height, placed=True) as figure:
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            x, y = LEFT + (side + GAP) * column, height - 0.3 - (above + side + below) * (row + 1)
            axis = figure.add_axes((x / width, (y + below) / height, side / width, side / height))
            _axes(axis, kind, left=column == 0, bottom=place + columns >= n)
            title, lines = heads[place]
            axis.set_title("\n".join(title), pad=7 + 72 * style.LINE * len(lines))
            look: dict[str, Any] = {"fontsize": 8.5, "va": "bottom", "linespacing": 1.25}
            axis.text(0, 1.02, "\n".join(lines), transform=axis.transAxes, **look)
            why = curves.drawable(panel.case)
            if why:
                axis.set_facecolor(style.EMPTY)
                axis.grid(False)
                axis.text(0.5, 0.5, f"no curve: {why}", ha="center", color=style.MUTED)
            else:
                kind.draw(axis, panel, drawn[place])
                _below(axis, details[place], side)
        style.heading(figure, title_of_all)
        if keys:
            corner = (0.0, 0.05 / height)
            figure.legend(handles=keys, loc="lower left", bbox_to_anchor=corner, ncols=across)
        return style.save(figure, folder, name)


def _axes(axis: "Axes", kind: _Kind, *, left: bool, bottom: bool) -> None:
    ticks = np.linspace(0, 1, 6)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
    axis.tick_params(labelleft=left, labelbottom=bottom)
    axis.set_xlabel(kind.x if bottom else "")
    axis.set_ylabel(kind.y if left else "")


def _roc(axis: "Axes", panel: Panel, band: Band) -> None:
    curve = curves.roc(panel.case, panel.score)
    axis.plot([0, 1], [0, 1], **CHANCE)
    axis.fill_between(band.x, band.low, band.high, **BAND)
    axis.plot(curve.x, curve.y, color=style.BLUE)
    rates = panel.summary
    _cross(axis, _turned(rates.specificity), rates.sensitivity)
    if panel.chosen is not None:
        axis.plot(1 - panel.chosen[1], panel.chosen[0], zorder=3.5, **HOLLOW)


def _precision_recall(axis: "Axes", panel: Panel, band: Band) -> None:
    curve = curves.precision_recall(panel.case, panel.score)
    axis.axhline(float(panel.case.mean()), **CHANCE)
    axis.fill_between(band.x, band.low, band.high, **BAND)
    recall, precision = curves.steps(curve)
    axis.step(recall, precision, where="pre", color=style.BLUE)
    _cross(axis, panel.summary.sensitivity, panel.summary.precision)


def _cross(axis: "Axes", x: Estimate, y: Estimate) -> None:
    """The operating point, with a bar of each coordinate's interval."""
    line: dict[str, Any] = {"color": style.VERMILION, "linewidth": 1.2, "zorder": 3.8}
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
    if band.note and not curves.drawable(panel.case):
        lines += textwrap.wrap(f"no band: {band.note}", int(style.LINE_SET * side))
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

    if all(curves.drawable(panel.case) for panel in panels):
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
