"""The runs of a study as its page shows them, and their learning curves laid over one another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from fracnet.report import svg
from fracnet.words import are, counted

# Runs whose curves are drawn, and points of each: more would be a thicket, and a heavy page.
MOST_CURVES, MOST_POINTS = 60, 200
# Rows of the table of runs.
MOST_RUNS = 200
TITLES = {"val/loss": "loss on validation", "train/loss": "loss on train"}
OTHERS = "others"


@dataclass(frozen=True)
class Trial:
    """A run as its folder tells it.

    name: as on the screen. of: what trials that differ in seed or fold alone have in common.
    settings: its values of the keys that vary in the study, as the config or the command has them.
    value: its validation figure, NaN where it has none. curves: its metrics.csv. page: where its
    own page lies, seen from the study's. facts: what the page tells of it besides. data: name of
    the data set, "" where it is not known. audit: severity, verdict and note of the data's audit;
    empty where there was none, None where the folder does not tell. classes: their names, if known.
    """

    name: str
    of: str
    settings: Mapping[str, Any]
    value: float
    curves: pd.DataFrame | None = None
    selected: int | None = None
    page: str = ""
    chosen: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    audit: Mapping[str, str] | None = None
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Series:
    """How the trials of one configuration look in a chart; `look` is a class of the page."""

    name: str
    look: str
    mark: int

    @property
    def key(self) -> Markup:
        """Its mark, for a legend."""
        return svg.key(self.mark, self.look)


@dataclass(frozen=True)
class Curves:
    """Charts, the legend that they share, and what is to be said below them."""

    charts: Sequence[tuple[str, Markup]]
    legend: Sequence[Series]
    notes: Sequence[str]


def overlaid(trials: Sequence[Trial], metric: str, title: str) -> Curves:
    """Loss and, where it was followed, the figure on validation by epoch: a line a run.

    trials: the best first; those of the first configurations get colours of their own.
    metric, title: the figure's key, such as macro_auc, and its name in words.
    """
    known = [trial for trial in trials if trial.curves is not None and len(trial.curves)]
    drawn, notes = known[:MOST_CURVES], []
    names = list(dict.fromkeys(trial.of for trial in drawn))
    own = names if len(names) <= svg.SERIES else names[: svg.SERIES - 1]
    legend = [Series(name, f"s{i}", i) for i, name in enumerate(own)]
    rest = Series(OTHERS, "rest", svg.SERIES - 1)
    looks = {series.name: series for series in legend}
    wanted = {f"val/{metric}": f"{title} on validation"} | TITLES
    charts = []
    for column, words in wanted.items():
        lines = [(trial, _points(trial, column)) for trial in drawn]
        lines = [(trial, points) for trial, points in lines if points]
        if lines:
            charts.append((words, _chart(lines, words, looks, rest)))
    if charts:
        notes.append(
            "A line a run; the mark is the epoch whose checkpoint was kept. Validation has chosen "
            "it, so the figure there is optimistic."
        )
    if len(names) > len(own):
        some = counted(len(names) - len(own), "further configuration")
        notes.append(f"Grey: {some}. Colours go to the best by validation.")
        legend.append(rest)
    if len(known) > len(drawn):
        notes.append(f"Of {len(known)} runs with curves the first {len(drawn)} are drawn.")
    without = len(trials) - len(known)
    if without:
        notes.append(f"{counted(without, 'run')} {are(without)} without curves (metrics.csv).")
    return Curves(charts, legend if len(names) > 1 else [], notes)


def columns(trials: Sequence[Trial]) -> list[str]:
    """Names of the facts that one trial at least tells."""
    return list(dict.fromkeys(name for t in trials for name, told in t.facts.items() if told))


def _points(trial: Trial, column: str) -> list[tuple[float, float]]:
    """Epoch and value, no more than `MOST_POINTS` of them and always the last."""
    table = trial.curves
    if table is None or not {"epoch", column} <= set(table.columns):
        return []
    # A file that mixes training and validation rows has gaps: the last value of an epoch counts.
    values = table[["epoch", column]].replace([np.inf, -np.inf], np.nan).dropna()
    values = values.groupby("epoch", as_index=False).last()
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    kept = values.iloc[(len(values) - 1) % step :: step]
    return [(float(epoch), float(value)) for epoch, value in kept.itertuples(index=False)]


def _chart(
    lines: Sequence[tuple[Trial, Sequence[tuple[float, float]]]],
    words: str,
    looks: Mapping[str, Series],
    rest: Series,
) -> Markup:
    epochs = [x for _, points in lines for x, _ in points]
    chart = svg.Chart(_epochs(epochs), svg.linear([y for _, points in lines for _, y in points]))
    faint = " faint" if len(lines) > len(looks) else ""
    # The best last, so that it lies on top.
    for trial, points in reversed(lines):
        series = looks.get(trial.of, rest)
        name = trial.name if trial.of in trial.name else f"{trial.of}: {trial.name}"
        chart.line(points, f"{series.look}{faint}", name)
    for trial, points in reversed(lines):
        series = looks.get(trial.of, rest)
        at = dict(points).get(float(trial.selected or -1))
        if trial.selected is not None and at is not None:
            label = f"{trial.name}, epoch {trial.selected}: {at:.3f}"
            chart.dot(trial.selected, at, series.look, series.mark, label)
        elif len(points) == 1:
            chart.dot(*points[0], series.look, series.mark, f"{trial.name}: {points[0][1]:.3f}")
    return chart.drawn(f"{words} by epoch, {counted(len(lines), 'run')}")


def _epochs(values: Sequence[float]) -> svg.Axis:
    """Whole epochs alone."""
    first, last = min(values), max(values)
    step = max(1, math.ceil((last - first) / 8))
    ticks = [(float(e), str(e)) for e in range(int(first), int(last) + 1, step)]
    return svg.Axis(first, last if last > first else first + 1, "epoch", ticks)
