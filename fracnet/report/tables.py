"""Tables of a page: cells as text or as pieces of HTML, with one form for a figure everywhere.

Charts drawn into a page of HTML: they take the page's colors, in light and dark, and its type.

Curves of a run's folder are matplotlib's, black on white; on a page they would be white boxes in
the dark, and their type too small on a telephone. These hold text as text, name each mark where a
pointer rests on it, and are described in words for who cannot see them. `base.html` has the
classes that color them: s0 to s5 for series, told apart by their marks as well.

A figure with its interval as point and bar, in a row of a table, all rows on one scale.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from fracnet.evaluation.summary import TOO_FEW, Estimate
from fracnet.utils.text import limits

# With more than this many, colors and marks no longer tell series apart.
SERIES = 6

# Number of the shape that marks means.
BAR = 5

# Margins in units of the view box: digits and title on the left, digits and title below.
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 12.0, 44.0

# Characters of a tick's label that fit between two ticks, by the width of a chart.
UNITS_A_CHARACTER = 6.2

Tick = tuple[float, str]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Ends of an axis and what is written along it; `log` ones need positive ends."""

    low: float
    high: float
    title: str = ""
    ticks: Sequence[Tick] = ()
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the lower end and 1 at the upper; beyond them it is the end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(max((at - low) / (high - low), 0.0), 1.0)


def linear(values: Sequence[float], title: str = "", *, count: int = 5) -> Axis:
    """An axis with round ticks that holds all of these values, of which one at least is finite."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (round(step / power, 1) == 2.5))
    ticks = [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]
    return Axis(first * step, last * step, title, ticks)


def unit(title: str = "") -> Axis:
    """From 0 to 1."""
    return Axis(0.0, 1.0, title, [(i / 5, f"{i / 5:.1f}") for i in range(6)])


@dataclass
class Chart:
    """A chart in units of about a pixel on a telephone; drawn in the order of the calls."""

    x: Axis
    y: Axis
    width: float = 360.0
    height: float = 250.0
    _marks: list[Markup] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in the view box."""
        across = LEFT + self.x.share(x) * (self.width - LEFT - RIGHT)
        return across, self.height - BOTTOM - self.y.share(y) * (self.height - TOP - BOTTOM)

    def line(self, points: Points, look: str = "s0", title: str = "") -> None:
        """A line through the points; one that is not finite parts it.

        look: classes, such as "s0", "s1 faint", "guide" or "dashed s2".
        """
        pieces: list[list[str]] = [[]]
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                pieces[-1].append("{:.1f} {:.1f}".format(*self.at(x, y)))
            elif pieces[-1]:
                pieces.append([])
        drawn = " ".join(f"M{' L'.join(piece)}" for piece in pieces if piece)
        if drawn:
            self._add('<path class="line {}" d="{}">{}</path>', look, drawn, _titled(title))

    def band(self, points: Points, back: Points, look: str = "s0") -> None:
        """The area between two lines, each from left to right."""
        around = [self.at(x, y) for x, y in (*points, *reversed(back))]
        drawn = " L".join(f"{x:.1f} {y:.1f}" for x, y in around)
        self._add('<path class="band {}" d="M{}Z"/>', look, drawn)

    def dot(
        self,
        x: float,
        y: float,
        look: str = "s0",
        mark: int = 0,
        title: str = "",
        shift: float = 0.0,
    ) -> None:
        """One mark; `mark` is the number of its shape, see `shape`. shift: to the right, in units,
        for marks that would hide one another."""
        if math.isfinite(x) and math.isfinite(y):
            across, down = self.at(x, y)
            self._marks.append(shape(mark, across + shift, down, look=look, title=title))

    def rule(self, *, x: float | None = None, y: float | None = None, look: str = "guide") -> None:
        """A straight line across the whole chart, at a value of one axis."""
        if x is not None:
            self.line([(x, self.y.low), (x, self.y.high)], look)
        if y is not None:
            self.line([(self.x.low, y), (self.x.high, y)], look)

    def drawn(self, label: str) -> Markup:
        """The chart as SVG; `label` describes it to who cannot see it."""
        inside = Markup("").join([*self._frame(), *self._marks])
        return markup(
            '<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>',
            self.width,
            self.height,
            label,
            inside,
        )

    def _add(self, form: str, *values: object) -> None:
        self._marks.append(markup(form, *values))

    def _frame(self) -> list[Markup]:
        """Grid, digits and titles, which lie behind all else."""
        left, bottom = self.at(self.x.low, self.y.low)
        right, top = self.at(self.x.high, self.y.high)
        line = '<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
        text = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>'
        found = []
        for value, words in self.y.ticks:
            _, y = self.at(self.x.low, value)
            found.append(markup(line, left, y, right, y))
            found.append(markup(text, left - 6, y + 4, "end", "", words))
        ends: list[float] = []
        for value, words in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            found.append(markup(line, x, top, x, bottom))
            # Digits that would run into the last ones are left out; its line stays.
            reach = len(words) * UNITS_A_CHARACTER / 2
            if not ends or x - reach > ends[-1]:
                ends.append(x + reach + 3)
                found.append(markup(text, x, bottom + 17, "middle", "", words))
        middle, height = (left + right) / 2, (top + bottom) / 2
        found.append(markup(text, middle, self.height - 7, "middle", "", self.x.title))
        turn = Markup(' transform="rotate(-90 13 {:.1f})"').format(height)
        found.append(markup(text, 13, height, "middle", turn, self.y.title))
        return found


def shape(
    mark: int, x: float, y: float, *, look: str = "s0", title: str = "", size: float = 4.2
) -> Markup:
    """A circle, square, triangle, diamond, cross or bar at a place of the view box."""
    make = _SHAPES[mark % len(_SHAPES)]
    path = make(x, y, size)
    return markup('<path class="dot {}" d="{}">{}</path>', look, path, _titled(title))


def key(mark: int, look: str) -> Markup:
    """A mark and a piece of its line, for a legend in HTML."""
    line = markup('<path class="line {}" d="M0 7 L26 7"/>', look)
    inside = line + shape(mark, 13, 7, look=look)
    return markup('<svg class="key" viewBox="0 0 26 14" aria-hidden="true">{}</svg>', inside)


def _titled(words: str) -> Markup:
    return markup("<title>{}</title>", words) if words else Markup("")


def markup(form: str, *values: object) -> Markup:
    """A piece of SVG with its values put into `form`, all of which are escaped."""
    return Markup(form.format(*(v if isinstance(v, float | int) else escape(v) for v in values)))


def _polygon(*corners: tuple[float, float]) -> Callable[[float, float, float], str]:
    def made(x: float, y: float, size: float) -> str:
        at = " L".join(f"{x + size * a:.1f} {y + size * b:.1f}" for a, b in corners)
        return f"M{at}Z"

    return made


def _circle(x: float, y: float, size: float) -> str:
    half = f"a{size:.1f} {size:.1f} 0 1 0"
    return f"M{x - size:.1f} {y:.1f}{half} {2 * size:.1f} 0{half} {-2 * size:.1f} 0Z"


_ARM = 0.36
_SHAPES = (
    _circle,
    _polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    _polygon((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    _polygon((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    _polygon(
        *((-_ARM, -1.2), (_ARM, -1.2), (_ARM, -_ARM), (1.2, -_ARM), (1.2, _ARM), (_ARM, _ARM)),
        *((_ARM, 1.2), (-_ARM, 1.2), (-_ARM, _ARM), (-1.2, _ARM), (-1.2, -_ARM), (-_ARM, -_ARM)),
    ),
    _polygon((-2.6, -0.45), (2.6, -0.45), (2.6, 0.45), (-2.6, 0.45)),
)


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
