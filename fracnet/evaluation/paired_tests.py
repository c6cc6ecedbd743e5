"""Tests of two models on the same rows: McNemar's, and that of two areas under the ROC curve.

McNemar's is for rows that are independent of one another; the other sums by cluster first.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fracnet.evaluation import metrics
from fracnet.evaluation.areas import influence
from fracnet.evaluation.predictions import Clusters
from fracnet.evaluation.scales import freedom


@dataclass(frozen=True)
class Test:
    """A two-sided p value and how it was had; None with a note where there is none."""

    p: float | None
    method: str
    note: str = ""


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Test:
    """McNemar's test of two shares of right decisions on the same independent rows, bool[N] each.

    Of the rows on which just one is right, half would be either's if both were as good. Mid-p: the
    chance of the very split observed counts half, without which the test keeps far below its level
    (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91).
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = only_a + only_b
    if n == 0:
        return Test(1.0, "McNemar, mid-p", "right on the same rows")
    if only_a == only_b:
        # Every split is as far from even, or farther; twice one tail, less the middle itself, is 1.
        return Test(1.0, "McNemar, mid-p")
    tail = float(stats.binom.cdf(min(only_a, only_b), n, 0.5))
    p = 2 * tail - float(stats.binom.pmf(min(only_a, only_b), n, 0.5))
    return Test(min(p, 1.0), "McNemar, mid-p")


@dataclass(frozen=True)
class AreaDifference:
    """Difference of two areas, its standard error and the degrees of freedom of that."""

    value: float
    error: float
    freedom: float


def area_difference(
    target: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    clusters: Clusters,
    index: int | None = None,
) -> AreaDifference:
    """Difference of the AUCs of class `index`, or of their macro averages, float64[N, C] each.

    Each row moves either area by its influence (`areas.influence`); the variance of the difference
    is the sum over clusters of the squared difference of influences. Rows that are clusters of
    their own give DeLong's test (1988, Biometrics 44:837), others Obuchowski's (1997, Biometrics
    53:567). NaN where an area or its variance is undefined.
    """
    gap = metrics.auc(target, prob_a) - metrics.auc(target, prob_b)
    moves = influence(target, prob_a, clusters) - influence(target, prob_b, clusters)
    columns = np.flatnonzero(~np.isnan(gap)) if index is None else np.array([index])
    if not len(columns):
        return AreaDifference(math.nan, math.nan, math.nan)
    sums = np.bincount(
        clusters.ids, weights=moves[:, columns].mean(axis=1), minlength=clusters.count
    )
    return AreaDifference(
        float(gap[columns].mean()), math.sqrt(float((sums**2).sum())), freedom(sums)
    )


def area_test(difference: AreaDifference, clusters: Clusters) -> Test:
    """Whether two areas differ: t test of `difference`."""
    method = f"{'DeLong' if clusters.trivial else 'Obuchowski'}, paired"
    if math.isnan(difference.error):
        return Test(None, method, f"all cases, or all others, are one {clusters.unit}")
    if difference.error == 0:
        if difference.value == 0:
            return Test(1.0, method, "the same order of scores")
        return Test(None, method, "degenerate: no variance")
    statistic = abs(difference.value) / difference.error
    return Test(float(2 * stats.t.sf(statistic, difference.freedom)), method)
