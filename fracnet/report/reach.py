"""A figure with its interval as point and bar, in a row of a table, all rows on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fracnet.report.svg import Axis, markup
from fracnet.words import limits


@dataclass(frozen=True)
class Reach:
    """A figure on a common scale; `interval` draws it. NaN is undefined."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        """`0.891 (0.839-0.927)`."""
        if not math.isfinite(self.value):
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({limits(self.low, self.high)})"


def interval(
    row: Reach,
    scale: Axis,
    *,
    guide: float | None = None,
    margin: float = 0.0,
    look: str = "s0",
    each: Sequence[float] = (),
) -> Markup:
    """Point and bar of one row of a table, which stretches to its cell's width.

    guide: a value with a line through it, such as 0. margin: grey from `guide` - to `guide` + this.
    each: values behind the mean, as ticks.
    """
    parts = []
    if guide is not None and margin:
        low, high = (100 * scale.share(guide + side * margin) for side in (-1, 1))
        form = '<rect class="margin" x="{:.2f}%" y="0" width="{:.2f}%" height="100%"/>'
        parts.append(markup(form, low, high - low))
    if guide is not None:
        form = '<line class="axis" x1="{0}" x2="{0}" y1="0" y2="100%"/>'
        parts.append(markup(form, _percent(scale, guide)))
    if row.low is not None and row.high is not None:
        form = '<line class="range {}" x1="{}" x2="{}" y1="50%" y2="50%"/>'
        parts.append(markup(form, look, *(_percent(scale, v) for v in (row.low, row.high))))
    for value in filter(math.isfinite, each):
        form = '<line class="each {0}" x1="{1}" x2="{1}" y1="22%" y2="78%"/>'
        parts.append(markup(form, look, _percent(scale, value)))
    if math.isfinite(row.value):
        form = '<circle class="dot {}" cx="{}" cy="50%" r="5"/>'
        parts.append(markup(form, look, _percent(scale, row.value)))
    return markup('<svg class="reach" aria-hidden="true">{}</svg>', Markup("").join(parts))


def _percent(scale: Axis, value: float) -> str:
    return f"{100 * scale.share(value):.2f}%"
