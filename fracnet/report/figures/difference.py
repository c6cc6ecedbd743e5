"""Differences between runs, each with its interval, against the smallest one that matters."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fracnet.evaluation.power import ALPHA
from fracnet.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    with style.canvas(8.2, 1.75 + 0.4 * len(rows)) as figure:
        axis = figure.subplots()
        axis.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if margin is not None:
            axis.axvspan(-margin, margin, color=style.EMPTY, zorder=0.5)
            key += f" Grey: within ±{margin:g}."
        axis.axvline(0, color=style.MUTED, linewidth=1)
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
            "color": style.MUTED,
            "va": "bottom",
        }
        axis.text(0, 1.01, f"← {sides[0]}", ha="left", **look)
        axis.text(1, 1.01, f"{sides[1]} →", ha="right", **look)
        style.heading(figure, f"Differences in {metric}")
        style.footnote(figure, f"{key} {note}".strip())
        return style.save(figure, folder, name)


def _line(axis: "Axes", y: int, row: DifferenceRow, higher_is_better: bool, p_name: str) -> None:
    """Point, bar and digits: filled where interval and test show a difference; else hollow."""
    low = np.nan if row.low is None else row.low
    high = np.nan if row.high is None else row.high
    known = bool(np.isfinite([low, high]).all())
    away = known and (low > 0 or high < 0) and (row.p is None or row.p < ALPHA)
    good = (row.value > 0) == higher_is_better
    colour = style.MUTED if not away else style.BLUE if good else style.VERMILION
    axis.plot([low, high], [y, y], color=colour, zorder=2.5)
    look: dict[str, Any] = {
        "marker": "o" if good or not away else "s",
        "markersize": 6.5,
        "zorder": 3,
    }
    axis.plot(row.value, y, color=colour, markerfacecolor=colour if away else "white", **look)
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
