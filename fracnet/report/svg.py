"""Charts drawn into a page of HTML: they take the page's colours, in light and dark, and its type.

Curves of a run's folder are matplotlib's, black on white; on a page they would be white boxes in
the dark, and their type too small on a telephone. These hold text as text, name each mark where a
pointer rests on it, and are described in words for who cannot see them. `base.html` has the
classes that colour them: s0 to s5 for series, told apart by their marks as well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

# With more than this many, colours and marks no longer tell series apart.
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
