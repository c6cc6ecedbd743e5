"""Confidence intervals for clustered rows: of proportions, from standard errors, by resampling.

Rows of one patient are not independent, so n shrinks to an effective n. An undefined interval is
None with a note, never one of zero width.

Near the end of its range a metric's distribution is skewed towards the middle, and its standard
error is itself uncertain where a few rows decide. So limits are found on the scale of the score
(Wilson), of the logit or of the log, with quantiles of t. Metrics whose interval has no valid
closed form use resamples of whole clusters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import expit, ndtri, stdtrit  # many times faster than scipy.stats

from fracnet.metrics.clusters import Clusters

LEVEL = 0.95
MIN_FREEDOM = 4.0
"""Fewest degrees of freedom assumed. In simulation 4 still covers; fewer only widens."""
NO_LOSS = 1e-9
"""Below this mean loss every row is right and confident, and the spread means nothing."""
ROUNDING = 1e-12
"""A spread below this share of the value is a rounding error."""
RESAMPLES = 2000
MAX_UNDEFINED = 0.05
"""With a larger share of resamples in which a metric is undefined, there is no interval."""
CHUNK = 100
"""Resamples in memory at once: keeps the weights of a few thousand rows in the CPU's cache."""
Values = TypeVar("Values", float, np.ndarray)


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval and their method; None with a note if undefined."""

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
    low, high = score_limits(k / n, n, float(ndtri((1 + level) / 2)))
    # At p = 0 and 1 the limit is exact; rounding must not push it past the value.
    return (0.0 if k == 0 else max(0.0, float(low)), 1.0 if k == n else min(1.0, float(high)))


def score_limits(p: Values, n: Values, z: float) -> tuple[Values, Values]:
    """Wilson's limits of proportions p of n rows, for a quantile z; rounding may pass 0 and 1."""
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return center - half, center + half


def score_mean(k: np.ndarray, n: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of the plain mean of K independent proportions k/n, float[K] each.

    Contains every mean m for which |mean(k/n) - m| <= z sqrt(sum p(1-p)/n) / K, where p are the
    likeliest proportions of mean m. For K = 1 it is Wilson's interval. See Martin Andres et al.
    2011, Stat Methods Med Res 20:369.
    """
    z = float(ndtri((1 + level) / 2))
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
    # Fifty bisections reach the precision of a double.
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return float(likeliest(outside).mean())


def effective_n(success: np.ndarray, member: np.ndarray, clusters: Clusters) -> np.ndarray:
    """The equivalent number of independent rows, float64[K], for the mean of K proportions.

    `success`, `member` are bool[N, K]: p_j = sum(success & member) / n_j with n_j = sum(member).
    Row i moves the mean by e_i = sum_j member (success - p_j) / n_j / K. With e_g its sum over
    cluster g, and G clusters that have members,

        v = G / (G - 1) sum_g e_g^2                 the ratio estimator's variance of the mean,
        deff = max(1, v / sum_i e_i^2)              the design effect of clustering,
        share = sum_i e_i^2 / sum_j p_j (1 - p_j) / n_j / K^2
                                                    correlation of the p_j within a row (K = 1: 1),
        n_eff = n / (deff share) (z / t_(G-1))^2    the last for the few degrees of freedom of v.

    Without clusters deff and the last factor are 1. (Korn and Graubard 1998, Surv Methodol 24:193;
    with Wilson: Franco et al. 2019, J Surv Stat Methodol 7:334.) Where every p_j is 0 or 1 the data
    say nothing about correlation, which is then assumed to be complete: deff_j = sum_g m_gj^2 / n_j
    with m_gj members in cluster g.
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
    assert groups > 1, "one cluster has no variance: callers handle it"
    if by_row > 0:
        sums = np.bincount(clusters.ids, weights=moves, minlength=clusters.count)
        deff = max(1.0, groups / (groups - 1) * float((sums**2).sum()) / by_row)
    else:
        size = np.zeros((clusters.count, len(n)))
        np.add.at(size, clusters.ids, member)
        deff = (size**2).sum(axis=0) / n
    return np.asarray(n / (deff * share) * _shrinkage(groups))


def _shrinkage(groups: int) -> float:
    """Factor of n for the few degrees of freedom of a variance of groups: (z / t)^2."""
    quantile = (1 + LEVEL) / 2
    return float(ndtri(quantile) / stdtrit(groups - 1, quantile)) ** 2


def proportion(
    success: np.ndarray, member: np.ndarray, clusters: Clusters, rows: str = "cases"
) -> Interval:
    """Wilson interval of sum(success & member) / sum(member), both bool[N].

    `rows` names the members in notes.
    """
    return mean_of_proportions(success[:, None], member[:, None], clusters, rows, "Wilson")


def mean_of_proportions(
    success: np.ndarray,
    member: np.ndarray,
    clusters: Clusters,
    rows: str = "cases",
    method: str = "score",
) -> Interval:
    """Score interval of the mean over K proportions, bool[N, K]; columns without members drop."""
    if not clusters.trivial:
        method += " with effective n"
    keep = member.any(axis=0)
    if not keep.any():
        return Interval(None, None, method, f"undefined: no {rows}")
    success, member = success[:, keep], member[:, keep]
    if not clusters.trivial and len(np.unique(clusters.ids[member.any(axis=1)])) < 2:
        return Interval(None, None, method, f"all {rows} come from one {clusters.unit}")
    n = effective_n(success, member, clusters)
    p = (success & member).sum(axis=0) / member.sum(axis=0)
    if len(n) == 1:
        # Computed from p, k may exceed n by a rounding error.
        limits = wilson(float(min(p[0] * n[0], n[0])), float(n[0]))
    else:
        limits = score_mean(np.minimum(p * n, n), n)
    return Interval(*limits, method)


def logit_interval(
    value: float, moves: np.ndarray, clusters: Clusters, method: str, name: str, level: float
) -> Interval:
    """Interval of an area in (0, 1) from how far each row moves it, float64[N].

    `name` names the metric in notes.
    """
    error, freedom = clustered_error(moves, clusters)
    if not ROUNDING < value < 1 - ROUNDING:
        return Interval(None, None, method, f"degenerate: the {name} is {round(value)}")
    if error <= ROUNDING * value * (1 - value):
        return Interval(None, None, method, "degenerate: no variance, as with equal scores")
    half = float(stdtrit(freedom, (1 + level) / 2)) * error / (value * (1 - value))
    center = math.log(value / (1 - value))
    return Interval(float(expit(center - half)), float(expit(center + half)), method)


def mean_loss(losses: np.ndarray, clusters: Clusters, most: float = math.inf) -> Interval:
    """Interval of the mean of losses from 0 to `most`, float64[N], on the scale of its log.

    The variance is that of a ratio: G / (G - 1) sum_g (sum_i (loss_i - mean) / N)^2 over clusters.
    """
    method, value = f"log scale, t by {clusters.unit}", float(losses.mean())
    if clusters.count < 2:
        return Interval(None, None, method, clusters.lone)
    if value < NO_LOSS:
        return Interval(None, None, method, "degenerate: no row has a loss")
    moves = (losses - value) / len(losses) * math.sqrt(clusters.count / (clusters.count - 1))
    error, freedom = clustered_error(moves, clusters)
    if error <= ROUNDING * value:
        return Interval(None, None, method, "degenerate: equal in every row")
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error / value
    return Interval(value * math.exp(-half), min(most, value * math.exp(half)), method)


def f1_interval(case: np.ndarray, predicted: np.ndarray, clusters: Clusters) -> Interval:
    """Interval of one class's F1 from bool[N] each, by way of the Jaccard index.

    F1 = 2 J / (1 + J), and J = TP / (TP + FP + FN) is a proportion of the rows that are a case or
    predicted as one, so Wilson's limits of J give those of F1.
    """
    either = case | predicted
    share = proportion(case & predicted, either, clusters, "cases and no predictions")
    if share.low is None or share.high is None:
        return share
    low, high = (2 * limit / (1 + limit) for limit in (share.low, share.high))
    return Interval(low, high, share.method)


def clustered_error(moves: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    """Standard error sqrt(sum_g (sum_i moves_i)^2) over clusters, and its degrees of freedom."""
    sums = np.bincount(clusters.ids, weights=moves, minlength=clusters.count)
    # Squares of the losses of a saturated network underflow.
    scale = float(np.abs(sums).max(initial=0))
    if scale == 0:
        return 0.0, float(clusters.count)
    return scale * math.sqrt(float(((sums / scale) ** 2).sum())), freedom(sums)


def freedom(sums: np.ndarray) -> float:
    """Degrees of freedom of sum(sums^2) as a variance, by Satterthwaite; NaN where it is 0.

    They follow from the variance of the variance estimate, by the fourth moment of its terms: as
    many as there are terms if these are normal, fewer where a handful of them decides.
    """
    scale = float(np.abs(sums).max(initial=0))
    if not scale > 0:
        return math.nan
    squares = (sums / scale) ** 2
    kurtosis = len(sums) * float((squares**2).sum() / squares.sum() ** 2)
    return max(MIN_FREEDOM, min(len(sums), 2 * len(sums) / max(kurtosis - 1, 1e-9)))


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Clusters,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Values of `statistic` in resamples of whole clusters, float64[resamples, K].

    `statistic` gets weights float64[B, N], how often each row was drawn, and returns [B, K] (the
    functions of `classification` take such weights). Each resample draws `clusters.count` clusters
    with replacement, by `seed` alone; the order of rows does not matter.
    """
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        draws = rng.integers(clusters.count, size=(size, clusters.count))
        draws += np.arange(size)[:, None] * clusters.count
        counts = np.bincount(draws.ravel(), minlength=size * clusters.count)
        weights = counts.reshape(size, clusters.count).astype(np.float64)
        values.append(statistic(weights[:, clusters.ids]))
    return np.concatenate(values)


def percentile(values: np.ndarray, clusters: Clusters, level: float = LEVEL) -> Interval:
    """Percentile interval of one metric's resampled values, float64[B]; NaN where undefined.

    None if all are equal, or if more than `MAX_UNDEFINED` of them are NaN (a class that vanished).
    """
    method = f"bootstrap by {clusters.unit}"
    if note := _often_undefined(values):
        return Interval(None, None, method, note)
    defined = values[~np.isnan(values)]
    if np.ptp(defined) == 0:
        return Interval(None, None, method, "degenerate: equal in every resample")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), method)


def score_bootstrap(
    value: float, values: np.ndarray, clusters: Clusters, *, lowest: float = 0.0
) -> Interval:
    """Wilson's interval of a metric in [lowest, 1] with the spread of its resampled values.

    It is treated as a proportion p of that range, whose standard error is that of
    n = p (1 - p) / error^2 rows; n shrinks for the few clusters, as in `effective_n`. In simulation
    this holds its level for kappa, MCC and F1 where percentiles, which are skewed the wrong way
    near 1, do not. NaN and None as in `percentile`.
    """
    method = f"score, bootstrap by {clusters.unit}"
    width = 1 - lowest
    p = (value - lowest) / width
    if note := _often_undefined(values):
        return Interval(None, None, method, note)
    error = float(np.nanstd(values))
    if not ROUNDING < p < 1 - ROUNDING:
        return Interval(None, None, method, f"degenerate: the value is {round(value)}")
    if error <= ROUNDING * width:
        return Interval(None, None, method, "degenerate: equal in every resample")
    n = p * (1 - p) / (error / width) ** 2 * _shrinkage(clusters.count)
    low, high = wilson(p * n, n)
    return Interval(lowest + width * low, lowest + width * high, method)


def _often_undefined(values: np.ndarray) -> str:
    """That more than `MAX_UNDEFINED` of the resampled values are NaN, or ""."""
    undefined = int(np.isnan(values).sum())
    if undefined <= MAX_UNDEFINED * len(values):
        return ""
    return f"undefined in {undefined} of {len(values)} resamples"
