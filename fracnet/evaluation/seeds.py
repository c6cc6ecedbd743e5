"""One configuration, trained several times, against another: seeds vary, and so do patients.

Each run is a reader of the same cases, to speak with the studies of many readers that the method
comes from, and the readers of two configurations are different ones.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from fracnet.evaluation.intervals import LEVEL

# Fewer runs say too little about how much runs of a configuration differ.
ENOUGH = 5
# A variance that equal figures leave behind.
ROUNDING = 1e-24


@dataclass(frozen=True)
class Spread:
    """A mean over runs, or the difference of two; `of_seeds` is the error of endless patients."""

    value: float
    error: float
    of_seeds: float
    freedom: float

    def limits(self, *, share: bool = False, level: float = LEVEL) -> tuple[float, float] | None:
        """Confidence interval; None where the error is 0 or unknown.

        `share` is for what lies between 0 and 1: then it is made on the scale of the logit.
        """
        if not self.error > 0:
            return None
        reach = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        if not share:
            return self.value - reach, self.value + reach
        if not 0 < self.value < 1:
            return None
        reach /= self.value * (1 - self.value)
        low, high = expit(logit(self.value) - reach), expit(logit(self.value) + reach)
        return float(low), float(high)

    def p(self) -> float | None:
        """Two-sided, of the value being 0; None where the error is 0 or unknown."""
        if not self.error > 0:
            return None
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))


def spread(
    values: np.ndarray,
    resampled: np.ndarray,
    clusters: int,
    other: np.ndarray | None = None,
    other_resampled: np.ndarray | None = None,
) -> Spread:
    """Mean of the runs' figures `values` float64[K], or mean less the mean of `other` float64[L].

    `resampled` float64[B, K] holds the figures in resamples of whole clusters, the same in each
    column; `clusters` is their number. With s^2 the variance among the runs of a configuration and
    Cov2, Cov3 the covariances, over the resamples, of two runs of the same and of different
    configurations,

        error^2 = s_1^2 / K + s_2^2 / L + max(Cov2_1 + Cov2_2 - 2 Cov3, 0):

    the method of Obuchowski and Rockette (1995, Commun Stat Simul 24:285) for readers nested within
    tests. s^2 holds what runs differ by on these patients, so the covariance of a run with itself
    is left out: adding it, as resampling both at once does, would count that part twice. Degrees of
    freedom by Satterthwaite from those of the terms, K - 1, L - 1 and `clusters` - 1, as Hillis has
    it (2007, Stat Med 26:596).
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
    return Spread(value, math.sqrt(square), math.sqrt(fixed), freedom)


def _parts(values: np.ndarray, resampled: np.ndarray) -> tuple[float, float, float]:
    """Of one configuration: s^2 / K, Cov2, and the part of the first that patients do not shrink.

    s^2 holds also what runs differ by on these very patients: the variance of a run over resamples
    less its covariance with another.
    """
    count = len(values)
    covariance = np.cov(resampled, rowvar=False)
    trace = float(np.trace(covariance))
    pairs = (float(covariance.sum()) - trace) / (count * (count - 1))
    variance = float(values.var(ddof=1))
    variance = variance if variance > ROUNDING else 0.0
    return variance / count, pairs, max(variance - (trace / count - pairs), 0.0) / count
