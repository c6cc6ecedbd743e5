"""Tests of models on the same rows, corrected for their number, and the patients they would need.

McNemar's test needs independent rows; the test of two areas under the ROC curve sums by cluster
first. To compare configurations that were trained several times, seeds vary as well as patients: in
the terms of multi-reader studies, where the method comes from, each run is a reader of the same
cases, and two configurations have different readers (`spread_over_runs`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from scipy.special import expit, logit

from fracnet.metrics import classification
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import LEVEL, freedom
from fracnet.metrics.roc import influence

POWER = 0.8
ALPHA = 0.05
ENOUGH = 5
"""Fewer runs say too little about how much runs of a configuration differ."""
ROUNDING = 1e-24
"""A variance that rounding leaves behind when all values are equal."""


@dataclass(frozen=True)
class Test:
    """A two-sided p value and its method; None with a note where undefined."""

    p: float | None
    method: str
    note: str = ""


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Test:
    """McNemar's test of two shares of right predictions on the same independent rows, bool[N] each.

    If both models are equally good, each is right on half of the rows on which only one is right.
    Mid-p: the probability of the observed split counts half; otherwise the test stays far below its
    level (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91).
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = only_a + only_b
    if n == 0:
        return Test(1.0, "McNemar, mid-p", "right on the same rows")
    if only_a == only_b:
        # Every split is at least as far from even; twice one tail minus the middle is 1.
        return Test(1.0, "McNemar, mid-p")
    tail = float(scipy.stats.binom.cdf(min(only_a, only_b), n, 0.5))
    p = 2 * tail - float(scipy.stats.binom.pmf(min(only_a, only_b), n, 0.5))
    return Test(min(p, 1.0), "McNemar, mid-p")


@dataclass(frozen=True)
class Spread:
    """A mean or difference with its standard error and the error's degrees of freedom.

    of_seeds: the error that endless patients would leave.
    """

    value: float
    error: float
    freedom: float
    of_seeds: float = 0.0

    def limits(self, *, share: bool = False) -> tuple[float, float] | None:
        """Confidence interval; None where the error is 0 or unknown.

        `share`: the value lies between 0 and 1; the interval is then made on the logit scale.
        """
        if not self.error > 0:
            return None
        half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        if not share:
            return self.value - half, self.value + half
        if not 0 < self.value < 1:
            return None
        half /= self.value * (1 - self.value)
        low, high = expit(logit(self.value) - half), expit(logit(self.value) + half)
        return float(low), float(high)

    def p(self) -> float | None:
        """Two-sided, of the value being 0; None where the error is 0 or unknown."""
        if not self.error > 0:
            return None
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))


def area_difference(
    target: np.ndarray,
    prob_a: np.ndarray,
    prob_b: np.ndarray,
    clusters: Clusters,
    index: int | None = None,
) -> Spread:
    """Difference of the AUCs of class `index`, or of their macro averages, float64[N, C] each.

    Each row moves either area by its influence (`roc.influence`); the variance of the difference is
    the sum over clusters of the squared difference of influences. Independent rows give DeLong's
    test (1988, Biometrics 44:837), others Obuchowski's (1997, Biometrics
    53:567). NaN where an area or its variance is undefined.
    """
    gap = classification.auc(target, prob_a) - classification.auc(target, prob_b)
    moves = influence(target, prob_a, clusters) - influence(target, prob_b, clusters)
    columns = np.flatnonzero(~np.isnan(gap)) if index is None else np.array([index])
    if not len(columns):
        return Spread(math.nan, math.nan, math.nan)
    sums = np.bincount(
        clusters.ids, weights=moves[:, columns].mean(axis=1), minlength=clusters.count
    )
    return Spread(float(gap[columns].mean()), math.sqrt(float((sums**2).sum())), freedom(sums))


def area_test(difference: Spread, clusters: Clusters) -> Test:
    """Whether two areas differ: t test of `difference`."""
    method = f"{'DeLong' if clusters.trivial else 'Obuchowski'}, paired"
    if math.isnan(difference.error):
        return Test(None, method, f"all cases, or all others, are one {clusters.unit}")
    if difference.error == 0:
        if difference.value == 0:
            return Test(1.0, method, "the same order of scores")
        return Test(None, method, "degenerate: no variance")
    return Test(difference.p(), method)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given, by Holm's step-down method (1979, Scand J Stat 6:65).

    The k-th smallest of m is multiplied by m - k + 1 and is never below the one before it.
    Accepting those under 0.05 keeps the chance of any false positive at 5 %.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]


def detectable(error: float, alpha: float = ALPHA) -> float:
    """The true difference that a two-sided test at `alpha` finds with probability `POWER`.

    (z_(1 - alpha/2) + z_power) standard errors `error`, by the normal approximation.
    """
    return float((scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(POWER)) * error)


def clusters_needed(
    error: float, clusters: int, margin: float, *, fixed: float = 0.0, alpha: float = ALPHA
) -> int | None:
    """The number of clusters that makes a true difference of `margin` detectable.

    error: standard error of the difference on `clusters` clusters; its part `fixed`, also a
    standard error, does not shrink with more of them (the effect of seeds). Returns None where
    `fixed` alone hides the margin, whatever the number.
    """
    assert margin > 0, margin
    allowed = (margin / detectable(1.0, alpha)) ** 2 - fixed**2
    if allowed <= 0:
        return None
    return max(2, math.ceil(clusters * (error**2 - fixed**2) / allowed))


def spread_over_runs(
    values: np.ndarray,
    resampled: np.ndarray,
    clusters: int,
    other: np.ndarray | None = None,
    other_resampled: np.ndarray | None = None,
) -> Spread:
    """Mean of the runs' metrics `values` float64[K], or minus the mean of `other` float64[L].

    `resampled` float64[B, K] holds the metrics in resamples of whole clusters, the same in each
    column; `clusters` is their number. With s^2 the variance among the runs of a configuration and
    Cov2, Cov3 the covariances, over the resamples, of two runs of the same and of different
    configurations,

        error^2 = s_1^2 / K + s_2^2 / L + max(Cov2_1 + Cov2_2 - 2 Cov3, 0):

    the method of Obuchowski and Rockette (1995, Commun Stat Simul 24:285) for readers nested within
    tests. s^2 includes how much runs differ on these patients, so the covariance of a run with
    itself is left out: adding it, as resampling both at once does, would count that part twice.
    Degrees of freedom by Satterthwaite from those of the terms, K - 1, L - 1 and `clusters` - 1, as
    in Hillis (2007, Stat Med 26:596).
    """
    assert len(values) > 1, "one run has no spread"
    runs, patients, fixed = _parts(values, resampled)
    value, terms = float(values.mean()), [(runs, len(values) - 1)]
    if other is not None:
        assert other_resampled is not None
        assert len(other) > 1, "one run has no spread"
        more, theirs, theirs_fixed = _parts(other, other_resampled)
        joint = np.cov(resampled.mean(axis=1), other_resampled.mean(axis=1))
        value -= float(other.mean())
        terms.append((more, len(other) - 1))
        patients += theirs - 2 * float(joint[0, 1])
        fixed += theirs_fixed
    terms.append((patients if patients > ROUNDING else 0.0, clusters - 1))
    square = sum(part for part, _ in terms)
    below = sum(part**2 / n for part, n in terms)
    freedom = square**2 / below if below > 0 else math.nan
    return Spread(value, math.sqrt(square), freedom, math.sqrt(fixed))


def _parts(values: np.ndarray, resampled: np.ndarray) -> tuple[float, float, float]:
    """Of one configuration: s^2 / K, Cov2, and the part of the first that patients do not shrink.

    s^2 also includes how much runs differ on these particular patients: the variance of a run over
    resamples minus its covariance with another.
    """
    count = len(values)
    covariance = np.cov(resampled, rowvar=False)
    trace = float(np.trace(covariance))
    pairs = (float(covariance.sum()) - trace) / (count * (count - 1))
    variance = float(values.var(ddof=1))
    variance = variance if variance > ROUNDING else 0.0
    return variance / count, pairs, max(variance - (trace / count - pairs), 0.0) / count
