"""Whether probabilities mean what they say: predicted against observed shares, bin by bin."""

from dataclasses import dataclass

import numpy as np

from fracnet.evaluation.calibration_error import BINS, bins_of
from fracnet.evaluation.intervals import proportion
from fracnet.evaluation.predictions import Clusters

# Rows that a bin should hold at least: fewer say next to nothing about a share.
PER_BIN = 10


@dataclass(frozen=True)
class Reliability:
    """K bins by rising score: float64[K] each, `n` int64[K].

    `score` is the mean predicted probability of a bin's rows, `share` how many of them are hits,
    `low` and `high` the limits of its 95 % Wilson interval, with an effective n where rows cluster;
    NaN where there is none.
    """

    score: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def outcome(target: np.ndarray, prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a reliability diagram sets against each other: score float64[N] and hit bool[N].

    Two classes: the probability of the second, and whether a row is of it. More: the probability
    of the class that is named, and whether that is right.
    """
    if prob.shape[1] == 2:
        return prob[:, 1], target == 1
    return prob.max(axis=1), prob.argmax(axis=1) == target


def reliability(
    score: np.ndarray, hit: np.ndarray, clusters: Clusters, n_bins: int | None = None
) -> Reliability:
    """Bins of equal mass, as those of `calibration_error`.

    Args:
        score: float[N] in [0, 1], N at least 1.
        hit: bool[N].
        clusters: of the same rows.
        n_bins: at most so many; by default 15, or fewer, so that a bin has ten rows.
    """
    if n_bins is None:
        n_bins = max(1, min(BINS, len(score) // PER_BIN))
    bins = bins_of(score, clusters, n_bins)
    n = np.bincount(bins)
    limits = [_limits(hit, bins == k, clusters) for k in range(len(n))]
    low, high = np.array(limits, dtype=np.float64).T
    return Reliability(
        np.bincount(bins, weights=score) / n, np.bincount(bins, weights=hit) / n, low, high, n
    )


def _limits(hit: np.ndarray, member: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    interval = proportion(hit, member, clusters)
    if interval.low is None or interval.high is None:
        return np.nan, np.nan
    return interval.low, interval.high
