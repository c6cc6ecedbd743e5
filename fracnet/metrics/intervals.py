"""Confidence intervals of proportions and of their means, aware that rows may cluster.

Rows of one patient are not independent, so n shrinks to an effective n. An interval that cannot be
had is None with a note, never one of zero width.

Intervals from a standard error, made on a scale that keeps the limits inside the figure's range.

Near the end of its range a figure's distribution leans towards the middle, and its standard error
is itself uncertain where a few rows decide. So limits are found on the scale of the score (Wilson),
of the logit or of the log, and with quantiles of t.

Resampling of whole clusters, for metrics whose interval has no closed form that holds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats
from scipy.special import expit

from fracnet.metrics.clusters import Clusters

LEVEL = 0.95
Values = TypeVar("Values", float, np.ndarray)


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval and how they were made; None with a note if undefined."""

    low: float | None
    high: float | None
    method: str
    note: str = ""


def wilson(k: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of k successes in n rows; n may be fractional.

    E. B. Wilson 1927, J Am Stat Assoc 22:209.
    """
    assert 0 <= k <= n, (k, n)
    assert n > 0, n
    low, high = score_limits(k / n, n, float(stats.norm.ppf((1 + level) / 2)))
    # At p = 0 and 1 the limit is exact; rounding must not push it past the value.
    return (0.0 if k == 0 else max(0.0, float(low)), 1.0 if k == n else min(1.0, float(high)))


def score_limits(p: Values, n: Values, z: float) -> tuple[Values, Values]:
    """Wilson's limits of proportions p of n rows, for a quantile z; rounding may pass 0 and 1."""
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return center - half, center + half


def score_mean(k: np.ndarray, n: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of the plain mean of K independent proportions k/n, float[K] each.

    Holds every mean m for which |mean(k/n) - m| <= z sqrt(sum p(1-p)/n) / K, where p are the
    likeliest proportions of mean m. For K = 1 it is Wilson's interval. See Martin Andres et al.
    2011, Stat Methods Med Res 20:369.
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    k, n = np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64)
    # The upper limit of successes is one minus the lower limit of failures.
    return _lower_mean(k, n, z), 1.0 - _lower_mean(n - k, n, z)


def _lower_mean(k: np.ndarray, n: np.ndarray, z: float) -> float:
    estimate = float((k / n).mean())
    if estimate == 0:
        return 0.0

    def likeliest(pull: float) -> np.ndarray:
        # Root of pull p^2 - (n + pull) p + k = 0: the likelihood's maximum under a Lagrange
        # multiplier that pulls the mean down, from k/n at 0 towards 0.
        b = n + pull
        return 2 * k / (b + np.sqrt(np.maximum(b**2 - 4 * pull * k, 0)))

    def rejected(pull: float) -> bool:
        p = likeliest(pull)
        distance = estimate - float(p.mean())
        return distance > z * float(np.sqrt((np.maximum(p * (1 - p), 0) / n).sum())) / len(k)

    inside, outside = 0.0, float(n.max())
    while not rejected(outside):
        inside, outside = outside, 2 * outside
    # Halved fifty times: to the last digits that a limit can hold.
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return float(likeliest(outside).mean())


def effective_n(
    success: np.ndarray, member: np.ndarray, clusters: Clusters, level: float = LEVEL
) -> np.ndarray:
    """How many independent rows would be worth as much, float64[K], for the mean of K proportions.

    `success`, `member` are bool[N, K]: p_j = sum(success & member) / n_j with n_j = sum(member).
    Row i moves the mean by e_i = sum_j member (success - p_j) / n_j / K. With e_g its sum over
    cluster g, and G clusters that have members,

        v = G / (G - 1) sum_g e_g^2                 the ratio estimator's variance of the mean,
        deff = max(1, v / sum_i e_i^2)              what clustering costs,
        share = sum_i e_i^2 / sum_j p_j (1 - p_j) / n_j / K^2
                                                    correlation of the p_j within a row (K = 1: 1),
        n_eff = n / (deff share) (z / t_(G-1))^2    the last for the few degrees of freedom of v.

    Without clusters deff and the last factor are 1. (Korn and Graubard 1998, Surv Methodol 24:193;
    with Wilson: Franco et al. 2019, J Surv Stat Methodol 7:334.) Where every p_j is 0 or 1 the data
    say nothing about correlation, which then counts as complete: deff_j = sum_g m_gj^2 / n_j with
    m_gj members in cluster g.
    """
    n = member.sum(axis=0).astype(np.float64)
    p = (success & member).sum(axis=0) / n
    part = member * (success - p) / n / len(n)
    moves = part.sum(axis=1)
    by_row, independent = float((moves**2).sum()), float((part**2).sum())
    share = by_row / independent if by_row > 0 else 1.0
    if clusters.trivial:
        return n / share
    groups = len(np.unique(clusters.ids[member.any(axis=1)]))
    assert groups > 1, "one cluster has no variance: the caller says so"
    if by_row > 0:
        sums = np.bincount(clusters.ids, weights=moves, minlength=clusters.count)
        deff = max(1.0, groups / (groups - 1) * float((sums**2).sum()) / by_row)
    else:
        size = np.zeros((clusters.count, len(n)))
        np.add.at(size, clusters.ids, member)
        deff = (size**2).sum(axis=0) / n
    quantile = (1 + level) / 2
    freedom = float(stats.norm.ppf(quantile) / stats.t.ppf(quantile, groups - 1)) ** 2
    return np.asarray(n / (deff * share) * freedom)


def proportion(
    success: np.ndarray,
    member: np.ndarray,
    clusters: Clusters,
    level: float = LEVEL,
    rows: str = "cases",
) -> Interval:
    """Wilson interval of sum(success & member) / sum(member), both bool[N].

    `rows` is how notes call the members.
    """
    return _interval(success[:, None], member[:, None], clusters, level, "Wilson", rows)


def mean_of_proportions(
    success: np.ndarray,
    member: np.ndarray,
    clusters: Clusters,
    level: float = LEVEL,
    rows: str = "cases",
) -> Interval:
    """Score interval of the mean over K proportions, bool[N, K]; columns without members drop."""
    return _interval(success, member, clusters, level, "score", rows)


def _interval(
    success: np.ndarray,
    member: np.ndarray,
    clusters: Clusters,
    level: float,
    method: str,
    rows: str,
) -> Interval:
    if not clusters.trivial:
        method += " with effective n"
    keep = member.any(axis=0)
    if not keep.any():
        return Interval(None, None, method, f"undefined: no {rows}")
    success, member = success[:, keep], member[:, keep]
    if not clusters.trivial and len(np.unique(clusters.ids[member.any(axis=1)])) < 2:
        return Interval(None, None, method, f"all {rows} come from one {clusters.unit}")
    n = effective_n(success, member, clusters, level)
    p = (success & member).sum(axis=0) / member.sum(axis=0)
    if len(n) == 1:
        # By way of p, k may exceed n by a rounding error.
        limits = wilson(float(min(p[0] * n[0], n[0])), float(n[0]), level)
    else:
        limits = score_mean(np.minimum(p * n, n), n, level)
    return Interval(*limits, method)


# Fewest degrees of freedom assumed. In simulation 4 still covers; fewer only widens.
MIN_FREEDOM = 4.0

# Below this mean loss every row is right and confident to the last digit: its spread means nothing.
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
    center = math.log(value / (1 - value))
    return Interval(float(expit(center - reach)), float(expit(center + reach)), method)


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
