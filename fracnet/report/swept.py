"""What was swept against what came of it: a chart for each key, a mark for each run."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from fracnet.report import svg
from fracnet.report.trials import Trial
from fracnet.words import counted

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
    chart = svg.Chart(axis, svg.linear([trial.value for trial in trials], title))
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
            chart.dot(x, mean, "mean", svg.BAR, f"mean of {len(groups[x])}: {mean:.3f}")
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
    axis: svg.Axis,
) -> str:
    """The means by value, where there are few: a chart read out."""
    if not repeated or len(means) > MOST_TICKS:
        return ""
    names = dict(axis.ticks)
    if not all(x in names for x, _ in means):
        return ""
    told = [f"{names[x]}: {mean:.3f} ({len(groups[x])})" for x, mean in means]
    return f"Means (runs): {'; '.join(told)}."


def _axis(key: str, values: Sequence[Any]) -> tuple[svg.Axis, list[float]]:
    """The axis for a key's values, and the place of each value on it."""
    numbers = _numbers(values)
    if numbers is None:
        # Two lists may look the same in short, and are two values all the same.
        names = {_text(value): _short(value) for value in values}
        ticks = [(float(i), name) for i, name in enumerate(names.values())]
        places = [float(list(names).index(_text(value))) for value in values]
        return svg.Axis(-0.5, len(names) - 0.5, key, ticks), places
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
            (value, words) for value, words in svg.linear(numbers).ticks if low <= value <= high
        ]
    if log:
        room = (high / low) ** 0.06
        return svg.Axis(low / room, high * room, f"{key}, logarithmic", ticks, log=True), numbers
    room = 0.06 * (high - low)
    return svg.Axis(low - room, high + room, key, ticks), numbers


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
