"""ROC and precision-recall curves: intervals of the areas, the curves, and pointwise 95 % bands.

The intervals rest on each row's influence on the area, summed by cluster, on the scale of the
logit, so that limits stay in (0, 1) and are skewed correctly near 1, with a t quantile for the few
rows that matter there. In simulations of small test sets (83 images, six classes, 6 to 22 cases)
this holds its level where the percentile bootstrap falls to 85-90 % (AUC) and 50-90 % (average
precision).

A band gives, for each false positive rate (or recall) of a grid, the limits of the sensitivity (or
precision). Its variance comes from resampling whole clusters; the limits are Wilson's for the
number of rows that this variance corresponds to, so that a band has width even where all resamples
agree: a perfect classifier of six cases is not known to be perfect.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import scipy

from fracnet.metrics import classification
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import (
    LEVEL,
    RESAMPLES,
    ROUNDING,
    Interval,
    bootstrap,
    logit_interval,
    score_limits,
)
from fracnet.utils.text import counted


def auc_intervals(
    target: np.ndarray, prob: np.ndarray, clusters: Clusters, level: float = LEVEL
) -> list[Interval]:
    """Intervals of each class's AUC and, last, of their macro average over the defined classes.

    The variance is DeLong's (1988, Biometrics 44:837); where rows cluster, the influences are
    summed by cluster first, as Obuchowski does (1997, Biometrics 53:567). An AUC of 0 or 1 has no
    variance, but an exact limit (`_limit_at_end`).
    """
    method = "logit, DeLong" if clusters.trivial else "logit, Obuchowski"
    values, moves = classification.auc(target, prob), influence(target, prob, clusters)
    pairs = [_independent_pairs(target == c, clusters) for c in range(len(values))]
    return _intervals("AUC", values, moves, target, clusters, method, level, pairs)


def average_precision_intervals(
    target: np.ndarray, prob: np.ndarray, clusters: Clusters
) -> list[Interval]:
    """Intervals of each class's average precision and, last, of their macro average.

    In a small sample the average precision tends to lie above the population's (by 0.03 to 0.06 at
    83 images and six classes of moderate accuracy); the interval is skewed down and covers it.
    """
    values = classification.average_precision(target, prob)
    moves = precision_influence(target, prob, clusters)
    method = f"logit, delta method by {clusters.unit}"
    return _intervals("average precision", values, moves, target, clusters, method, LEVEL)


def _intervals(
    name: str,
    values: np.ndarray,
    moves: np.ndarray,
    target: np.ndarray,
    clusters: Clusters,
    method: str,
    level: float,
    pairs: Sequence[int] = (),
) -> list[Interval]:
    def interval(value: float, moves: np.ndarray, why: str, pairs: int = 0) -> Interval:
        if why:
            return Interval(None, None, method, why)
        if pairs and not ROUNDING < value < 1 - ROUNDING:
            return _limit_at_end(round(value), pairs, level)
        return logit_interval(value, moves, clusters, method, name, level)

    reasons = [_no_interval_reason(target == c, clusters) for c in range(len(values))]
    pairs = pairs or [0] * len(values)
    results = [interval(float(v), moves[:, c], reasons[c], pairs[c]) for c, v in enumerate(values)]
    defined = ~np.isnan(values)
    if not defined.any():
        return [*results, interval(math.nan, moves, "undefined: every row is of one class")]
    # A class without variance leaves the mean without one, too.
    why = next((why for why, known in zip(reasons, defined, strict=True) if known and why), "")
    why = f"a class without an interval: {why}" if why else ""
    mean = moves[:, defined].mean(axis=1)
    # If their mean is below x, then so is one of them: the fewest pairs bound the mean, too.
    fewest = min(n for n, known in zip(pairs, defined, strict=True) if known)
    return [*results, interval(float(values[defined].mean()), mean, why, fewest)]


def _independent_pairs(case: np.ndarray, clusters: Clusters) -> int:
    """The most pairs of a case and a non-case of which no two share a cluster, nor do the two."""
    holders = [np.unique(clusters.ids[rows]) for rows in (case, ~case)]
    return min(*map(len, holders), len(np.union1d(*holders)) // 2)


def _limit_at_end(value: int, pairs: int, level: float) -> Interval:
    """Exact interval of an AUC of 1 (or 0): all cases score higher (lower) than all others.

    Then those of `pairs` independent pairs do, which has a probability of AUC**pairs at most. For
    that alone Clopper and Pearson's limit for `pairs` of `pairs` successes holds its level.
    """
    limit = ((1 - level) / 2) ** (1 / pairs)
    note = f"the AUC is {value}: exact limit from {counted(pairs, 'independent pair')}"
    low, high = (limit, 1.0) if value else (0.0, 1 - limit)
    return Interval(low, high, "exact, Clopper-Pearson", note)


def _no_interval_reason(case: np.ndarray, clusters: Clusters) -> str:
    """Why the area of a class is undefined, or has no variance; "" if it has one."""
    if why := no_curve_reason(case):
        return f"undefined: {why}"
    for rows, name in ((case, "cases"), (~case, "others")):
        if len(np.unique(clusters.ids[rows])) < 2:
            alone = "there is only one case" if name == "cases" else "all rows but one are cases"
            return alone if rows.sum() == 1 else f"all {name} come from one {clusters.unit}"
    return ""


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
            moves[rows, c] = (part - above.mean()) / len(part) * _scale(rows, clusters)
    return moves


def precision_influence(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> np.ndarray:
    """How far each row moves each class's average precision, float64[N, C]; NaN where undefined.

    The derivative by the row's weight: for P cases with precision q_i among the r_i rows that score
    at least as high, row j of score s_j and truth y_j moves it by

        (y_j (q_j - AP) + sum over the cases i with s_i <= s_j of (y_j - q_i) / r_i) / P,

    times sqrt(I / (I - 1)) for the I clusters with cases, or with others, as in `influence`.
    """
    moves = np.full(prob.shape, np.nan)
    for c in range(prob.shape[1]):
        case = target == c
        if case.all() or not case.any():
            continue
        order = np.argsort(-prob[:, c], kind="stable")
        falling, hit = -prob[order, c], case[order]
        cases = falling[hit]
        rank = np.searchsorted(falling, cases, side="right")
        precise = np.searchsorted(cases, cases, side="right") / rank
        # Sums over the cases from the first that scores no higher than the row, to the last.
        first = np.searchsorted(cases, falling, side="left")
        gained = np.append(np.cumsum((1 / rank)[::-1])[::-1], 0.0)[first]
        lost = np.append(np.cumsum((precise / rank)[::-1])[::-1], 0.0)[first]
        move = hit * gained - lost
        move[hit] += precise - precise.mean()
        moves[order, c] = move / hit.sum()
        for rows in (case, ~case):
            moves[rows, c] *= _scale(rows, clusters)
    return moves


def _scale(rows: np.ndarray, clusters: Clusters) -> float:
    groups = len(np.unique(clusters.ids[rows]))
    return math.sqrt(groups / (groups - 1)) if groups > 1 else math.nan


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each value; ties count half."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / 2 / len(others))


GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Curve:
    """Corners of a curve, float64[K] each, from the highest threshold down.

    A row at or above the threshold is predicted positive; the first threshold is infinite.
    """

    x: np.ndarray
    y: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class Band:
    """Limits `low`, `high` float64[G] of a curve at `x` float64[G]; NaN where undefined."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    method: str
    note: str = ""


def no_curve_reason(case: np.ndarray) -> str:
    """Why rows with these labels, bool[N], have no curve; empty if they have one."""
    if not len(case):
        return "no rows"
    if not case.any():
        return "no cases"
    return "every row is a case" if case.all() else ""


def roc(case: np.ndarray, score: np.ndarray) -> Curve:
    """False positive rate and sensitivity, from (0, 0) to (1, 1), at every distinct score.

    `case` is bool[N] with both kinds of rows, `score` float[N]. Equal scores make one corner.
    """
    hits, alarms, threshold = _counts(case, score)
    return Curve(_from_zero(alarms / alarms[-1]), _from_zero(hits / hits[-1]), threshold)


def precision_recall(case: np.ndarray, score: np.ndarray) -> Curve:
    """Recall and precision at every distinct score, by rising recall, to recall 1.

    Between its corners precision is not a straight line (Davis and Goadrich 2006, ICML): draw
    steps, each level up to its own recall. The first corner, recall 0 and precision 1, is a
    convention and belongs to no threshold. Arguments as for `roc`.
    """
    hits, alarms, threshold = _counts(case, score)
    precision = np.concatenate([[1.0], hits / (hits + alarms)])
    return Curve(_from_zero(hits / hits[-1]), precision, threshold)


def steps(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of the steps that draw a `precision_recall` curve.

    The first threshold that reaches a recall gives its precision, level from the recall before; the
    area below is the average precision. Starts at recall 0 with the first such precision.
    """
    rises = np.flatnonzero(np.diff(curve.x) > 0) + 1
    y = curve.y[rises]
    return _from_zero(curve.x[rises]), np.concatenate([y[:1], y])


def _band(
    at_grid: Callable[[np.ndarray, np.ndarray], np.ndarray],
    case: np.ndarray,
    score: np.ndarray,
    clusters: Clusters,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Band:
    """Pointwise limits of the curve that `at_grid` computes; `case` bool[N], `score` float[N]."""
    grid = GRID if at_grid is _sensitivity_at else GRID[1:]
    method = f"pointwise, {resamples:,} resamples by {clusters.unit}"
    nothing = np.full(len(grid), np.nan)
    reason = no_curve_reason(case)
    holders = [np.unique(clusters.ids[rows], return_counts=True)[1] for rows in (case, ~case)]
    if not reason and min(map(len, holders)) < 2:
        reason = f"all cases, or all others, are one {clusters.unit}"
    if reason:
        return Band(grid, nothing, nothing, method, reason)
    groups = _Groups(case, score)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return at_grid(*groups.counts(weights))

    (value,) = statistic(np.ones((1, len(case))))
    resampled = bootstrap(statistic, clusters, resamples=resamples, seed=seed)
    # Where nothing varies, assume complete correlation within clusters.
    sizes = holders[0]
    least, most = sizes.sum() ** 2 / (sizes**2).sum(), float(sizes.sum())
    variance = np.nanvar(resampled, axis=0)
    spread = value * (1 - value)
    n = np.full(len(value), float(least))
    np.divide(spread, variance, out=n, where=(variance > 0) & (spread > 0))
    # Wilson's, with t for the normal quantile: few clusters, few degrees of freedom.
    z = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(sizes) - 1))
    low, high = score_limits(value, np.clip(n, 1.0, most), z)
    low, high = np.clip(low, 0, value), np.clip(high, value, 1)
    if at_grid is _precision_at:
        # The single lowest case decides; in simulations the limits cover only half the time.
        last = grid * case.sum() > case.sum() - 1 + 1e-9
        low[last], high[last] = np.nan, np.nan
    return Band(grid, low, high, method)


class _Groups:
    """Rows sorted by falling score once, ties together, so that each resample is a sum."""

    def __init__(self, case: np.ndarray, score: np.ndarray) -> None:
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=np.inf))
        self._case = case[self._order]
        self.threshold = np.concatenate([[np.inf], ordered[self._starts]])

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cases and others at and above each distinct score, float64[B, K], from weights [B, N]."""
        ordered = weights[:, self._order]
        hits = np.add.reduceat(ordered * self._case, self._starts, axis=1)
        alarms = np.add.reduceat(ordered * ~self._case, self._starts, axis=1)
        return np.cumsum(hits, axis=1), np.cumsum(alarms, axis=1)


def _counts(case: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cases and others at and above each distinct score, and that score after infinity."""
    assert not no_curve_reason(case), no_curve_reason(case)
    groups = _Groups(case, score)
    hits, alarms = groups.counts(np.ones((1, len(case))))
    return hits[0], alarms[0], groups.threshold


def _from_zero(values: np.ndarray) -> np.ndarray:
    """With a 0 in front, along the last axis."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), values], axis=-1)


def _sensitivity_at(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Sensitivity at each false positive rate of `GRID`; NaN if one kind of rows is missing.

    The highest where the curve rises vertically, interpolated where ties make it slanted.

    Args:
        hits, alarms: whole numbers, float64[B, K], of B curves as `_Groups.counts` gives them.

    Returns:
        float64[B, G].
    """
    cases, others = hits[:, -1:], alarms[:, -1:]
    defined = ((cases > 0) & (others > 0)).ravel()
    x = _from_zero(alarms[defined] / others[defined])
    y = _from_zero(hits[defined] / cases[defined])
    reached = np.floor((GRID + 1e-12) * others[defined])
    at = _search(_from_zero(alarms[defined]), reached, "right") - 1
    after = np.minimum(at + 1, x.shape[1] - 1)
    below, start = np.take_along_axis(x, at, 1), np.take_along_axis(y, at, 1)
    run = np.take_along_axis(x, after, 1) - below
    part = np.divide(GRID - below, run, out=np.zeros_like(run), where=run > 0)
    values = np.full((len(hits), len(GRID)), np.nan)
    rise = np.take_along_axis(y, after, 1) - start
    values[defined] = start + np.maximum(part, 0) * rise
    return values


def _precision_at(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Precision at the highest threshold that reaches each recall of `GRID[1:]`; NaN without cases.

    Arguments as for `_sensitivity_at`; float64[B, G - 1].
    """
    cases = hits[:, -1:]
    defined = (cases > 0).ravel()
    wanted = np.ceil(GRID[1:] * cases[defined] - 1e-9)
    at = _search(hits[defined], wanted, "left")
    found = np.take_along_axis(hits[defined], at, 1)
    values = np.full((len(hits), len(GRID) - 1), np.nan)
    values[defined] = found / (found + np.take_along_axis(alarms[defined], at, 1))
    return values


def _search(rows: np.ndarray, wanted: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """`np.searchsorted` of wanted [B, G] in sorted rows [B, K], row by row; whole numbers from 0.

    In one search, with all numbers of a row above those of the row before it.
    """
    above = np.arange(len(rows))[:, None] * (rows.max(initial=0) + 2)
    places = np.searchsorted((rows + above).ravel(), (wanted + above).ravel(), side)
    return places.reshape(wanted.shape) - np.arange(len(rows))[:, None] * rows.shape[1]


roc_band = partial(_band, _sensitivity_at)
"""Pointwise limits of the sensitivity at each false positive rate of `GRID`; see `_band`."""
precision_recall_band = partial(_band, _precision_at)
"""Pointwise limits of the precision at each recall of `GRID` except 0; see `_band`.

NaN at recalls that only the threshold of the lowest case reaches.
"""
