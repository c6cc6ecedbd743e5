"""Intervals from a standard error, made on a scale that keeps the limits inside the figure's range.

Near the end of its range a figure's distribution leans towards the middle, and its standard error
is itself uncertain where a few rows decide. So limits are found on the scale of the score (Wilson),
of the logit or of the log, and with quantiles of t.
"""

import math

import numpy as np
from scipy import stats
from scipy.special import expit

from fracnet.evaluation.intervals import LEVEL, Interval, proportion, wilson
from fracnet.evaluation.predictions import Clusters

# Fewest degrees of freedom assumed. In simulation 4 still covers; fewer only widens.
MIN_FREEDOM = 4.0
# Below this mean loss every row is right and sure to the last digit: its spread means nothing.
NO_LOSS = 1e-9
# A spread below this share of the value is what floats make of none.
ROUNDING = 1e-12


def score_interval(
    value: float, error: float, clusters: Clusters, method: str, lowest: float, level: float = LEVEL
) -> Interval:
    """Wilson's interval of a figure between `lowest` and 1, taken for a proportion of that range.

    With p = (value - lowest) / (1 - lowest), its standard error counts as that of n = p (1 - p) /
    error^2 rows; n shrinks for the few degrees of freedom of the clusters, as in `effective_n`.
    """
    width = 1 - lowest
    p = (value - lowest) / width
    if not ROUNDING < p < 1 - ROUNDING:
        return Interval(None, None, method, f"degenerate: the value is {round(value)}")
    if error <= ROUNDING * width:
        return Interval(None, None, method, "degenerate: equal in every resample")
    quantile = (1 + level) / 2
    shrink = float(stats.norm.ppf(quantile) / stats.t.ppf(quantile, clusters.count - 1)) ** 2
    n = p * (1 - p) / (error / width) ** 2 * shrink
    low, high = wilson(p * n, n, level)
    return Interval(lowest + width * low, lowest + width * high, method)


def logit_interval(
    value: float, moves: np.ndarray, clusters: Clusters, method: str, name: str, level: float
) -> Interval:
    """Interval of an area in (0, 1) from how far each row moves it, float64[N].

    `name` is how notes call the figure.
    """
    error, freedom = spread(moves, clusters)
    if not ROUNDING < value < 1 - ROUNDING:
        return Interval(None, None, method, f"degenerate: the {name} is {round(value)}")
    if error <= ROUNDING * value * (1 - value):
        return Interval(None, None, method, "degenerate: no variance, as with equal scores")
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error / (value * (1 - value))
    centre = math.log(value / (1 - value))
    return Interval(float(expit(centre - reach)), float(expit(centre + reach)), method)


def mean_loss(losses: np.ndarray, clusters: Clusters, level: float = LEVEL) -> Interval:
    """Interval of the mean of losses >= 0, float64[N], on the scale of its log.

    The variance is that of a ratio: G / (G - 1) sum_g (sum_i (loss_i - mean) / N)^2 over clusters.
    """
    method = f"log scale, t by {clusters.unit}"
    if clusters.count < 2:
        return Interval(None, None, method, clusters.lone)
    value = float(losses.mean())
    moves = (losses - value) / len(losses) * math.sqrt(clusters.count / (clusters.count - 1))
    error, freedom = spread(moves, clusters)
    if value < NO_LOSS:
        return Interval(None, None, method, "degenerate: no row has a loss")
    if error <= ROUNDING * value:
        return Interval(None, None, method, "degenerate: equal in every row")
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error / value
    return Interval(value * math.exp(-reach), value * math.exp(reach), method)


def f1_interval(
    case: np.ndarray, named: np.ndarray, clusters: Clusters, level: float = LEVEL
) -> Interval:
    """Interval of one class's F1 from bool[N] each: through its rank twin, the Jaccard index.

    F1 = 2 J / (1 + J), and J = TP / (TP + FP + FN) is a proportion of the rows that are a case or
    named one: so Wilson's limits of J give those of F1.
    """
    share = proportion(case & named, case | named, clusters, level, "cases and no predictions")
    if share.low is None or share.high is None:
        return share
    low, high = (2 * limit / (1 + limit) for limit in (share.low, share.high))
    return Interval(low, high, share.method)


def spread(moves: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    """Standard error sqrt(sum_g (sum_i moves_i)^2) over clusters, and its degrees of freedom."""
    sums = np.bincount(clusters.ids, weights=moves, minlength=clusters.count)
    variance = float((sums**2).sum())
    if variance == 0:
        return 0.0, float(clusters.count)
    return math.sqrt(variance), freedom(sums)


def freedom(sums: np.ndarray) -> float:
    """Degrees of freedom of sum(sums^2) as a variance, by Satterthwaite; NaN where it is 0.

    The variance estimate's own variance, from the fourth moment of its terms, says how many degrees
    of freedom it is worth: as many as terms where they are normal, fewer where a handful decides.
    """
    square = float((sums**2).sum())
    if not square > 0:
        return math.nan
    kurtosis = len(sums) * float((sums**4).sum()) / square**2
    return max(MIN_FREEDOM, min(len(sums), 2 * len(sums) / max(kurtosis - 1, 1e-9)))
