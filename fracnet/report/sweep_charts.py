"""The charts of a sweep or comparison: varied keys against a metric, and learning curves."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from fracnet.report.plots import (
    BLUE,
    INK,
    MUTED,
    SERIES,
    VERMILION,
    WHITE,
    Chart,
    Figure,
    Key,
    Look,
    hover,
)
from fracnet.utils.text import are, counted

# Runs whose curves are drawn, and points of each: more would be a thicket, and a heavy page.
MOST_CURVES, MOST_POINTS = 60, 200

MOST_RUNS = 200  # rows of the table of runs
MOST_CHARTS = 12  # varied keys that are drawn
MOST_TICKS = 7  # more values are no categories, and their labels would run into one another
WIDE_RATIO = 9.9  # positive values that span more stand on a logarithmic axis
LONGEST = 16  # characters of a value on an axis
NOT_SET = "not set"
OTHERS = "others"
TITLES = {"val/loss": "loss on validation", "train/loss": "loss on train"}
SIZE = (3.9, 2.7)  # inches
SIDES = (0.0, -9.0, 9.0)  # points by which marks that would hide one another step aside


@dataclass(frozen=True)
class Trial:
    """A run of a sweep or comparison, from its folder.

    name: as shown. of: the configuration that runs with other seeds or folds share.
    settings: its values of the keys that vary, as the config or the command has them.
    value: its validation metric, NaN where it has none. curves: its metrics.csv. page: address of
    its own page, relative to this one. facts: further facts for the table of runs. data: name of
    the dataset, "" where it is not known. audit: severity, verdict and note of the data's audit;
    empty where there was none, None where the folder does not say. classes: names, if known.
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
class Curves:
    """Learning curves of all runs, and the notes below them."""

    figure: Figure
    notes: Sequence[str]


def learning_curves(trials: Sequence[Trial], metric: str, title: str) -> Curves:
    """Losses and, where it was logged, the validation metric by epoch: one line per run.

    trials: the best first; those of the first configurations get colors of their own.
    metric, title: the metric's key, such as macro_auc, and its name in words.
    """
    known = [trial for trial in trials if trial.curves is not None and len(trial.curves)]
    shown, notes = known[:MOST_CURVES], []
    names = list(dict.fromkeys(trial.of for trial in shown))
    own = names if len(names) <= len(SERIES) else names[: len(SERIES) - 1]
    looks = {
        name: {"color": color, "marker": marker}
        for name, (color, marker) in zip(own, SERIES, strict=False)
    }
    rest = {"color": MUTED, "marker": SERIES[-1][1]}
    columns = {f"val/{metric}": f"{title} on validation"} | TITLES
    charts = []
    for column, text in columns.items():
        lines = [(trial, _points(trial, column)) for trial in shown]
        lines = [(trial, points) for trial, points in lines if points]
        if lines:
            charts.append(_learning_chart(lines, text, looks, rest))
    if charts:
        notes.append(
            "Each line is one run; the mark is the epoch of its selected checkpoint. Validation "
            "chose it, so the metric there is optimistic."
        )
    keys = [Key(look, name) for name, look in looks.items()]
    if len(names) > len(own):
        some = counted(len(names) - len(own), "further configuration")
        notes.append(f"Grey: {some}. Colors go to the best by validation.")
        keys.append(Key(rest, OTHERS))
    if len(known) > len(shown):
        notes.append(f"Of {len(known)} runs with curves the first {len(shown)} are drawn.")
    without = len(trials) - len(known)
    if without:
        notes.append(f"{counted(without, 'run')} {are(without)} without curves (metrics.csv).")
    figure = Figure("curves", "Learning curves", charts, keys if len(names) > 1 else [])
    return Curves(figure, notes)


def _points(trial: Trial, column: str) -> list[tuple[float, float]]:
    """Epoch and value, no more than `MOST_POINTS` of them and always the last."""
    table = trial.curves
    if table is None or not {"epoch", column} <= set(table.columns):
        return []
    # A file that mixes training and validation rows has gaps: the last value of an epoch counts.
    values = table[["epoch", column]].replace([np.inf, -np.inf], np.nan).dropna()
    values = values.groupby("epoch", as_index=False).last()
    step = max(1, math.ceil(len(values) / MOST_POINTS))
    thinned = values.iloc[(len(values) - 1) % step :: step]
    return [(float(epoch), float(value)) for epoch, value in thinned.itertuples(index=False)]


def _learning_chart(
    lines: Sequence[tuple[Trial, Sequence[tuple[float, float]]]],
    title: str,
    looks: Mapping[str, Look],
    rest: Look,
) -> Chart:
    alpha = 0.45 if len(lines) > len(looks) else 1.0

    def draw(axis: Axes) -> None:

        # The best last, so that it lies on top.
        for trial, points in reversed(lines):
            look = looks.get(trial.of, rest)
            name = trial.name if trial.of in trial.name else f"{trial.of}: {trial.name}"
            (line,) = axis.plot(*zip(*points, strict=True), color=look["color"], alpha=alpha)
            hover(line, name)
            at = [point for point in points if point[0] == trial.selected]
            label = f"{trial.name}, epoch {trial.selected}"
            if not at and len(points) == 1:
                at, label = list(points), trial.name
            for epoch, value in at:
                mark(axis, epoch, value, f"{label}: {value:.3f}", **look, markersize=6.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlabel("epoch")

    label = f"{title} by epoch, {counted(len(lines), 'run')}"
    return Chart(f"{title[0].upper()}{title[1:]}", label, draw, (), (), SIZE)


def front_chart(points: Sequence[tuple[str, float, float, bool]], titles: Sequence[str]) -> Chart:
    """Jobs by two objectives: name, both values, and whether it is on the Pareto front."""

    def draw(axis: Axes) -> None:
        for name, x, y, on_front in points:
            look: Look = {"color": BLUE, "marker": "o", "alpha": 0.55}
            if on_front:
                look = {"color": VERMILION, "marker": "D", "alpha": 1}
            mark(axis, x, y, f"{name}: {x:.3f}, {y:.3f}", **look)
        front = sorted((x, y) for _, x, y, on_front in points if on_front)
        if len(front) > 1:
            axis.plot(*zip(*front, strict=True), color=VERMILION, linewidth=1.2, alpha=0.6)
        axis.update_datalim([(x, y) for _, x, y, _ in points])
        axis.margins(0.08)
        axis.autoscale_view()
        axis.set(xlabel=titles[0], ylabel=titles[1])

    label = f"{titles[1]} against {titles[0]}, {counted(len(points), 'job')}"
    return Chart(f"{titles[0]} and {titles[1]}", label, draw, (), (), SIZE)


def swept_keys(trials: Sequence[Trial], title: str) -> Figure:
    """A chart for each key that varies, of the validation metric `title` of each trial.

    Keys whose values divide the trials in the same way share a chart: nobody could separate their
    effects apart. No more than `MOST_CHARTS`.
    """
    known = [trial for trial in trials if math.isfinite(trial.value)]
    without = [trial for trial in trials if not math.isfinite(trial.value)]
    keys = dict.fromkeys(key for trial in known for key in trial.settings)
    groups: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [_text(trial.settings.get(key)) for trial in known]
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            groups.setdefault(tuple(distinct.index(value) for value in values), []).append(key)
    charts = [
        _key_chart(group[0], group[1:], known, without, title)
        for group in list(groups.values())[:MOST_CHARTS]
    ]
    return Figure("swept", f"{title} by key", charts)


@dataclass(frozen=True)
class _KeyAxis:
    """Where the values of a key lie, and the labels of its ticks."""

    title: str
    places: Sequence[float]
    ticks: Mapping[float, str] | None
    log: bool = False


def _key_chart(
    key: str,
    tied: Sequence[str],
    trials: Sequence[Trial],
    without: Sequence[Trial],
    title: str,
) -> Chart:
    values = [trial.settings.get(key) for trial in trials]
    named, *others = (each.removesuffix("._target_") for each in (key, *tied))
    along = _key_axis(named, values)
    groups: dict[float, list[float]] = {}
    for trial, x in zip(trials, along.places, strict=True):
        groups.setdefault(x, []).append(trial.value)
    repeated = any(len(group) > 1 for group in groups.values())
    means = [(x, statistics.fmean(group)) for x, group in sorted(groups.items())]

    def draw(axis: Axes) -> None:
        if along.log:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.update_datalim(list(zip(along.places, (t.value for t in trials), strict=True)))
        axis.margins(0.1)
        axis.autoscale_view()
        if repeated and _numbers(values) is not None:
            axis.plot(*zip(*means, strict=True), color=INK, linewidth=1.2, alpha=0.45)
        for trial, x, side in _aside(trials, along.places):
            label = f"{trial.name}: {_short(trial.settings.get(key))}, {trial.value:.3f}"
            mark(axis, x, trial.value, label, side, color=BLUE, marker="o", alpha=0.55)
        for trial, x in zip(trials, along.places, strict=True):
            if trial.chosen:
                label = f"{trial.name}, the best: {trial.value:.3f}"
                mark(axis, x, trial.value, label, color=VERMILION, marker="D")
        for x, mean in means if repeated else ():
            label = f"mean of {len(groups[x])}: {mean:.3f}"
            look: Look = {"color": INK, "markeredgecolor": INK, "markersize": 14, "mew": 2.2}
            mark(axis, x, mean, label, marker="_", **look)
        if along.ticks is not None:
            axis.set_xticks(list(along.ticks), list(along.ticks.values()))
            axis.minorticks_off()
        axis.set(xlabel=along.title, ylabel=title)

    notes = [_means_note(means, groups, repeated, along), _without_note(key, without)]
    if others:
        notes.append(
            f"Varies together with {', '.join(others)}, so their effects cannot be separated."
        )
    label = f"{title} against {named}, {counted(len(trials), 'run')}"
    return Chart(named, label, draw, [note for note in notes if note], (), SIZE)


def _aside(trials: Sequence[Trial], places: Sequence[float]) -> list[tuple[Trial, float, float]]:
    """The trials that are not chosen; overlapping marks are shifted, alternately to either side."""
    values = [trial.value for trial in trials]
    near = 0.045 * (max(values) - min(values))
    others = [(x, trial) for trial, x in zip(trials, places, strict=True) if not trial.chosen]
    marks = []
    order = sorted(others, key=lambda pair: (pair[0], pair[1].value))
    for x, group in groupby(order, lambda pair: pair[0]):
        last, side = -math.inf, 0
        for _, trial in group:
            side = (side + 1) % 3 if trial.value - last <= near else 0
            last = trial.value
            marks.append((trial, x, SIDES[side]))
    return marks


def mark(axis: Axes, x: float, y: float, label: str, side: float = 0.0, **look: Any) -> None:
    """One mark, `side` points to the right of its place, with a label under the pointer."""
    style: dict[str, Any] = {
        "linestyle": "",
        "markersize": 7,
        "markeredgecolor": WHITE,
        "zorder": 3,
    }
    if side:
        inches = axis.figure.dpi_scale_trans
        style["transform"] = axis.transData + ScaledTranslation(side / 72, 0, inches)
    (drawn,) = axis.plot([x], [y], **style | look)
    hover(drawn, label)


def _without_note(key: str, without: Sequence[Trial]) -> str:
    """How many runs have no metric to draw, and at which values of the key."""
    if not without:
        return ""
    counts = Counter(_short(trial.settings.get(key)) for trial in without)
    values = [f"{value} ({n})" for value, n in counts.most_common(MOST_TICKS)]
    more = [f"{len(counts) - len(values)} more values"] if len(counts) > len(values) else []
    runs = counted(len(without), "run")
    return f"Not drawn: {runs} without a metric, at {', '.join([*values, *more])}."


def _means_note(
    means: Sequence[tuple[float, float]],
    groups: Mapping[float, Sequence[float]],
    repeated: bool,
    along: _KeyAxis,
) -> str:
    """The means by value, where there are few: the chart in words."""
    ticks = along.ticks or {}
    if not repeated or len(means) > MOST_TICKS or not all(x in ticks for x, _ in means):
        return ""
    values = [f"{ticks[x]}: {mean:.3f} ({len(groups[x])})" for x, mean in means]
    return f"Means (runs): {'; '.join(values)}."


def _key_axis(key: str, values: Sequence[Any]) -> _KeyAxis:
    numbers = _numbers(values)
    if numbers is None:
        # Two lists may look the same in short, and are two values all the same.
        names = {_text(value): _short(value) for value in values}
        places = [float(list(names).index(_text(value))) for value in values]
        return _KeyAxis(key, places, dict(enumerate(names.values())))
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= WIDE_RATIO
    labels = dict(zip(numbers, map(_short, values), strict=True))
    ticks = labels if len(labels) <= MOST_TICKS else None
    return _KeyAxis(f"{key}, logarithmic" if log else key, numbers, ticks, log)


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """All of them as numbers, or None: from a command line they come as text."""
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        if not math.isfinite(number):
            return None
        numbers.append(number)
    return numbers


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    """A value as a label: of a dotted path the end, of a list its length."""
    if value is None:
        return NOT_SET
    if isinstance(value, list):
        return f"[{len(value)}]"
    text = value if isinstance(value, str) else _text(value)
    if isinstance(value, float):
        text = f"{value:g}"
    if _numbers([text]) is None and "." in text and " " not in text:
        text = text.rpartition(".")[2]
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
