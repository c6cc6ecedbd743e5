"""One look for every figure: sizes, and colours that the colour-blind can tell apart."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design"; without its yellow, too faint for lines on white.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
# Light to dark along one hue: reads the same in grey.
RAMP = ("#FFFFFF", SKY, BLUE, "#003A61")
INK, MUTED, GRID, EMPTY = "#222222", "#6B6B6B", "#E4E4E4", "#F1F1F1"
DPI = 150
# Characters of small type to an inch, and inches to a line of it.
LINE_SET, LINE = 13.5, 0.155

# Any: matplotlib's type for the keys differs from release to release.
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    # A dollar sign in a class name is a dollar sign, not mathematics.
    "text.parse_math": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # The same figure gives the same file: names inside an SVG are random otherwise.
    "svg.hashsalt": "fracnet",
}


@contextmanager
def canvas(width: float, height: float, *, placed: bool = False) -> Iterator["Figure"]:
    """Give an empty figure of this size in inches, in the house style; no pyplot state is touched.

    Its axes make room for one another, unless they are to be `placed` one by one.

    Draw and `save` inside the `with` block: some settings are read only when a figure is drawn.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height), layout=None if placed else "constrained")
        FigureCanvasAgg(figure)
        yield figure


def heading(figure: "Figure", text: str) -> None:
    """A bold title over all panels, in the upper left corner."""
    place = {} if figure.get_layout_engine() else {"y": 1 - 0.1 / figure.get_figheight()}
    x = 0.12 / figure.get_figwidth()
    figure.suptitle(text, x=x, **place, ha="left", va="top", weight="bold", fontsize=11)


def footnote(figure: "Figure", text: str) -> None:
    """Sentences in small type below all panels, wrapped to the figure's width."""
    wrapped = textwrap.fill(text, int(figure.get_figwidth() * LINE_SET))
    place = {} if figure.get_layout_engine() else {"y": 0.0}
    x = 0.12 / figure.get_figwidth()
    figure.supxlabel(wrapped, x=x, **place, va="bottom", ha="left", fontsize=8.5, color=MUTED)


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write `name`.png (150 dots an inch) and `name`.svg into the folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    if figure.get_layout_engine() is not None:
        # Laid out here, once for both files; twice, since the first layout guesses some sizes.
        figure.draw_without_rendering()
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(0.12)
    for path in paths:
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=DPI, bbox_inches=box, metadata=undated)
    return paths


def ink_on(colour: tuple[float, float, float]) -> str:
    """`INK` or white, whichever contrasts more with this colour (RGB in 0..1), as WCAG counts."""
    from matplotlib.colors import to_rgb

    dark, ground = _luminance(to_rgb(INK)), _luminance(colour)
    return "white" if 1.05 / (ground + 0.05) > (ground + 0.05) / (dark + 0.05) else INK


def _luminance(colour: tuple[float, float, float]) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
