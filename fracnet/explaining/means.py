"""Means over images and their differences, with intervals that know whose images they are."""

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from fracnet import words
from fracnet.evaluation.bootstrap import bootstrap
from fracnet.evaluation.bootstrap import score as score_limits
from fracnet.evaluation.intervals import LEVEL, Interval, proportion
from fracnet.evaluation.predictions import Clusters
from fracnet.evaluation.scales import ROUNDING, spread

Figure = dict[str, Any]
"""value, low, high, method and note (why there is no low and high, where there is none)."""


def share(hits: np.ndarray, clusters: Clusters) -> Figure:
    """Share of hits, bool [n], with Wilson's interval."""
    every = np.ones(len(hits), dtype=bool)
    return _figure(float(hits.mean()), proportion(hits, every, clusters, rows="images"))


def mean(values: np.ndarray, clusters: Clusters) -> Figure:
    """Mean of float64 [n] between 0 and 1, with a score interval from a bootstrap of clusters."""
    value = float(values.mean())
    if clusters.count < 2:
        return _figure(value, Interval(None, None, "", clusters.lone))

    def means(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / weights.sum(axis=1))[:, None]

    return _figure(value, score_limits(value, bootstrap(means, clusters)[:, 0], clusters))


def difference(gaps: np.ndarray, clusters: Clusters) -> Figure:
    """Mean of paired differences float64 [n] between -1 and 1, with an interval of t by clusters.

    Its variance is that of a ratio, G / (G - 1) sum_g (sum_i (gap_i - mean) / n)^2. Where all gaps
    are equal there is none to be seen: with p, the lower limit by Wilson of a share of all, the
    share 1 - p that may be otherwise could have a gap of -1, or of 1.
    """
    value, method = float(gaps.mean()), f"t by {clusters.unit}"
    if clusters.count < 2:
        return _figure(value, Interval(None, None, method, clusters.lone))
    moves = (gaps - value) / len(gaps) * np.sqrt(clusters.count / (clusters.count - 1))
    error, freedom = spread(moves, clusters)
    if error > ROUNDING:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
        limits = max(-1.0, value - reach), min(1.0, value + reach)
        return _figure(value, Interval(*limits, method))
    every = np.ones(len(gaps), dtype=bool)
    wilson = proportion(every, every, clusters, rows="images")
    assert wilson.low is not None, wilson
    same, other = wilson.low * value, 1 - wilson.low
    return _figure(value, Interval(same - other, same + other, f"{wilson.method}, all equal"))


def told(figure: Figure) -> str:
    """`0.891 (0.839-0.927)`, or the value alone."""
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({words.limits(figure['low'], figure['high'])})"


def _figure(value: float, interval: Interval) -> Figure:
    return {"value": value} | asdict(interval)
