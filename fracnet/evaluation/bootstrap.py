"""Resampling of whole clusters, for metrics whose interval has no closed form that holds."""

from collections.abc import Callable

import numpy as np

from fracnet.evaluation.intervals import LEVEL, Interval
from fracnet.evaluation.predictions import Clusters
from fracnet.evaluation.scales import score_interval

RESAMPLES = 2000
# Above this share of resamples in which the metric is undefined, there is no honest interval.
MAX_UNDEFINED = 0.05
# Resamples held in memory at once: keeps the weights of a few thousand rows in the CPU's cache.
CHUNK = 100


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Clusters,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Values of `statistic` in resamples of whole clusters, float64[resamples, K].

    `statistic` gets weights float64[B, N], how often each row was drawn, and returns [B, K] (the
    functions of `metrics` take such weights). Each resample draws `clusters.count` clusters with
    replacement, by `seed` alone: the order of rows changes nothing.
    """
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(clusters.count, size=(size, clusters.count))
        drawn += np.arange(size)[:, None] * clusters.count
        counts = np.bincount(drawn.ravel(), minlength=size * clusters.count)
        weights = counts.reshape(size, clusters.count).astype(np.float64)
        values.append(statistic(weights[:, clusters.ids]))
    return np.concatenate(values)


def percentile(values: np.ndarray, clusters: Clusters, level: float = LEVEL) -> Interval:
    """Percentile interval of one metric's resampled values, float64[B]; NaN where undefined.

    None if all are equal, or if more than `MAX_UNDEFINED` of them are NaN (a class that vanished).
    """
    method = f"bootstrap by {clusters.unit}"
    undefined = int(np.isnan(values).sum())
    if undefined > MAX_UNDEFINED * len(values):
        note = f"undefined in {undefined} of {len(values)} resamples"
        return Interval(None, None, method, note)
    defined = values[~np.isnan(values)]
    if np.ptp(defined) == 0:
        return Interval(None, None, method, "degenerate: equal in every resample")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), method)


def score(
    value: float,
    values: np.ndarray,
    clusters: Clusters,
    *,
    lowest: float = 0.0,
    level: float = LEVEL,
) -> Interval:
    """Wilson's interval of a figure in [lowest, 1] with the spread of its resampled values.

    In simulation it holds its level for kappa, MCC and F1 where the percentiles, which lean the
    wrong way near 1, do not. NaN and None as in `percentile`.
    """
    method = f"score, bootstrap by {clusters.unit}"
    undefined = int(np.isnan(values).sum())
    if undefined > MAX_UNDEFINED * len(values):
        note = f"undefined in {undefined} of {len(values)} resamples"
        return Interval(None, None, method, note)
    error = float(np.nanstd(values))
    return score_interval(value, error, clusters, method, lowest, level)
