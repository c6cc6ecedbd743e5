"""Pictures of one run: learning curves and the confusion matrix, as PNG and SVG."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation.summary import Summary
from fracnet.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = {
    "train/loss": ("train", style.BLUE, "o"),
    "val/loss": ("validation", style.VERMILION, "s"),
}
RATES = {
    "val/accuracy": ("accuracy", style.BLUE, "o"),
    "val/macro_sensitivity": ("macro sensitivity", style.VERMILION, "s"),
    "val/macro_specificity": ("macro specificity", style.GREEN, "^"),
    "val/macro_auc": ("macro AUC", style.PURPLE, "D"),
}
# With more epochs than this, markers run into one another.
MARKED = 40
# Characters of a class name in a line, and of one shortened to a single slanted line.
NAME_WIDTH, SLANTED_WIDTH = 18, 26


def curves(metrics_csv: Path, folder: Path, *, selected: int | None = None) -> list[Path]:
    """Draw loss and validation rates by epoch from a run's metrics.csv, into curves.png and .svg.

    `selected` is the epoch whose checkpoint was kept. Columns that are missing or empty are left
    out; `UserError` if there is no epoch, or nothing to draw.
    """
    table = pd.read_csv(metrics_csv)
    if "epoch" not in table:
        columns = ", ".join(map(str, table.columns))
        raise UserError(f"{metrics_csv} has no column 'epoch', only: {columns}.")
    # A file that mixes training and validation rows has gaps: the last value of an epoch counts.
    wanted = [name for name in (*LOSSES, *RATES) if name in table]
    values = table[["epoch", *wanted]].replace([np.inf, -np.inf], np.nan)
    values = values.groupby("epoch").last().dropna(axis=1, how="all")
    panels = [
        (title, {name: look for name, look in lines.items() if name in values})
        for title, lines in (("Loss", LOSSES), ("Validation", RATES))
    ]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        allowed = ", ".join((*LOSSES, *RATES))
        raise UserError(f"{metrics_csv} has no values to draw; wanted any column of: {allowed}.")
    with style.canvas(4.6 * len(panels), 4.0) as figure:
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        for axis, (title, lines) in zip(axes, panels, strict=True):
            for name, (label, colour, marker) in lines.items():
                shown = values[name].dropna()
                mark = marker if len(values) <= MARKED else None
                axis.plot(shown.index, shown, color=colour, marker=mark, label=label, clip_on=False)
            axis.set_title(title)
            _epochs(axis, values.index.to_numpy(), selected)
            axis.set_ylim(0, None if title == "Loss" else 1)
            # Below the axes, where no curve can run through it.
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return style.save(figure, folder, "curves")


def _epochs(axis: "Axes", epochs: np.ndarray, selected: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    # One epoch alone would give an axis of no width.
    reach = max(0.5, 0.02 * float(np.ptp(epochs)))
    axis.set_xlim(epochs.min() - reach, epochs.max() + reach)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if selected is not None:
        label = f"selected (epoch {selected})"
        axis.axvline(
            selected, label=label, color=style.MUTED, linewidth=1.2, linestyle="--", zorder=1.5
        )


def confusion_matrix(summary: Summary, folder: Path) -> list[Path]:
    """Draw counts and row shares into confusion_matrix_<split>.png and .svg.

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
        axis.set_title(f"{summary.split} split, {summary.n} images")
        bar = figure.colorbar(image, ax=axis, shrink=0.6, aspect=18, format="{x:.0%}")
        bar.set_label("share of the row")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        return style.save(figure, folder, f"confusion_matrix_{summary.split}")


def _lines(name: str, width: int, most: int) -> str:
    return textwrap.fill(name, width, max_lines=most, placeholder="…")
