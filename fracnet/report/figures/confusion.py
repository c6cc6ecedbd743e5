"""The confusion matrix of one split: counts, and shares of each row as colour."""

import textwrap
from pathlib import Path

import numpy as np

from fracnet.evaluation.summary import Summary
from fracnet.report import style
from fracnet.report.figures.panels import counted

# Characters of a class name in a line, and of one shortened to a single slanted line.
NAME_WIDTH, SLANTED_WIDTH = 18, 26


def confusion_matrix(summary: Summary, folder: Path, *, level: str = "image") -> list[Path]:
    """Draw counts and row shares into confusion_matrix_<split>.png and .svg.

    At another `level` than the image its name follows that of the split.

    Colour is the share of a row, so that classes of any size compare; the diagonal then is the
    sensitivity. The row of a class without cases stays grey.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.array(summary.confusion, dtype=np.int64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    names = [_lines(name, NAME_WIDTH, 3) for name in summary.classes]
    size = len(names)
    ramp = LinearSegmentedColormap.from_list("share", style.RAMP)
    colours = ramp.with_extremes(bad=style.EMPTY)
    cell = 0.74 if size > 3 else 1.1
    with style.canvas(cell * size + 2.6, cell * size + 1.7) as figure:
        axis = figure.subplots()
        image = axis.imshow(share, cmap=colours, vmin=0, vmax=1)
        # White gaps between the cells, without ticks of their own.
        axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axis.grid(False)
        axis.grid(which="minor", color="white", linewidth=2)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
        for row, column in np.ndindex(size, size):
            count, part = counts[row, column], share[row, column]
            ink = style.ink_on(colours(part)[:3])
            if count == 0:
                axis.text(column, row, "0", ha="center", va="center", color=style.MUTED, fontsize=9)
                continue
            axis.text(
                column, row - 0.02, f"{count}", ha="center", va="bottom", color=ink, weight="bold"
            )
            axis.text(
                column, row + 0.06, f"{part:.0%}", ha="center", va="top", color=ink, fontsize=8
            )
        if size <= 3:
            axis.set_xticks(range(size), names)
        else:
            axis.set_xticks(
                range(size), [_lines(name, SLANTED_WIDTH, 1) for name in summary.classes]
            )
            for label in axis.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(
            range(size), [f"{n}  (n={t})" for n, t in zip(names, total[:, 0], strict=True)]
        )
        axis.set_xlabel("predicted")
        axis.set_ylabel("truth")
        axis.set_title(f"{summary.split} split, {counted(summary.n, level)}")
        bar = figure.colorbar(image, ax=axis, shrink=0.6, aspect=18, format="{x:.0%}")
        bar.set_label("share of the row")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        name = "_".join(["confusion_matrix", summary.split] + [level] * (level != "image"))
        return style.save(figure, folder, name)


def _lines(name: str, width: int, most: int) -> str:
    return textwrap.fill(name, width, max_lines=most, placeholder="…")
