"""Intervals of the area under the ROC curve, per class and macro, from its clustered variance.

On the scale of the logit, so that limits stay in (0, 1) and lean the right way near 1, with a t
quantile for the few rows that matter there. In simulations of small test sets (83 images, six
classes, 6 to 22 cases) it holds its level where the percentile bootstrap falls to 85-90 %.
"""

import math

import numpy as np
from scipy import stats
from scipy.special import expit

from fracnet.evaluation import metrics
from fracnet.evaluation.intervals import LEVEL, Interval
from fracnet.evaluation.predictions import Clusters

# Fewest degrees of freedom assumed. In simulation 4 still covers; fewer only widens.
MIN_FREEDOM = 4.0


def auc_intervals(
    target: np.ndarray, prob: np.ndarray, clusters: Clusters, level: float = LEVEL
) -> list[Interval]:
    """Intervals of each class's AUC and, last, of their macro average over the defined classes.

    The variance is DeLong's (1988, Biometrics 44:837); where rows cluster, the influences are
    summed by cluster first, as Obuchowski does (1997, Biometrics 53:567).
    """
    values = metrics.auc(target, prob)
    moves = influence(target, prob, clusters)
    defined = ~np.isnan(values)
    # A class with cases, or non-cases, in one cluster only has no variance, nor has a mean with it.
    known = np.isfinite(moves).all(axis=0)
    results = []
    for c, value in enumerate(values):
        if not defined[c]:
            note = "no cases" if not (target == c).any() else "every row is a case"
            results.append(_none(clusters, f"undefined: {note}"))
        elif not known[c]:
            results.append(_none(clusters, f"all cases, or all others, are one {clusters.unit}"))
        else:
            results.append(_logit_interval(value, moves[:, c], clusters, level))
    if not defined.any():
        results.append(_none(clusters, "undefined: no class can be scored"))
    elif not known[defined].all():
        results.append(_none(clusters, f"all cases of a class are one {clusters.unit}"))
    else:
        mean = moves[:, defined].mean(axis=1)
        results.append(_logit_interval(float(values[defined].mean()), mean, clusters, level))
    return results


def influence(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> np.ndarray:
    """How far each row moves each class's AUC, float64[N, C]; NaN where undefined.

    A case moves it by (its chance to outscore a non-case - AUC) / cases, a non-case likewise, each
    times sqrt(I / (I - 1)) for the I clusters that hold such rows. The variance of the AUC is the
    sum of squares, after adding up within clusters.
    """
    moves = np.full(prob.shape, np.nan)
    for c in range(prob.shape[1]):
        case = target == c
        if case.all() or not case.any():
            continue
        score, rest = prob[case, c], prob[~case, c]
        above = _share_below(score, rest)
        below = 1 - _share_below(rest, score)
        for rows, part in ((case, above), (~case, below)):
            groups = len(np.unique(clusters.ids[rows]))
            scale = math.sqrt(groups / (groups - 1)) if groups > 1 else math.nan
            moves[rows, c] = (part - above.mean()) / len(part) * scale
    return moves


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each value, equals counted half."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / 2 / len(others))


def _logit_interval(value: float, moves: np.ndarray, clusters: Clusters, level: float) -> Interval:
    sums = np.bincount(clusters.ids, weights=moves, minlength=clusters.count)
    variance, count = float((sums**2).sum()), clusters.count
    if value in (0.0, 1.0):
        return _none(clusters, f"degenerate: the AUC is {value:.0f}")
    if variance == 0:
        return _none(clusters, "degenerate: no variance, as with equal scores")
    # Satterthwaite: the variance estimate's own variance, from the fourth moment of its terms,
    # says how many degrees of freedom it is worth: `count` for normal terms, fewer where a
    # handful of rows decides.
    kurtosis = count * float((sums**4).sum()) / variance**2
    freedom = max(MIN_FREEDOM, min(count, 2 * count / max(kurtosis - 1, 1e-9)))
    reach = float(stats.t.ppf((1 + level) / 2, freedom))
    reach *= math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    limits = float(expit(centre - reach)), float(expit(centre + reach))
    return Interval(*limits, _method(clusters))


def _none(clusters: Clusters, note: str) -> Interval:
    return Interval(None, None, _method(clusters), note)


def _method(clusters: Clusters) -> str:
    return "logit, DeLong" if clusters.trivial else "logit, Obuchowski"
