"""A measured figure, its limit, and pairs of measurements whose ratio outlives a busy machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    low, high: quartiles over the rounds, where there were rounds. at_least, at_most: the limit.
    """

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    def plain(self) -> dict[str, Any]:
        """For the JSON: what is known, rounded to what can be believed."""
        numbers = ("value", "low", "high", "at_least", "at_most")
        found: dict[str, Any] = {"name": self.name, "unit": self.unit}
        for name in numbers:
            value = getattr(self, name)
            if value is not None:
                found[name] = float(f"{value:.4g}")
        return found | ({} if self.met is None else {"met": self.met})


def spread(name: str, values: Any, unit: str = "", **limit: float) -> Figure:
    """Median and quartiles of some values, one of each round."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return Figure(name, float(middle), unit, float(low), float(high), **limit)


def interleaved(
    sides: Mapping[str, Callable[[int], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each side in each round: round by round, all sides in turn, there and back.

    sides: name -> what is done in round i. One round goes before, uncounted, to warm up.
    clock: by default the time that this process worked, all its threads together, so that other
        programs on the machine count as little as possible.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        order = list(sides)[:: 1 if number % 2 else -1]
        for name in order:
            start = clock()
            sides[name](max(number, 0))
            taken = clock() - start
            if number >= 0:
                found[name].append(taken)
    return found


def ratios(seconds: Mapping[str, list[float]], of: str, to: str) -> np.ndarray:
    """How many times as long `of` took as `to`, in each round; float64 [rounds]."""
    return np.array(seconds[of]) / np.array(seconds[to])
