"""Reliability diagrams: what was predicted against what came true, before and after tempering."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fracnet.evaluation.calibration_error import (
    ESTIMATOR,
    calibration_error,
    calibration_interval,
)
from fracnet.evaluation.predictions import (
    Clusters,
    classes_of,
    clusters_of,
    probabilities,
    targets,
)
from fracnet.evaluation.reliability import Reliability, outcome, reliability
from fracnet.evaluation.temperature import calibrated
from fracnet.report import style
from fracnet.report.figures.panels import counted
from fracnet.words import limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of equal width: the strip below a diagram shows where the probabilities lie.
STRIP = np.linspace(0, 1, 26)
# Inches: of a diagram, left of the first, and between two.
SIDE, LEFT, GAP = 3.1, 0.75, 0.4


def reliability_figure(
    table: pd.DataFrame, temperature: float | None, folder: Path, name: str
) -> list[Path]:
    """Draw the diagram into `name`.png and .svg; their paths.

    Args:
        table: predictions of one split as they are.
        temperature: by which logits are divided for a second diagram; with None or 1 there is none.
        folder: where to.
        name: of the files.
    """
    shown = {"probabilities as they are": probabilities(table)}
    if temperature is not None and temperature != 1:
        shown = {
            "before calibration": probabilities(table),
            f"after (temperature {temperature:.3g})": probabilities(calibrated(table, temperature)),
        }
    target, clusters = targets(table), clusters_of(table)
    classes = classes_of(table)
    binary = len(classes) == 2
    width = LEFT + (SIDE + GAP) * len(shown)
    drawn = [reliability(*outcome(target, values), clusters) for values in shown.values()]
    note = _note(drawn, len(table), clusters)
    foot = 0.65 + style.LINE * (1 + len(note) / (style.LINE_SET * width))
    height = foot + 0.75 + 0.22 + SIDE + 0.8
    with style.canvas(width, height, placed=True) as figure:
        pairs = []
        for column, (title, values) in enumerate(shown.items()):
            x = (LEFT + (SIDE + GAP) * column) / width
            above = figure.add_axes((x, (foot + 0.97) / height, SIDE / width, SIDE / height))
            below = figure.add_axes((x, foot / height, SIDE / width, 0.75 / height))
            score, _ = outcome(target, values)
            _diagram(above, below, score, drawn[column])
            above.set_title(title, pad=21)
            line: dict[str, Any] = {"transform": above.transAxes, "fontsize": 8.5}
            above.text(0, 1.02, _error(target, values, clusters), **line)
            for axis in (above, below):
                axis.tick_params(labelleft=column == 0, labelbottom=axis is below)
            pairs.append((above, below))
        most = max(below.get_ylim()[1] for _, below in pairs)
        positive = textwrap.shorten(classes[1], 24, placeholder="…")
        pairs[0][0].set_ylabel(f"share that is {positive}" if binary else "share that is right")
        pairs[0][1].set_ylabel("images")
        about = f"predicted probability of {positive}"
        said = about if binary else "probability of the class named"
        for _, below in pairs:
            below.set_ylim(0, most)
            below.set_xlabel(said)
        style.heading(figure, f"Reliability: {table['split'].iloc[0]} split")
        style.footnote(figure, note)
        return style.save(figure, folder, name)


def _error(target: np.ndarray, values: np.ndarray, clusters: Clusters) -> str:
    """The figure of the tables. It is of the class named, also where another one is drawn."""
    error = calibration_error(target, values, clusters)
    if np.isnan(error):
        return "top-label calibration error n/a"
    found = calibration_interval(target, values, clusters)
    interval = "no interval"
    if found.low is not None and found.high is not None:
        interval = limits(found.low, found.high)
    return f"top-label calibration error {error:.3f} ({interval})"


def _note(drawn: Sequence[Reliability], n: int, clusters: Clusters) -> str:
    sizes = np.concatenate([bins.n for bins in drawn])
    few, many = int(sizes.min()), int(sizes.max())
    held = counted(many, "image") if few == many else f"{few} to {many} images"
    return (
        f"Points: bins of {held}, 95 % intervals by {clusters.unit}. Below: where the "
        f"probabilities of {counted(n, 'image')} lie. Calibration error: {ESTIMATOR}."
    )


def _diagram(above: "Axes", below: "Axes", score: np.ndarray, bins: Reliability) -> None:
    """The diagram, and the strip that shows where the scores lie."""
    from matplotlib.ticker import MaxNLocator

    above.plot([0, 1], [0, 1], color=style.MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
    known = ~np.isnan(bins.low)
    above.vlines(bins.score[known], bins.low[known], bins.high[known], style.BLUE, linewidth=1.4)
    above.plot(bins.score, bins.share, color=style.BLUE, marker="o", linewidth=0.9, clip_on=False)
    ticks = np.linspace(0, 1, 6)
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)
    below.set(xlim=(-0.02, 1.02), xticks=ticks)
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    below.hist(score, bins=list(STRIP), color=style.SKY)
