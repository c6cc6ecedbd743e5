"""A measurement with its limit, and paired measurements whose ratio survives a busy machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Measurement:
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
        """Whether the limit is met; None without a limit."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    def plain(self) -> dict[str, Any]:
        """The known values for the JSON file, to four significant digits."""
        numbers = ("value", "low", "high", "at_least", "at_most")
        result: dict[str, Any] = {"name": self.name, "unit": self.unit}
        for name in numbers:
            value = getattr(self, name)
            if value is not None:
                result[name] = float(f"{value:.4g}")
        return result | ({} if self.met is None else {"met": self.met})


def spread(name: str, values: Any, unit: str = "", **limit: float) -> Measurement:
    """Median and quartiles of some values, one per round."""
    low, middle, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return Measurement(name, float(middle), unit, float(low), float(high), **limit)


def interleaved(
    sides: Mapping[str, Callable[[int], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each side in each round, alternating forwards and backwards through the sides.

    sides: name -> the work of round i. One uncounted round comes first, as a warm-up.
    clock: by default the processor time of this process, so that other programs on the machine
        matter as little as possible.
    """
    result: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        order = list(sides)[:: 1 if number % 2 else -1]
        for name in order:
            start = clock()
            sides[name](max(number, 0))
            elapsed = clock() - start
            if number >= 0:
                result[name].append(elapsed)
    return result


def ratios(seconds: Mapping[str, list[float]], of: str, to: str) -> np.ndarray:
    """Time of `of` divided by time of `to` in each round, float64 [rounds]."""
    return np.array(seconds[of]) / np.array(seconds[to])
