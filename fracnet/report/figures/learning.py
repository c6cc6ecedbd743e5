"""Learning curves of one run: loss and validation rates by epoch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fracnet.errors import UserError
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
