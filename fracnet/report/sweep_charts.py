"""What was swept against what came of it: a chart for each key, a mark for each run.

The runs of a study as its page shows them, and their learning curves laid over one another.
"""

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
from markupsafe import Markup

from fracnet.report import tables
from fracnet.utils.text import are, counted

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
        return tables.key(self.mark, self.look)


@dataclass(frozen=True)
class Curves:
    """Charts, the legend that they share, and what is to be said below them."""

    charts: Sequence[tuple[str, Markup]]
    legend: Sequence[Series]
    notes: Sequence[str]


def overlaid(trials: Sequence[Trial], metric: str, title: str) -> Curves:
    """Loss and, where it was followed, the figure on validation by epoch: a line a run.

    trials: the best first; those of the first configurations get colors of their own.
    metric, title: the figure's key, such as macro_auc, and its name in words.
    """
    known = [trial for trial in trials if trial.curves is not None and len(trial.curves)]
    drawn, notes = known[:MOST_CURVES], []
    names = list(dict.fromkeys(trial.of for trial in drawn))
    own = names if len(names) <= tables.SERIES else names[: tables.SERIES - 1]
    legend = [Series(name, f"s{i}", i) for i, name in enumerate(own)]
    rest = Series(OTHERS, "rest", tables.SERIES - 1)
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
        notes.append(f"Grey: {some}. Colors go to the best by validation.")
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
    chart = tables.Chart(
        _epochs(epochs), tables.linear([y for _, points in lines for _, y in points])
    )
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


def _epochs(values: Sequence[float]) -> tables.Axis:
    """Whole epochs alone."""
    first, last = min(values), max(values)
    step = max(1, math.ceil((last - first) / 8))
    ticks = [(float(e), str(e)) for e in range(int(first), int(last) + 1, step)]
    return tables.Axis(first, last if last > first else first + 1, "epoch", ticks)


# More values than this are no categories, and their digits would run into one another.
MOST_TICKS = 7

# Positive values that span more than this stand on a logarithmic axis.
WIDE = 9.9
MOST_CHARTS = 12
MISSING = "not given"
LONGEST = 16

# Half a mark's size, and where one goes that would hide another.
DOT, SIDES = 4.2, (0.0, -9.0, 9.0)


@dataclass(frozen=True)
class SweptKey:
    """One chart. `beside`: keys that vary in step with this one, so that none can be blamed."""

    key: str
    chart: Markup
    beside: Sequence[str]
    note: str


def swept(trials: Sequence[Trial], title: str) -> list[SweptKey]:
    """A chart for each key that varies, of the validation figure `title` of each trial.

    Keys whose values part the trials in the same way share a chart: nobody could tell their effects
    apart. No more than `MOST_CHARTS`.
    """
    known = [trial for trial in trials if math.isfinite(trial.value)]
    without = [trial for trial in trials if not math.isfinite(trial.value)]
    keys = dict.fromkeys(key for trial in known for key in trial.settings)
    together: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [_text(trial.settings.get(key)) for trial in known]
        seen = list(dict.fromkeys(values))
        if len(seen) > 1:
            together.setdefault(tuple(seen.index(value) for value in values), []).append(key)
    return [
        _one(group[0], group[1:], known, without, title)
        for group in list(together.values())[:MOST_CHARTS]
    ]


def _one(
    key: str,
    beside: Sequence[str],
    trials: Sequence[Trial],
    without: Sequence[Trial],
    title: str,
) -> SweptKey:
    values = [trial.settings.get(key) for trial in trials]
    axis, places = _axis(key, values)
    chart = tables.Chart(axis, tables.linear([trial.value for trial in trials], title))
    groups: dict[float, list[float]] = {}
    for trial, x in zip(trials, places, strict=True):
        groups.setdefault(x, []).append(trial.value)
    repeated = any(len(group) > 1 for group in groups.values())
    means = [(x, statistics.fmean(group)) for x, group in sorted(groups.items())]
    if repeated and _numbers(values) is not None:
        chart.line(means, "mean faint")
    near = 2 * DOT * (chart.y.high - chart.y.low) / chart.height
    others = [(x, trial) for trial, x in zip(trials, places, strict=True) if not trial.chosen]
    for x, group in groupby(sorted(others, key=lambda one: (one[0], one[1].value)), lambda o: o[0]):
        last, side = -math.inf, 0
        for _, trial in group:
            # Marks that would hide one another step aside, by turns.
            side = (side + 1) % 3 if trial.value - last < near else 0
            last = trial.value
            label = f"{trial.name}: {_short(trial.settings.get(key))}, {trial.value:.3f}"
            chart.dot(x, trial.value, "s0 open", 0, label, shift=SIDES[side])
    for trial, x in zip(trials, places, strict=True):
        if trial.chosen:
            chart.dot(x, trial.value, "s1", 3, f"{trial.name}, the best: {trial.value:.3f}")
    if repeated:
        for x, mean in means:
            chart.dot(x, mean, "mean", tables.BAR, f"mean of {len(groups[x])}: {mean:.3f}")
    words = f"{title} against {key}, {counted(len(trials), 'run')}"
    notes = (_note(means, groups, repeated, axis), _missing(key, without))
    return SweptKey(key, chart.drawn(words), beside, " ".join(filter(None, notes)))


def _missing(key: str, without: Sequence[Trial]) -> str:
    """How many runs have no figure to draw, and at which values of the key."""
    if not without:
        return ""
    counts = Counter(_short(trial.settings.get(key)) for trial in without)
    told = [f"{value} ({n})" for value, n in counts.most_common(MOST_TICKS)]
    more = [f"{len(counts) - len(told)} more values"] if len(counts) > len(told) else []
    what = counted(len(without), "run")
    return f"Not drawn: {what} without a figure, at {', '.join([*told, *more])}."


def _note(
    means: Sequence[tuple[float, float]],
    groups: Mapping[float, Sequence[float]],
    repeated: bool,
    axis: tables.Axis,
) -> str:
    """The means by value, where there are few: a chart read out."""
    if not repeated or len(means) > MOST_TICKS:
        return ""
    names = dict(axis.ticks)
    if not all(x in names for x, _ in means):
        return ""
    told = [f"{names[x]}: {mean:.3f} ({len(groups[x])})" for x, mean in means]
    return f"Means (runs): {'; '.join(told)}."


def _axis(key: str, values: Sequence[Any]) -> tuple[tables.Axis, list[float]]:
    """The axis for a key's values, and the place of each value on it."""
    numbers = _numbers(values)
    if numbers is None:
        # Two lists may look the same in short, and are two values all the same.
        names = {_text(value): _short(value) for value in values}
        ticks = [(float(i), name) for i, name in enumerate(names.values())]
        places = [float(list(names).index(_text(value))) for value in values]
        return tables.Axis(-0.5, len(names) - 0.5, key, ticks), places
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= WIDE
    known = dict(zip(numbers, (_short(value) for value in values), strict=True))
    if len(known) <= MOST_TICKS:
        ticks = sorted(known.items())
    elif log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [(10.0**p, f"{10.0**p:g}") for p in powers if low <= 10.0**p <= high]
    else:
        ticks = [
            (value, words) for value, words in tables.linear(numbers).ticks if low <= value <= high
        ]
    if log:
        room = (high / low) ** 0.06
        return tables.Axis(low / room, high * room, f"{key}, logarithmic", ticks, log=True), numbers
    room = 0.06 * (high - low)
    return tables.Axis(low - room, high + room, key, ticks), numbers


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """All of them as numbers, or None: from a command line they come as text."""
    found = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        if not math.isfinite(number):
            return None
        found.append(number)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    """A value as a label: of a dotted path the end, of a list its length."""
    if value is None:
        return MISSING
    if isinstance(value, list):
        return f"[{len(value)}]"
    words = value if isinstance(value, str) else f"{value:g}" if _real(value) else _text(value)
    if _numbers([words]) is None and "." in words and " " not in words:
        words = words.rpartition(".")[2]
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def _real(value: Any) -> bool:
    return isinstance(value, float)
