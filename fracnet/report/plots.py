"""The house style of all charts, and their two outputs: files, and SVG inside a page.

A `Chart` is defined once, by a function that draws on matplotlib axes. `save` writes the charts of
a `Figure` as PNG and SVG files, which W&B shows as well; `Chart.svg` is the same drawing for a
page, in the page's colors (light and dark) and type. Titles, notes and legends stand outside the
axes, where no curve can run through them; a page sets them as HTML.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from fracnet.utils.files import write_atomically
from fracnet.utils.text import without_controls

# Okabe and Ito 2008, "Color universal design"; without its yellow, too faint for lines on white.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
INK, MUTED, GRID, EMPTY, WHITE = "#222222", "#6B6B6B", "#E4E4E4", "#F1F1F1", "#FFFFFF"

# One color and marker for each series, so that they differ without color as well.
SERIES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "P"), (MUTED, "v"))

# What a color is called in the style sheet of a page, which has two values for each.
ON_PAGE = {
    BLUE: "--s0",
    VERMILION: "--s1",
    GREEN: "--s2",
    PURPLE: "--s3",
    ORANGE: "--s4",
    SKY: "--bar",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--rule",
    EMPTY: "--empty",
    WHITE: "--ground",
}

SVG_ID = "\ue000"  # begins every id inside the SVG of a page, until all of the page are known
DPI = 150
LINE_SET, LINE = 13.5, 0.155  # characters of small type to an inch, inches to a line of it
TITLE_SET, TITLE_LINE = 9.5, 0.2  # the same for a chart's title
MARGIN = (0.62, 0.5)  # inches left of and below axes, for labels
GAP = 0.85  # inches between charts, with the labels of the right one

Look = Mapping[str, Any]
DASHED: Look = {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.1}

# Any: matplotlib's type for the keys differs from release to release.
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # matplotlib would measure all labels to find the same place
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": WHITE,
    "savefig.facecolor": WHITE,
    "svg.hashsalt": "fracnet",  # ids inside an SVG are random otherwise
}


@dataclass(frozen=True)
class Key:
    """An entry of a legend: how its line, marker or area looks, and what it means.

    An empty `look` is a line of text below the entry before. `area` draws a filled patch.
    """

    look: Look
    label: str
    area: bool = False

    @property
    def handle(self) -> Artist:
        """What matplotlib's legend draws."""

        if self.area:
            return Patch(**self.look)
        return Line2D([], [], **(self.look or {"linestyle": ""}))

    @property
    def svg(self) -> Markup:
        """The mark for a legend on a page; nothing for a line of text."""
        return _mark(tuple(self.look.items()), self.area) if self.look else Markup("")


@lru_cache  # the charts of a page have a handful of looks in common
def _mark(look: tuple[tuple[str, Any], ...], area: bool) -> Markup:
    with canvas(0.36, 0.2) as figure:
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.axis("off")
        if area:
            axis.axhspan(0.1, 0.9, **dict(look))
        else:
            axis.plot([0.05, 0.5, 0.95], [0.5] * 3, **({"markevery": [1]} | dict(look)))
        return _for_page(_svg(figure, None, text=True), "key", "")


@dataclass(frozen=True)
class Chart:
    """One drawing.

    draw: draws on empty axes, sets their labels and limits. label: describes the chart for people
    who cannot see it. notes: lines between title and axes. keys: its legend. size: of the axes, in
    inches. below: inches that `draw` uses below the axes' own labels. gap: inches to its right.
    left: inches to its left, of which only the first chart of a figure makes use.
    """

    title: str
    label: str
    draw: Callable[[Axes], None]
    notes: Sequence[str] = ()
    keys: Sequence[Key] = ()
    size: tuple[float, float] = (3.6, 3.3)
    below: float = 0.0
    gap: float = GAP
    left: float = MARGIN[0]

    @cached_property
    def svg(self) -> Markup:
        """The drawing for a page, without title, notes and legend."""

        wide, tall = self.size
        left, foot = self.left, MARGIN[1] + self.below
        width, height = left + wide + 0.15, foot + tall + 0.12
        with canvas(width, height) as figure:
            axis = figure.add_axes((left / width, foot / height, wide / width, tall / height))
            self.draw(axis)
            for axes in figure.findobj(type(axis)):
                axes.patch.set_visible(axes.get_facecolor()[:3] != (1, 1, 1))
            figure.patch.set_visible(False)
            drawn = figure.get_tightbbox().padded(0.03)
            box = Bbox.union([drawn, Bbox.from_bounds(0, 0, width, height)])
            return _for_page(_svg(figure, box, text=True), "chart", self.label)


@dataclass(frozen=True)
class Figure:
    """Charts that belong together: two files of this name, or one part of a page.

    keys: what all charts have in common. note: sentences below all of them.
    """

    name: str
    title: str
    charts: Sequence[Chart]
    keys: Sequence[Key] = field(default_factory=tuple)
    note: str = ""


@contextmanager
def canvas(width: float, height: float) -> Iterator[Canvas]:
    """Give an empty matplotlib figure of this size in inches, in the house style.

    No state of pyplot is touched. Draw and save inside the `with` block: some settings are read
    only when a figure is drawn.
    """
    with matplotlib.rc_context(RC):
        figure = Canvas(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, folder: Path) -> list[Path]:
    """Write the figure as `name`.png (150 dots an inch) and `name`.svg; the two paths."""
    with compose(figure) as drawn:
        box = drawn.get_tightbbox().padded(0.12)
        png, svg = folder / f"{figure.name}.png", folder / f"{figure.name}.svg"
        image = io.BytesIO()
        drawn.savefig(image, format="png", dpi=DPI, bbox_inches=box)
        write_atomically(png, image.getvalue())
        write_atomically(svg, _svg(drawn, box, text=False))
    return [png, svg]


@contextmanager
def compose(figure: Figure) -> Iterator[Canvas]:
    """The charts in rows below the title, each with its title, notes and legend in place."""
    charts, n = figure.charts, len(figure.charts)
    columns = n if n <= 3 else 2 if n == 4 else 3 if n in (5, 6, 9) else 4
    scale = 1.0 if n == 1 else 0.87 if n <= 3 else 0.64
    sizes = [(c.size[0] * scale, c.size[1] * scale) for c in charts]
    titles = [
        textwrap.wrap(c.title, int(TITLE_SET * wide), max_lines=2, placeholder="…")
        for c, (wide, _) in zip(charts, sizes, strict=True)
    ]
    notes = [
        [line for note in c.notes for line in textwrap.wrap(note, int(LINE_SET * wide * 1.2))]
        for c, (wide, _) in zip(charts, sizes, strict=True)
    ]
    above = max(
        0.1 + TITLE_LINE * len(title) + 1.25 * LINE * len(lines)
        for title, lines in zip(titles, notes, strict=True)
    )
    legends = [c.keys if n <= 3 else () for c in charts]
    below = MARGIN[1] + max(c.below * scale for c in charts)
    foot = below + 1.25 * LINE * max(map(len, legends)) + (0.1 if any(legends) else 0)
    wide, tall = max(size[0] for size in sizes), max(size[1] for size in sizes)
    rows = -(-n // columns)
    gaps = max(c.gap for c in charts)
    width = charts[0].left + (wide + gaps) * columns - (GAP - 0.15 if gaps == GAP else 0)
    note = textwrap.fill(figure.note, max(40, int(width * LINE_SET)))
    across = _keys_in_a_line(figure.keys, width)
    closing = 0.22 * -(-len(figure.keys) // across) if figure.keys else 0.0
    closing += LINE * (note.count("\n") + 1) + 0.1 if note else 0.0
    height = 0.35 + (above + tall + foot) * rows + closing
    with canvas(width, height) as drawn:
        for place, chart in enumerate(charts):
            row, column = divmod(place, columns)
            x = charts[0].left + (wide + gaps) * column
            y = height - 0.35 - (above + tall + foot) * row - above - tall
            size = sizes[place]
            axis = drawn.add_axes((x / width, y / height, size[0] / width, size[1] / height))
            chart.draw(axis)
            pad = 5 + 72 * 1.25 * LINE * len(notes[place])
            axis.set_title("\n".join(titles[place]), pad=pad)
            small: dict[str, Any] = {"fontsize": 8.5, "va": "bottom", "linespacing": 1.25}
            lift = 1 + 0.05 / size[1]
            axis.text(0, lift, "\n".join(notes[place]), transform=axis.transAxes, **small)
            if legends[place]:
                corner = (-0.04, -(MARGIN[1] + chart.below * scale) / size[1])
                _legend(axis, legends[place], loc="upper left", bbox_to_anchor=corner)
        left = 0.12 / width
        drawn.suptitle(
            figure.title, x=left, y=1 - 0.1 / height, ha="left", va="top", weight="bold", size=11
        )
        if figure.keys:
            corner = (0.0, (closing - 0.22 * -(-len(figure.keys) // across)) / height)
            _legend(drawn, figure.keys, loc="lower left", bbox_to_anchor=corner, ncols=across)
        if note:
            drawn.supxlabel(note, x=left, y=0.0, va="bottom", ha="left", size=8.5, color=MUTED)
        yield drawn


def _legend(parent: Axes | Canvas, keys: Sequence[Key], **place: Any) -> None:
    handles, labels = [key.handle for key in keys], [key.label for key in keys]
    parent.legend(handles, labels, handlelength=1.6, labelspacing=0.25, **place)


def _keys_in_a_line(keys: Sequence[Key], width: float) -> int:
    longest = max((len(key.label) for key in keys), default=0)
    return max(1, int(width / (longest / 12.5 + 0.7)))


def hover(artist: Artist, text: str) -> None:
    """Name an artist where a pointer rests on it; shown by pages and SVG files."""
    artist.set_gid(f"hover:{text}")


def _svg(figure: Canvas, box: Any, *, text: bool) -> str:
    """The figure as SVG; `text` keeps letters as text, else they are shapes with text comments."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none" if text else "path"}):
        figure.savefig(target, format="svg", bbox_inches=box, metadata={"Date": None})
    svg = without_controls(target.getvalue())  # which XML does not allow
    # An id that holds double quotes stands in single ones.
    return re.sub(r"""<g id=(["'])hover:(.*?)\1>""", r"<g><title>\2</title>", svg)


def _for_page(svg: str, name: str, label: str) -> Markup:
    """The element alone, in the colors and type of the page; `page` makes its ids unique."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    referenced = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", svg))
    short = {old: f"{SVG_ID}{n}" for n, old in enumerate(sorted(referenced))}
    inner = re.sub(r"<[^>]+>", lambda tag: _tag_for_page(tag[0], short), svg)
    inner = re.sub(r">\s+<", "><", inner)
    inner = re.sub(r"<defs></defs>", "", inner)
    start, _, rest = inner.partition(">")
    view = re.search(r'viewBox="([^"]*)"', start)
    assert view is not None, start
    width, height = (float(number) for number in view[1].split()[2:])
    about = Markup('role="img" aria-label="{}"').format(label) if label else 'aria-hidden="true"'
    size = f' style="--width:{width:.0f}px"' if label else ""
    return Markup(
        f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}" {about}{size}>{rest.strip()}'
    )


def _tag_for_page(tag: str, ids: Mapping[str, str]) -> str:
    """One tag with the page's colors and short numbers; ids that nothing refers to go."""
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    for form in ('href="#{}"', "url(#{})"):
        pattern = re.escape(form).replace(r"\{\}", '([^")]+)')
        tag = re.sub(pattern, lambda m, form=form: form.format(ids[m[1]]), tag)  # type: ignore[misc]
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: f"var({_VARIABLES[m[0].lower()]})", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), tag)
    tag = re.sub(
        r"; ?(font-family|stroke-linecap|stroke-linejoin|stroke-miterlimit): [^;\"]*", "", tag
    )
    tag = re.sub(r"(font): [\d.a-z ]*?([\d.]+px)[^;\"]*", r"font-size: \2", tag)
    return re.sub(r"\s*\n\s*", " ", tag)


_VARIABLES = {color.lower(): name for color, name in ON_PAGE.items()}
