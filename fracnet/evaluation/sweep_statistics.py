"""Statistics over the jobs of a sweep: means over seeds, the Pareto front, importance of keys."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from sklearn.tree import DecisionTreeRegressor

from fracnet.metrics.intervals import LEVEL

MIN_JOBS = 8
"""With fewer, the importance of keys is not estimated."""
TREES = 300
MISSING = -1.0
"""Stands for a key that a job does not have, below all others (which are ranks)."""


@dataclass(frozen=True)
class Importance:
    """Share of the variance between jobs that a forest loses without `key`, with its interval.

    low, high: None where all jobs have the same metric.
    """

    key: str
    value: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % interval of the mean of equally distributed values, by Student's t; None below two."""
    if len(values) < 2 or np.ptp(values) == 0:
        return None, None
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * scipy.stats.sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def pareto_front(values: np.ndarray) -> list[int]:
    """Rows of float64 [N, M] that no other row beats; larger is better in each column.

    A row is beaten by one that is nowhere worse and somewhere better. Rows with NaN are left out.
    """
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    return [
        int(i)
        for i in known
        if not any((values[k] >= values[i]).all() and (values[k] > values[i]).any() for k in known)
    ]


def key_importance(
    settings: Mapping[str, Sequence[str | None]], metric: Sequence[float], seed: int = 0
) -> list[Importance]:
    """How much of the differences between N jobs each key explains, the most important first.

    Each of many regression trees is grown on a resample of the jobs, and predicts those outside of
    it once as they are and once with the key's values shuffled. The importance is the mean growth
    of the squared error, as a share of the metric's variance: about 0, or below, for a key without
    effect. Its 95 % interval is by Student's t over the jobs.

    Args:
        settings: N values of each key; None where a job does not have it.
        metric: of the N jobs.
        seed: of resamples and shuffles.
    """
    y = np.asarray(metric, dtype=np.float64)
    n, keys = len(y), list(settings)
    if n < MIN_JOBS or not keys or np.ptp(y) == 0:
        return []
    x = np.column_stack([_ranks(settings[key]) for key in keys])
    rng = np.random.default_rng(seed)
    growth, count = np.zeros((n, len(keys))), np.zeros(n)
    for _ in range(TREES):
        inside = rng.integers(0, n, n)
        outside = np.setdiff1d(np.arange(n), inside)
        if not len(outside):
            continue
        tree = DecisionTreeRegressor(max_features=0.67, random_state=int(rng.integers(2**31)))
        tree.fit(x[inside], y[inside])
        # One table of all shuffles: a call of the tree costs more than its rows.
        shuffled = np.repeat(x[None, outside], len(keys) + 1, axis=0)
        for k in range(len(keys)):
            shuffled[k, :, k] = x[rng.permutation(n)[: len(outside)], k]
        predicted = tree.predict(shuffled.reshape(-1, len(keys))).reshape(len(keys) + 1, -1)
        errors = (predicted - y[outside]) ** 2
        growth[outside] += (errors[:-1] - errors[-1]).T
        count[outside] += 1
    shares = growth / np.maximum(count, 1)[:, None] / y.var()
    found = [
        Importance(key, float(shares[:, k].mean()), *mean_interval(list(shares[:, k])))
        for k, key in enumerate(keys)
    ]
    return sorted(found, key=lambda importance: -importance.value)


def _ranks(values: Sequence[str | None]) -> np.ndarray:
    """Values as float64 [N]: numbers by size, words by their first appearance."""
    numbers = {value: _number(value) for value in values if value is not None}
    if all(not math.isnan(number) for number in numbers.values()):
        order = sorted(numbers, key=lambda value: numbers[value])
    else:
        order = list(numbers)
    places = {value: float(place) for place, value in enumerate(order)}
    return np.array([MISSING if value is None else places[value] for value in values])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
