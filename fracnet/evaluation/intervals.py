"""Confidence intervals of proportions and of their means, aware that rows may cluster.

Rows of one patient are not independent, so n shrinks to an effective n. An interval that cannot be
had is None with a note, never one of zero width.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from fracnet.evaluation.predictions import Clusters

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
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


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
