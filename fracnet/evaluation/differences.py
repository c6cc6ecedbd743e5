"""Two models on the same rows, or two configurations: difference, interval, test and verdict.

"This model is better" is a statement on two trained networks and on patients like these. "This
configuration is better" is one on what training would give again with other seeds; it takes
several runs of each.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fracnet.evaluation.figure import Figure, Sample
from fracnet.evaluation.intervals import Interval
from fracnet.evaluation.multiplicity import holm
from fracnet.evaluation.paired_interval import area_interval, difference_interval
from fracnet.evaluation.paired_tests import Test, area_difference, area_test, mcnemar
from fracnet.evaluation.permutation import permutation_test
from fracnet.evaluation.power import ALPHA, clusters_needed, detectable
from fracnet.evaluation.predictions import Clusters
from fracnet.evaluation.seeds import spread
from fracnet.evaluation.summary import FEW, TOO_FEW, plain

BETTER, WORSE, UNDECIDED, IDENTICAL = "better", "worse", "undecided", "identical"


@dataclass(frozen=True)
class Difference:
    """`name` less `reference` in one figure; NaN and None mean undefined.

    kind: "model" (one run of each) or "configuration".
    runs: the run of each, or how many of each.
    error: standard error; `of_seeds` is the part of it that more patients would not shrink.
    holm: p corrected for all differences of this kind.
    verdict: of the first against the second, None where there is no test. It takes both the
        corrected test and the interval to call one better.
    agree: whether test, uncorrected as the interval is, and interval say the same of 0; None where
        one of them is missing.
    within: whether the whole interval lies within the margin; None without margin or interval.
    detectable: the true difference that these patients would show in 8 of 10 such comparisons.
    needed: patients (or whatever the clusters are) for a true difference of the margin to be shown
        as often; None without a margin, where these suffice (detectable is no more than the
        margin), or where no number would do.
    alpha: level of `detectable` and `needed`: that of all differences of this kind by their number.
    """

    name: str
    reference: str
    kind: str
    runs: tuple[str, str] | tuple[int, int]
    value: float
    low: float | None
    high: float | None
    method: str
    p: float | None
    test: str
    note: str
    error: float
    of_seeds: float = 0.0
    holm: float | None = None
    verdict: str | None = None
    agree: bool | None = None
    within: bool | None = None
    detectable: float | None = None
    needed: int | None = None
    alpha: float | None = None

    @property
    def leaves_out_0(self) -> bool:
        """Whether the interval lies on one side of 0, the value's; False without an interval."""
        if self.low is None or self.high is None:
            return False
        return min(self.low, self.value) > 0 or max(self.high, self.value) < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        row: dict[str, Any] = plain(self)
        return row


def between_models(
    figure: Figure,
    names: tuple[str, str],
    runs: tuple[str, str],
    samples: tuple[Sample, Sample],
    resampled: tuple[np.ndarray, np.ndarray],
    clusters: Clusters,
    seed: int = 0,
) -> Difference:
    """One run against another. `resampled` float64[B] each: the figure in the same resamples."""
    one, two = samples
    value = figure.value(one) - figure.value(two)
    gaps = resampled[0] - resampled[1]
    error = float(np.nanstd(gaps, ddof=1)) if (~np.isnan(gaps)).sum() > 1 else math.nan
    if clusters.count < 2:
        interval = Interval(None, None, "", f"all rows are one {clusters.unit}")
        test = Test(None, "", interval.note)
    elif same := _same(figure, one, two):
        interval, test = Interval(None, None, "", ""), Test(1.0, "", f"{IDENTICAL} {same}")
    elif figure.is_area:
        areas = area_difference(one.target, one.prob, two.prob, clusters, figure.index)
        interval, test = area_interval(areas, clusters), area_test(areas, clusters)
        error = areas.error
    else:
        interval = difference_interval(figure, one, two, gaps, clusters)
        test = _test(figure, one, two, clusters, seed)
    few = TOO_FEW if figure.cases(one.target) < FEW else ""
    note = "; ".join(dict.fromkeys(filter(None, (interval.note, test.note, few))))
    return Difference(
        name=names[0],
        reference=names[1],
        kind="model",
        runs=runs,
        value=value,
        low=interval.low,
        high=interval.high,
        method=interval.method,
        p=test.p,
        test=test.method,
        note=note,
        error=error,
    )


def between_configurations(
    names: tuple[str, str],
    values: tuple[np.ndarray, np.ndarray],
    resampled: tuple[np.ndarray, np.ndarray],
    clusters: Clusters,
) -> Difference:
    """Several runs against several: their figures float64[K] and, resampled, float64[B, K]."""
    known = ~np.isnan(np.hstack(resampled)).any(axis=1)
    one, two = (part[known] for part in resampled)
    found = spread(values[0], one, clusters.count, values[1], two)
    low, high = found.limits() or (None, None)
    method = f"Obuchowski-Rockette by seed and {clusters.unit}"
    return Difference(
        name=names[0],
        reference=names[1],
        kind="configuration",
        runs=(len(values[0]), len(values[1])),
        value=found.value,
        low=low,
        high=high,
        method=method,
        p=found.p(),
        test=method,
        note="" if low is not None else "runs and resamples all give the same",
        error=found.error,
        of_seeds=found.of_seeds,
    )


def judged(
    found: list[Difference], clusters: Clusters, larger_is_better: bool, margin: float | None
) -> list[Difference]:
    """Differences of one kind with p values corrected for their number, and what they show."""
    tested = [row for row in found if row.p is not None]
    corrected = iter(holm([row.p for row in tested if row.p is not None]))
    alpha = ALPHA / max(len(tested), 1)
    result = []
    for row in found:
        adjusted = None if row.p is None else next(corrected)
        verdict: str | None = None
        if row.note.startswith(IDENTICAL):
            verdict = IDENTICAL
        elif adjusted is not None:
            verdict = UNDECIDED
            if adjusted < ALPHA and row.leaves_out_0:
                verdict = BETTER if (row.value > 0) == larger_is_better else WORSE
        needed = within = agree = None
        if row.low is not None and row.high is not None:
            if row.p is not None:
                agree = (row.p < ALPHA) == row.leaves_out_0
            if margin is not None:
                within = -margin < row.low and row.high < margin
        least = detectable(row.error, alpha) if row.error > 0 else None
        if margin is not None and least is not None and least > margin:
            needed = clusters_needed(
                row.error, clusters.count, margin, fixed=row.of_seeds, alpha=alpha
            )
        result.append(
            replace(
                row,
                holm=adjusted,
                verdict=verdict,
                agree=agree,
                within=within,
                detectable=least,
                needed=needed,
                alpha=alpha,
            )
        )
    return result


def _same(figure: Figure, one: Sample, two: Sample) -> str:
    """What two models have in common that makes any comparison of them empty; else nothing."""
    decisions = bool((one.predicted == two.predicted).all())
    if decisions and (one.prob == two.prob).all():
        return "predictions"
    return "decisions" if decisions and figure.of_decisions else ""


def _test(figure: Figure, one: Sample, two: Sample, clusters: Clusters, seed: int) -> Test:
    """The test that fits the figure, which is no area, and the rows."""
    if figure.is_share and clusters.trivial:
        rows = np.ones(len(one.target), dtype=bool)
        if figure.name == "sensitivity":
            rows = one.target == figure.index
        elif figure.name == "specificity":
            rows = one.target != figure.index
        decided = [_right(figure, sample)[rows] for sample in (one, two)]
        return mcnemar(*decided)
    return permutation_test(figure, one, two, clusters, seed=seed)


def _right(figure: Figure, sample: Sample) -> np.ndarray:
    """Whether the decision is right, bool[N]: for one class, on being it or not."""
    if figure.index is None:
        return np.asarray(sample.predicted == sample.target)
    return np.asarray((sample.predicted == figure.index) == (sample.target == figure.index))
