"""Calibration: whether predicted probabilities match observed shares.

The top-label calibration error uses 15 bins of equal mass and is debiased: the root of the mean
squared gap between confidence and accuracy, minus what chance alone would give (Kumar, Liang and Ma
2019, Verified Uncertainty Calibration, NeurIPS). `reliability` gives the bins of a diagram.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL, Interval, proportion

BINS = 15
LUCK_TAIL = 0.1587
"""A standard deviation below the mean: Phi(-1)."""
MIN_ANSWERS = 5
"""With fewer right, or wrong, predictions there is no interval."""
MIN_ROWS_PER_BIN = 10
"""In a diagram; fewer rows say almost nothing about a share."""
ESTIMATOR = f"top-label, {BINS} equal-mass bins, debiased by cluster (after Kumar 2019)"


def bins_of(confidence: np.ndarray, clusters: Clusters, n_bins: int = BINS) -> np.ndarray:
    """The bin of each row, int64[N] in 0..K-1, by rising confidence, of nearly equal mass.

    Rows of equal confidence share a bin, and each bin holds rows of at least two clusters, so K may
    be less than `n_bins`.
    """
    order = np.lexsort((clusters.ids, confidence))
    ordered = confidence[order]
    first = np.searchsorted(ordered, ordered, side="left")  # of equal values
    target = first * min(n_bins, max(1, len(ordered) // 2)) // len(ordered)
    starts = np.flatnonzero(np.diff(target, prepend=-1))
    ids = clusters.ids[order]
    edges = [0]
    for start in starts[1:]:
        if len(np.unique(ids[edges[-1] : start])) > 1:
            edges.append(int(start))
    if len(edges) > 1 and len(np.unique(ids[edges[-1] :])) < 2:
        edges.pop()
    bins = np.empty(len(ordered), dtype=np.int64)
    bins[order] = np.searchsorted(edges, np.arange(len(ordered)), side="right") - 1
    return bins


def squared_error(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, clusters: Clusters
) -> float:
    """Debiased mean over the rows of (mean confidence - accuracy of the bin)^2; may be negative.

    The variance of its accuracy is subtracted from each bin's squared gap: for independent rows
    a (1 - a) / (n - 1), as in Kumar; else, from the sums of right - a by cluster,
    G / (G - 1) sum_g (sum_i right_i - a)^2 / n^2. NaN for a bin of only one cluster.
    """
    share, gap, moves = _gaps(confidence, right, bins, clusters)
    return float((share * (gap**2 - (moves**2).sum(axis=0))).sum())


def calibration_error(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> float:
    """Root of the debiased squared error, 0 where that is negative; NaN with fewer than 2 clusters.

    The predicted class is the one of the highest probability, whatever the operating point.
    """
    confidence, right = prob.max(axis=1), prob.argmax(axis=1) == target
    bins = bins_of(confidence, clusters)
    return float(np.sqrt(np.maximum(squared_error(confidence, right, bins, clusters), 0.0)))


def calibration_interval(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> Interval:
    """Interval of the error of these bins in the population; it may reach 0.

    The mean squared gap Q = sum_b w_b gap_b^2 of a population with error e has mean e^2 + tr(WV)
    and, for normal gaps of covariance V, variance 2 tr(WVWV) + 4 e^2 pull. The limits are the
    errors at which Q would be in a tail, by the gamma distribution of those two moments. `pull`
    depends on the direction of the gaps: half way between the observed one, gap'WVWgap / Q, and
    the average over directions, tr(WVWV) / tr(WV). For the upper limit, gaps smaller than chance
    gives one time in six count as gaps of that size, so that luck does not make a limit of 0 (Cowan
    et al. 2011, arXiv:1105.3166). None with fewer than `MIN_ANSWERS` right, or wrong, predictions.
    """
    confidence, right = prob.max(axis=1), prob.argmax(axis=1) == target
    method = f"gamma, variance by {clusters.unit}"
    bins = bins_of(confidence, clusters)
    share, gap, moves = _gaps(confidence, right, bins, clusters)
    rarer = int(min(right.sum(), (~right).sum()))
    if not np.isfinite(moves).all():
        return Interval(None, None, method, f"undefined: {clusters.lone}")
    if rarer < MIN_ANSWERS:
        kind = "wrong" if right.sum() > rarer else "right"
        note = f"{rarer} {kind} predictions are too few for an interval"
        return Interval(None, None, method, note)
    weighted = share[:, None] * (moves.T @ moves)
    chance, square = float(np.trace(weighted)), float(np.trace(weighted @ weighted))
    if chance == 0:
        return Interval(None, None, method, "degenerate: each bin is all right or all wrong")
    observed = float((share * gap**2).sum())
    if observed <= 1e-9 * chance:
        return Interval(None, None, method, "degenerate: confidence and accuracy agree exactly")
    pull = (float(((moves @ (share * gap)) ** 2).sum()) / observed + square / chance) / 2

    def moments(squared: float) -> tuple[float, float]:
        """Shape and scale of the gamma distribution."""
        mean, variance = squared + chance, 2 * square + 4 * squared * pull
        return mean**2 / variance, variance / mean

    def below(squared: float, seen: float) -> float:
        shape, scale = moments(squared)
        return float(scipy.stats.gamma.cdf(seen, shape, scale=scale))

    tail, start = (1 - LEVEL) / 2, observed + chance
    shape, scale = moments(0.0)
    usual = max(observed, float(scipy.stats.gamma.ppf(LUCK_TAIL, shape, scale=scale)))
    low = _crossing(lambda squared: below(squared, observed), 1 - tail, start)
    high = _crossing(lambda squared: below(squared, usual), tail, start)
    return Interval(low**0.5, high**0.5, method)


def _gaps(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, clusters: Clusters
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of rows [K] and gap [K] of each bin; how far each cluster moves each gap, [G, K]."""
    size = np.bincount(bins).astype(np.float64)
    accuracy = np.bincount(bins, weights=right) / size
    gap = np.bincount(bins, weights=confidence) / size - accuracy
    moves = np.zeros((clusters.count, len(size)))
    present = np.zeros(moves.shape, dtype=bool)
    np.add.at(moves, (clusters.ids, bins), (right - accuracy[bins]) / size[bins])
    present[clusters.ids, bins] = True
    groups = present.sum(axis=0).astype(np.float64)
    scale = np.divide(groups, groups - 1, out=np.full(len(size), np.nan), where=groups > 1)
    return size / size.sum(), gap, moves * np.sqrt(scale)


def _crossing(below: Callable[[float], float], chance: float, start: float) -> float:
    """Where the falling function `below` crosses `chance`; 0 if it starts under it."""
    if below(0.0) < chance:
        return 0.0
    high = start
    while below(high) > chance:
        high *= 2
    return float(scipy.optimize.brentq(lambda x: below(x) - chance, 0.0, high, rtol=1e-10))


@dataclass(frozen=True)
class Reliability:
    """K bins by rising score: float64[K] each, `n` int64[K].

    `score` is the mean predicted probability of a bin's rows, `share` how many of them are hits,
    `low` and `high` the limits of its 95 % Wilson interval, with an effective n where rows cluster;
    NaN where undefined.
    """

    score: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def score_and_hit(target: np.ndarray, prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two sides of a reliability diagram: score float64[N] and hit bool[N].

    Two classes: the probability of the second, and whether a row is of it. More: the probability
    of the predicted class, and whether it is right.
    """
    if prob.shape[1] == 2:
        return prob[:, 1], target == 1
    return prob.max(axis=1), prob.argmax(axis=1) == target


def reliability(
    score: np.ndarray, hit: np.ndarray, clusters: Clusters, n_bins: int | None = None
) -> Reliability:
    """Bins of equal mass, of `score` float[N] in [0, 1] and `hit` bool[N].

    n_bins: the maximum; by default 15, or fewer, so that a bin has ten rows.
    """
    if n_bins is None:
        n_bins = max(1, min(BINS, len(score) // MIN_ROWS_PER_BIN))
    bins = bins_of(score, clusters, n_bins)
    n = np.bincount(bins)
    intervals = [proportion(hit, bins == k, clusters) for k in range(len(n))]
    # As a number, None is NaN.
    low, high = np.array([(i.low, i.high) for i in intervals], dtype=np.float64).T
    return Reliability(
        np.bincount(bins, weights=score) / n, np.bincount(bins, weights=hit) / n, low, high, n
    )
