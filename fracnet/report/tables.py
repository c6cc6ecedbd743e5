"""Tables of a page: cells as text or as pieces of HTML, with one form for a figure everywhere."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from fracnet.evaluation.summary import TOO_FEW, Estimate
from fracnet.report.console import limits
from fracnet.report.reach import Reach, interval
from fracnet.report.svg import Axis, linear

Cell = str | Markup
# Columns that fit a sheet with value and interval side by side.
DENSE = 5
# Columns that are better read close together.
NARROW = 3


@dataclass(frozen=True)
class Table:
    """A caption, heads and rows; the first cell of a row names it. `wide` columns
    hold a drawing, `text` ones words that may run over several lines.

    strong: the first row is what the others are seen against. note: a sentence below.
    below: intervals stand below their values although there are few columns.
    """

    caption: str
    heads: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    strong: bool = False
    note: str = ""
    wide: Sequence[int] = ()
    text: Sequence[int] = ()
    below: bool = False

    @property
    def dense(self) -> bool:
        """Whether intervals must go below their values for it to fit a sheet."""
        return self.below or len(self.heads) > DENSE

    @property
    def narrow(self) -> bool:
        """Whether a whole sheet would set its columns too far apart."""
        return len(self.heads) <= NARROW


def named_file(path: str) -> Markup:
    """A file's name that may run on in a new line behind a part of it, and not at any letter."""
    parts = [escape(part) for part in re.split(r"(?<=[/_.-])(?=[^/_.-])(?!\w{2,5}$)", path)]
    return Markup("<wbr>").join(parts)


def figure_cell(estimate: Estimate | None) -> Cell:
    """`0.891 (0.839-0.927)`; on a narrow page the interval goes below. A dash where there is none.

    A figure that rests on too few cases says so.
    """
    if estimate is None or math.isnan(estimate.value):
        return Markup('<span class="muted">{}</span>').format("n/a" if estimate else "-")
    text = escape(f"{estimate.value:.3f}")
    if estimate.low is not None and estimate.high is not None:
        reach = f"({limits(estimate.low, estimate.high)})"
        text += Markup(' <span class="i">{}</span>').format(reach)
    else:
        text += Markup(' <span class="i">(no interval)</span>')
    if TOO_FEW in estimate.note.split("; "):
        text += Markup(' <span class="few">{}</span>').format(TOO_FEW)
    return text


def reach_of(estimate: Estimate) -> Reach:
    """The figure as `svg.interval` takes it."""
    return Reach(estimate.value, estimate.low, estimate.high)


def drawn(estimate: Estimate, scale: Axis, guide: float | None) -> Cell:
    """Point and bar of a figure, hollow where it rests on too few cases."""
    few = TOO_FEW in estimate.note.split("; ")
    return interval(reach_of(estimate), scale, guide=guide, look="s5" if few else "s0")


def common_scale(estimates: Sequence[Estimate], also: Sequence[float] = ()) -> Axis:
    """One axis for all of these figures and their intervals, up to 1 at most."""
    ends = [*also]
    for one in estimates:
        known = (one.value, one.low, one.high)
        ends += [end for end in known if end is not None and math.isfinite(end)]
    axis = linear(ends or [0.0, 1.0], count=4)
    if max(ends, default=1.0) <= 1 < axis.high:
        return Axis(axis.low, 1.0, axis.title, [tick for tick in axis.ticks if tick[0] <= 1])
    return axis
