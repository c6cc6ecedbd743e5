"""One table for the terminal and the page: each cell renders itself for both.

`Table` holds plain values. `print_table` shows it in a terminal, in plain ASCII and without
relying on color; the `table` macro of `templates/macros.html` shows it on a page.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup, escape
from rich.box import Box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fracnet.evaluation.summary import NOT_FROM_0, TOO_FEW, Estimate
from fracnet.utils.text import limits

DENSE = 5  # columns that fit a sheet of paper with value and interval side by side
MANY = 9  # columns that fit a sheet of paper in type of the usual size
NARROW = 3  # columns that read better close together
FOLDED = 14  # columns of a terminal that a name keeps before intervals move below their values

# A rule under the header and nothing else. Eight lines: top, head, head rule, ... bottom.
PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True)
class Scale:
    """The ends of an axis that all bars of a column share."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the lower end or below, 1 at the upper end or above."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def round_scale(values: Iterable[float | None], *, count: int = 5) -> Scale:
    """A scale with round ends that holds the finite values, in about `count` round steps."""
    known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    digits = max(0, 2 - math.floor(math.log10(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(round(first * step, digits), round(last * step, digits))


def estimate_scale(estimates: Sequence[Estimate], also: Sequence[float] = ()) -> Scale:
    """A scale that holds these estimates and their intervals and, for rates, ends at 1."""
    ends = [*also, *(end for e in estimates for end in (e.value, e.low, e.high))]
    scale = round_scale(ends, count=4)
    highest = max((end for end in ends if end is not None and math.isfinite(end)), default=1.0)
    return Scale(scale.low, min(scale.high, 1.0) if highest <= 1 else scale.high)


UNCLEAR = "unclear"
"""NOT_FROM_0 in a table."""


@dataclass(frozen=True)
class EstimateCell:
    """A value with its 95 % interval. NaN is undefined; `signed` writes `+` before the digits.

    near_zero: the value cannot be distinguished from 0, which is stated in place of its digits.
    """

    value: float
    low: float | None = None
    high: float | None = None
    few: bool = False
    signed: bool = False
    digits: int = 3
    near_zero: bool = False

    @property
    def number(self) -> str:
        """The value in digits, `n/a` where it is undefined."""
        if self.near_zero:
            return UNCLEAR
        return "n/a" if not math.isfinite(self.value) else self._format(self.value)

    @property
    def interval(self) -> str:
        """`0.839-0.927`, `no interval`, or nothing beside an undefined value."""
        if not math.isfinite(self.value):
            return ""
        if self.low is None or self.high is None:
            return "no interval"
        if self.signed:
            return f"{self._format(self.low)} to {self._format(self.high)}"
        return limits(self.low, self.high, self.digits)

    def bar(self, scale: "Scale", **look: Any) -> "Bar":
        """The same as point and interval; `look` holds further fields of `Bar`."""
        return Bar(self.value, self.low, self.high, scale, **({"hollow": self.few} | look))

    def _format(self, value: float) -> str:
        text = f"{value:{'+' if self.signed else ''}.{self.digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text

    def __str__(self) -> str:
        number = NOT_FROM_0 if self.near_zero else self.number
        interval = f" ({self.interval})" if self.interval else ""
        return f"{number}{interval}{f' {TOO_FEW}' if self.few else ''}"

    def terminal(self, stacked: bool) -> str:
        """Value and interval, side by side or stacked; a third part marks too few cases."""
        parts = filter(None, (self.number, self.interval))
        text = ("\n" if stacked else " ").join(parts)
        return f"{text}\n{TOO_FEW}" if self.few else text

    def __html__(self) -> str:
        if not self.interval:
            return f'<span class="muted">{self.number}</span>'
        few = f' <span class="few">{TOO_FEW}</span>' if self.few else ""
        return f'{self.number} <span class="i">({self.interval})</span>{few}'


@dataclass(frozen=True)
class Bar:
    """Point and interval on the scale of a column; only a page draws it.

    look: `s0` to `s5`, the page's colors. hollow: drawn as an outline. guide: a value that a line
    marks. margin: shaded from `guide` - margin to `guide` + margin. ticks: values behind a mean.
    """

    value: float
    low: float | None
    high: float | None
    scale: Scale
    guide: float | None = None
    margin: float = 0.0
    look: str = "s0"
    hollow: bool = False
    ticks: Sequence[float] = ()

    def __str__(self) -> str:
        return ""

    def __html__(self) -> str:
        parts = []
        if self.guide is not None and self.margin:
            parts.append(self._range("margin", self.guide - self.margin, self.guide + self.margin))
        if self.guide is not None:
            parts.append(self._mark("guide", self.guide))
        if self.low is not None and self.high is not None:
            parts.append(self._range("range", self.low, self.high))
        parts += [self._mark("tick", tick) for tick in self.ticks if math.isfinite(tick)]
        if math.isfinite(self.value):
            parts.append(self._mark("dot", self.value))
        look = f"bars {self.look}{' hollow' if self.hollow else ''}"
        return f'<span class="{look}" aria-hidden="true">{"".join(parts)}</span>'

    def _mark(self, name: str, value: float) -> str:
        return f'<i class="{name}" style="left:{100 * self.scale.share(value):.2f}%"></i>'

    def _range(self, name: str, low: float, high: float) -> str:
        left, right = (100 * self.scale.share(end) for end in (low, high))
        return f'<i class="{name}" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'


@dataclass(frozen=True)
class Link:
    """Text that leads to a file beside the page; without `href` it is text alone."""

    text: str
    href: str = ""

    def __str__(self) -> str:
        return self.text

    def __html__(self) -> str:
        text = escape(self.text)
        return Markup('<a href="{}">{}</a>').format(self.href, text) if self.href else text


@dataclass(frozen=True)
class FileName:
    """The path of a file; on a page it breaks between its parts only."""

    path: str

    def __str__(self) -> str:
        return self.path

    def __html__(self) -> str:
        parts = re.split(r"(?<=[/_.-])(?=[^/_.-])(?!\w{2,5}$)", self.path)
        return Markup("<wbr>").join(escape(part) for part in parts)


@dataclass(frozen=True)
class Named:
    """The name of a row, with a smaller line below it; a marked row has a star and a tag."""

    name: str | Link
    detail: str = ""
    tag: str = ""

    def __str__(self) -> str:
        star = " *" if self.tag else ""
        return f"{self.name}{star}" + (f"\n{self.detail}" if self.detail else "")

    def __html__(self) -> str:
        html = escape(self.name)
        if self.tag:
            html += Markup(' <span class="tag ok">{}</span>').format(self.tag)
        if self.detail:
            html += Markup('<br><span class="small muted detail">{}</span>').format(self.detail)
        return html


Cell = str | EstimateCell | Bar | Link | FileName | Named


@dataclass(frozen=True)
class Table:
    """A caption, the heads of columns, and rows; the first cell of a row names it.

    strong: the first row is what the others are compared with. marked: numbers of rows to set
    apart. note: a sentence below. text: numbers of columns whose words may run over several lines.
    below: intervals stand below their values although there are few columns. sortable: a click on
    a head sorts the page's rows.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    strong: bool = False
    marked: Sequence[int] = ()
    note: str = ""
    text: Sequence[int] = ()
    below: bool = False
    sortable: bool = False

    def without(self, *heads: str) -> "Table":
        """The table without the columns of these heads."""
        columns = [c for c, head in enumerate(self.heads) if head not in heads]
        assert len(columns) == len(self.heads) - len(heads), heads
        return replace(
            self,
            heads=[self.heads[c] for c in columns],
            rows=[[row[c] for c in columns] for row in self.rows],
            text=[columns.index(c) for c in self.text if c in columns],
        )

    @property
    def wide(self) -> Sequence[int]:
        """The columns that hold bars."""
        columns = range(1, len(self.heads))
        return [c for c in columns if any(isinstance(row[c], Bar) for row in self.rows)]

    @property
    def dense(self) -> bool:
        """Whether intervals must stand below their values for the table to fit a sheet."""
        return self.below or len(self.heads) > DENSE

    @property
    def many(self) -> bool:
        """Whether its columns fit a sheet of paper only in small type."""
        return len(self.heads) > MANY

    @property
    def narrow(self) -> bool:
        """Whether a whole sheet would set its columns too far apart."""
        return len(self.heads) <= NARROW


def estimate_cell(estimate: Estimate) -> EstimateCell:
    """An estimate as a cell."""
    few = TOO_FEW in estimate.note.split("; ")
    near_zero = NOT_FROM_0 in estimate.note
    return EstimateCell(estimate.value, estimate.low, estimate.high, few, near_zero=near_zero)


def stored_cell(metric: Mapping[str, Any], value: str = "value", **look: Any) -> EstimateCell:
    """An estimate of a JSON file, in which an undefined value is null, as a cell.

    value: its key. look: further fields of `EstimateCell`.
    """
    number = math.nan if metric[value] is None else metric[value]
    return EstimateCell(number, metric["low"], metric["high"], **look)


def mean_cell(row: Mapping[str, Any]) -> Cell:
    """`mean`, `low` and `high` of a JSON file; the digits alone where there is no interval."""
    cell = stored_cell(row, "mean")
    return cell.number if cell.low is None else cell


def estimate_text(estimate: Estimate, name: str = "") -> str:
    """`AUC 0.984 (0.944-0.996)`, `AUC 0.984 (no interval)` or `AUC n/a`."""
    few_unsaid = replace(estimate, note=NOT_FROM_0 if NOT_FROM_0 in estimate.note else "")
    return f"{name} {estimate_cell(few_unsaid)}".strip()


def print_table(console: Console, table: Table) -> None:
    """Print caption, rows and note of a table; bars are left out.

    Where values with their intervals are wider than the terminal, intervals stand below values.
    """
    if table.caption:
        console.print(Text(table.caption, style="bold"))
    console.print(as_rich(table, console.width))
    if table.note:
        console.print(Text(table.note))


def as_rich(table: Table, width: int) -> RichTable:
    """The table for a terminal of this many columns, without caption and note."""
    columns = [c for c in range(len(table.heads)) if c not in table.wide]
    cells = {c: [_terminal(row[c], stacked=False) for row in table.rows] for c in columns}
    fixed = [c for c in columns[1:] if c not in table.text]

    def needed() -> int:
        return sum(2 + max(map(_width, [table.heads[c], *cells[c]])) for c in fixed)

    if needed() + min(FOLDED, max(map(_width, cells[0]), default=0)) > width:
        cells = {c: [_terminal(row[c], stacked=True) for row in table.rows] for c in columns}
    room = max(width - needed(), FOLDED)
    cells[0] = [
        "\n".join(piece for line in name.split("\n") for piece in wrap_name(line, room))
        for name in cells[0]
    ]
    rich = RichTable(box=PLAIN, pad_edge=False, collapse_padding=True)
    for c in columns:
        numbers = all(re.fullmatch(r"[-\d.,/ ]*", cell) for cell in cells[c])
        rich.add_column(
            Text(table.heads[c]),
            justify="right" if numbers and c in fixed else "left",
            no_wrap=c in fixed,
            overflow="fold",
        )
    for row in zip(*(cells[c] for c in columns), strict=True):
        rich.add_row(*map(Text, row))
    return rich


def wrap_name(name: str, width: int) -> list[str]:
    """A name on lines of `width`, broken between words or, failing that, after punctuation."""
    lines = [""]
    for piece in _pieces(name, width, (" ,/", "_", ".;-")):
        if len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()]


def _pieces(name: str, width: int, ends: Sequence[str]) -> Iterator[str]:
    """Pieces no wider than `width`, each up to one of the characters of `ends`, best first."""
    if len(name.rstrip()) <= width:
        yield name
    elif not ends:
        yield from (name[start : start + width] for start in range(0, len(name), width))
    else:
        end = re.escape(ends[0])
        for piece in re.findall(f"[^{end}]*[{end}]|[^{end}]+", name):
            yield from _pieces(piece, width, ends[1:])


def _terminal(cell: Cell, *, stacked: bool) -> str:
    return cell.terminal(stacked) if isinstance(cell, EstimateCell) else str(cell)


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))
