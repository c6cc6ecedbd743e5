"""Runs side by side on the same test rows: ranking by validation, differences, tests, verdicts.

The interval of a difference of two models. Areas under the ROC curve have a variance of their own
and the interval that matches their test. For other metrics both models are scored in the same
resamples of whole clusters. The plain percentile interval is too narrow where few clusters decide:
it ignores that a sample varies less than its population, and the t quantile. In simulations of 83
images in six classes it covered 92-95 %; widened (`stretch`), 94-96 %.

The test asks whether two models would differ as much if chance decided which of them made which
prediction. Within each cluster the predictions of both are swapped or not, as a whole, so
independence of rows is not assumed.

"This model is better" is a statement about two trained networks and patients like these. "This
configuration is better" is one about what training with other seeds would give; it needs several
runs of each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats
from scipy.stats import rankdata

from fracnet.config.instantiate import near_miss
from fracnet.evaluation.decisions import decide_rows
from fracnet.evaluation.metric_selection import Metric, Sample, cluster_sums, find_metric
from fracnet.evaluation.predictions import Predictions, align, rows_of_split
from fracnet.evaluation.summary import FEW, TOO_FEW, plain, summarize
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import (
    ALPHA,
    ENOUGH,
    POWER,
    AreaDifference,
    Test,
    area_difference,
    area_test,
    clusters_needed,
    detectable,
    holm,
    mcnemar,
    spread_over_runs,
)
from fracnet.metrics.intervals import CHUNK, LEVEL, Interval, freedom, percentile
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

BETTER, WORSE, UNDECIDED, IDENTICAL = "better", "worse", "undecided", "identical"
SWAPS = 9999
SWAPS_OF_AREAS = 1999
"""Fewer, because areas are sorted again for each swap."""
MAX_BITS = 30
"""With more clusters than this, the swaps are never all tried."""
TOLERANCE = 1e-10
"""Between floating-point sums of the same terms in another order."""
MIN_RESAMPLES = 2
"""Resamples where no interval rests on them: the fewest that `summarize` accepts."""
MIN_CLUSTERS_TO_PLAN, MIN_CASES_TO_PLAN = 20, 10
"""With fewer, no detectable difference and no sample size is computed (`with_verdicts`)."""
MIN_RUNS = 3
"""Of two runs the interval of the mean covered 90 % in simulation, of three and more 93-96 %."""


@dataclass(frozen=True)
class Difference:
    """`name` minus `reference` in one metric; NaN and None mean undefined.

    kind: "model" (one run of each) or "configuration".
    runs: the run of each, or the number of runs of each.
    error: standard error; `of_seeds` is the part of it that more patients would not reduce.
    holm: p corrected for all differences of this kind.
    verdict: on the first against the second, None without a test. One is called better only if
        both the corrected test and the interval say so.
    agree: whether the test, uncorrected like the interval, and the interval agree about 0; None
        where one of them is missing.
    within: whether the whole interval lies within the margin; None without margin or interval.
    detectable: the true difference that these patients would show in 8 of 10 such comparisons.
    needed: patients (or whatever the clusters are) needed to show a true difference of the margin
        as often; None without a margin, where these suffice (detectable is at most the margin), or
        where no number would do.
    unplanned: why `detectable` and `needed` cannot be estimated, "" where they can.
    alpha: level of `detectable` and `needed`: 0.05 divided by the number of differences.
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
    unplanned: str = ""

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


@dataclass(frozen=True)
class Member:
    """A run: its predictions for val and test; of two classes, its threshold in log-odds."""

    name: str
    predictions: Predictions
    cut: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A configuration with its runs."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Standing:
    """The metric of a candidate: means over its runs. `chosen` is the run of the best validation.

    validations, values: of each of `runs`, on val and on test.
    """

    name: str
    runs: tuple[str, ...]
    chosen: str
    validations: tuple[float, ...]
    values: tuple[float, ...]
    validation: float
    value: float
    low: float | None
    high: float | None
    method: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """Candidates in the order of validation, and the differences between them."""

    metric: Metric
    level: str
    n: int
    clusters: Clusters
    margin: float | None
    standings: tuple[Standing, ...]
    models: tuple[Difference, ...]
    configurations: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        return {
            "metric": self.metric.name,
            "class_name": self.metric.class_name,
            "larger_is_better": self.metric.larger_is_better,
            "margin": self.margin,
            # The basis of `detectable` and `needed`; `alpha` of a difference is the corrected one.
            "planning": {"power": POWER, "alpha": ALPHA, "error": "as observed on these rows"},
            "test": {
                "level": self.level,
                "n": self.n,
                "clusters": self.clusters.count,
                "unit": self.clusters.unit,
            },
            "standings": plain(self.standings),
            "models": [row.to_dict() for row in self.models],
            "configurations": [row.to_dict() for row in self.configurations],
        }


def compare(
    candidates: Sequence[Candidate],
    metric_name: str,
    *,
    class_name: str | None = None,
    level: str = "image",
    reference: str | None = None,
    pairs: str = "reference",
    margin: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress[Any] = no_progress,
) -> Comparison:
    """Compare candidates on the same test rows.

    Args:
        candidates: at least two.
        metric_name: see `find_metric`; `class_name` for a metric of one class.
        level: what a row of the tables is.
        reference: name of a candidate or of a run; by default the first by validation.
        pairs: "reference": every other candidate minus the reference; "all": each pair, the lower
            ranked minus the higher ranked.
        margin: the smallest difference that matters, if any.
        resamples: of whole clusters, the same for all runs.
        seed: of resamples and swaps.
        progress: shows the runs, each of which takes a moment.

    Raises:
        UserError: runs on different test rows, or an unknown metric, class or reference.
    """
    members = [member for candidate in candidates for member in candidate.members]
    rows = align({member.name: member.predictions for member in members}, "test")
    first = rows[members[0].name]
    metric = find_metric(metric_name, first.classes, class_name)
    clusters = first.clusters
    samples = {m.name: sample_of(rows[m.name], m.cut) for m in members}
    resampled: dict[str, np.ndarray] = {}
    for member in progress(members, len(members), "resampling"):
        resampled[member.name] = metric.resampled(samples[member.name], clusters, resamples, seed)
    standings = [
        _standing(metric, candidate, samples, resampled, rows, clusters)
        for candidate in progress(candidates, len(candidates), "scoring")
    ]
    sign = -1 if metric.larger_is_better else 1
    standings.sort(key=lambda s: math.inf if math.isnan(s.validation) else sign * s.validation)
    selected = _pairs(standings, reference, pairs)
    models, configurations = [], []
    for left, right in progress(selected, len(selected), "comparing"):
        names, chosen = (left.name, right.name), (left.chosen, right.chosen)
        models.append(
            compare_models(
                metric,
                names,
                chosen,
                (samples[left.chosen], samples[right.chosen]),
                (resampled[left.chosen], resampled[right.chosen]),
                clusters,
                seed,
            )
        )
        if min(len(left.runs), len(right.runs)) >= ENOUGH:
            values = [np.array([metric.value(samples[r]) for r in s.runs]) for s in (left, right)]
            draws = [np.column_stack([resampled[r] for r in s.runs]) for s in (left, right)]
            configurations.append(
                compare_configurations(
                    names, (values[0], values[1]), (draws[0], draws[1]), clusters
                )
            )
    better, cases = metric.larger_is_better, metric.cases(first.targets)
    return Comparison(
        metric=metric,
        level=level,
        n=len(first),
        clusters=clusters,
        margin=margin,
        standings=tuple(standings),
        models=tuple(with_verdicts(models, clusters, better, margin, cases)),
        configurations=tuple(with_verdicts(configurations, clusters, better, margin, cases)),
    )


def sample_of(predictions: Predictions, cut: float | None = None) -> Sample:
    """Rows with the likeliest class as the predicted one, or that of a threshold in log-odds."""
    predicted = decide_rows(predictions, cut)
    return Sample(predictions.targets, predictions.probabilities, predicted, predictions.scores)


def _standing(
    metric: Metric,
    candidate: Candidate,
    samples: Mapping[str, Sample],
    resampled: Mapping[str, np.ndarray],
    rows: Mapping[str, Predictions],
    clusters: Clusters,
) -> Standing:
    names = tuple(member.name for member in candidate.members)
    validation = np.array([_on_validation(metric, member) for member in candidate.members])
    best = 0
    if not np.isnan(validation).all():
        best = int((np.nanargmax if metric.larger_is_better else np.nanargmin)(validation))
    values = np.array([metric.value(samples[name]) for name in names])
    per_run = tuple(map(float, validation)), tuple(map(float, values))
    common = candidate.name, names, names[best], *per_run, float(validation.mean())
    if len(names) == 1:
        count = MIN_RESAMPLES if metric.closed_form else len(resampled[names[0]])
        summary = summarize(rows[names[0]], samples[names[0]].predicted, resamples=count)
        single = metric.estimate(summary)
        return Standing(*common, single.value, single.low, single.high, single.method, single.note)
    if len(names) < MIN_RUNS:
        note = f"{len(names)} runs are too few for an interval of their mean"
        return Standing(*common, float(values.mean()), None, None, "", note)
    draws = np.column_stack([resampled[name] for name in names])
    mean = spread_over_runs(values, draws[~np.isnan(draws).any(axis=1)], clusters.count)
    low, high = mean.limits(share=metric.from_0_to_1) or (None, None)
    note = "degenerate: equal in all runs and resamples" if low is None else ""
    return Standing(*common, mean.value, low, high, f"by seed and {clusters.unit}", note)


def _on_validation(metric: Metric, member: Member) -> float:
    if not len(member.predictions.split("val")):
        return math.nan
    rows = rows_of_split(member.name, member.predictions, "val")
    return metric.value(sample_of(rows, member.cut))


def _pairs(
    standings: Sequence[Standing], reference: str | None, pairs: str
) -> list[tuple[Standing, Standing]]:
    if pairs == "all":
        return [(lower, upper) for upper, lower in combinations(standings, 2)]
    base = standings[0] if reference is None else _find_standing(standings, reference)
    return [(standing, base) for standing in standings if standing.name != base.name]


def _find_standing(standings: Sequence[Standing], reference: str) -> Standing:
    """The candidate of this name, or the one with a run of this name, which then represents it."""
    for standing in standings:
        if reference == standing.name:
            return standing
        if reference in standing.runs:
            return replace(standing, chosen=reference)
    allowed = [s.name for s in standings] + [run for s in standings for run in s.runs]
    allowed = list(dict.fromkeys(allowed))
    raise UserError(
        f"reference={reference} is not one of the runs; allowed: {'; '.join(allowed)}."
        f"{near_miss(reference, allowed)}"
    )


def compare_models(
    metric: Metric,
    names: tuple[str, str],
    runs: tuple[str, str],
    samples: tuple[Sample, Sample],
    resampled: tuple[np.ndarray, np.ndarray],
    clusters: Clusters,
    seed: int = 0,
) -> Difference:
    """One run minus another. `resampled` float64[B] each: the metric in the same resamples."""
    left, right = samples
    value = metric.value(left) - metric.value(right)
    gaps = resampled[0] - resampled[1]
    error = float(np.nanstd(gaps, ddof=1)) if (~np.isnan(gaps)).sum() > 1 else math.nan
    if clusters.count < 2:
        interval = Interval(None, None, "", f"all rows are one {clusters.unit}")
        test = Test(None, "", interval.note)
    elif same := _identical_part(metric, left, right):
        interval, test = Interval(None, None, "", ""), Test(1.0, "", f"{IDENTICAL} {same}")
    elif metric.is_area:
        areas = area_difference(left.target, left.ranking, right.ranking, clusters, metric.index)
        interval, test = area_interval(areas, clusters), area_test(areas, clusters)
        error = areas.error
    else:
        interval = difference_interval(metric, left, right, gaps, clusters)
        test = _test(metric, left, right, clusters, seed)
    few = TOO_FEW if metric.cases(left.target) < FEW else ""
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


def compare_configurations(
    names: tuple[str, str],
    values: tuple[np.ndarray, np.ndarray],
    resampled: tuple[np.ndarray, np.ndarray],
    clusters: Clusters,
) -> Difference:
    """Several runs minus several: their metrics float64[K] and, resampled, float64[B, K]."""
    defined = ~np.isnan(np.hstack(resampled)).any(axis=1)
    left, right = (part[defined] for part in resampled)
    gap = spread_over_runs(values[0], left, clusters.count, values[1], right)
    low, high = gap.limits() or (None, None)
    method = f"Obuchowski-Rockette by seed and {clusters.unit}"
    return Difference(
        name=names[0],
        reference=names[1],
        kind="configuration",
        runs=(len(values[0]), len(values[1])),
        value=gap.value,
        low=low,
        high=high,
        method=method,
        p=gap.p(),
        test=method,
        note="" if low is not None else "equal in all runs and resamples",
        error=gap.error,
        of_seeds=gap.of_seeds,
    )


def with_verdicts(
    differences: list[Difference],
    clusters: Clusters,
    larger_is_better: bool,
    margin: float | None,
    cases: int | None = None,
) -> list[Difference]:
    """Differences of one kind with p values corrected for their number, verdicts and planning.

    cases: rows that the metric rests on, None if many. With few of them, or few clusters, nothing
    is planned: the normal approximation of `detectable` promises too much (in simulations, what
    should show in 80 % showed in 35 % with 10 patients, in 14 % with 6 cases).
    """
    unplanned = ""
    if clusters.count < MIN_CLUSTERS_TO_PLAN:
        unit = "cluster" if "," in clusters.unit else clusters.unit
        unplanned = f"with fewer than {counted(MIN_CLUSTERS_TO_PLAN, unit)}"
    elif cases is not None and cases < MIN_CASES_TO_PLAN:
        unplanned = f"with fewer than {MIN_CASES_TO_PLAN} cases"
    if unplanned:
        unplanned += ", the smallest detectable difference cannot be estimated"
    tested = [row for row in differences if row.p is not None]
    corrected = iter(holm([row.p for row in tested if row.p is not None]))
    alpha = ALPHA / max(len(tested), 1)
    result = []
    for row in differences:
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
        least = detectable(row.error, alpha) if row.error > 0 and not unplanned else None
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
                unplanned=unplanned if row.error > 0 else "",
            )
        )
    return result


def _identical_part(metric: Metric, left: Sample, right: Sample) -> str:
    """What two models share that makes a comparison of them empty; "" if nothing."""
    decisions = bool((left.predicted == right.predicted).all())
    if decisions and (left.prob == right.prob).all() and (left.ranking == right.ranking).all():
        return "predictions"
    return "decisions" if decisions and metric.of_decisions else ""


def _test(metric: Metric, left: Sample, right: Sample, clusters: Clusters, seed: int) -> Test:
    """The test that fits the rows and the metric, which is not an area."""
    if not (metric.is_share and clusters.trivial):
        return permutation_test(metric, left, right, clusters, seed=seed)
    rows = np.ones(len(left.target), dtype=bool)
    if metric.name == "sensitivity":
        rows = left.target == metric.index
    elif metric.name == "specificity":
        rows = left.target != metric.index
    correct = []
    for sample in (left, right):
        if metric.index is None:
            is_correct = sample.predicted == sample.target
        else:
            is_correct = (sample.predicted == metric.index) == (sample.target == metric.index)
        correct.append(is_correct[rows])
    return mcnemar(*correct)


def area_interval(difference: AreaDifference, clusters: Clusters, level: float = LEVEL) -> Interval:
    """Value plus and minus t standard errors, cut off at -1 and 1.

    It excludes 0 exactly where p of `area_test` is below 1 - `level`.
    """
    test = area_test(difference, clusters)
    if not difference.error > 0:
        return Interval(None, None, test.method, test.note)
    half = float(stats.t.ppf((1 + level) / 2, difference.freedom)) * difference.error
    low, high = difference.value - half, difference.value + half
    return Interval(max(low, -1.0), min(high, 1.0), test.method)


def difference_interval(
    metric: Metric,
    left: Sample,
    right: Sample,
    gaps: np.ndarray,
    clusters: Clusters,
    level: float = LEVEL,
) -> Interval:
    """Interval of `left` minus `right`; `gaps` float64[B] are the differences in the resamples.

    Percentiles at the normal tail of `stretch` instead of at 1.96 (Hesterberg 2015, Am Stat
    69:371, the expanded percentile interval).
    """
    tail = float(stats.norm.sf(stretch(metric, left, right, gaps, clusters, level)))
    return percentile(gaps, clusters, 1 - 2 * tail)


def stretch(
    metric: Metric,
    left: Sample,
    right: Sample,
    gaps: np.ndarray,
    clusters: Clusters,
    level: float = LEVEL,
) -> float:
    """How many standard deviations of `gaps` away either limit lies, for normal ones.

    Average precision: t of G - 1 degrees of freedom times sqrt(G / (G - 1)), for G clusters. For a
    function of sums: t of the degrees of freedom that the jackknife's terms are worth, times the
    ratio of the jackknife's standard error to the bootstrap's where that is larger, as for a class
    of six cases.
    """
    count = clusters.count
    ratio, degrees = math.sqrt(count / (count - 1)), float(count - 1)
    if metric.additive:
        left_out = _left_out(metric, left, clusters) - _left_out(metric, right, clusters)
        moves = left_out - np.nanmean(left_out)
        moves = np.where(np.isnan(moves), 0.0, moves)
        deviation = float(np.nanstd(gaps))
        if deviation > 0 and (moves != 0).any():
            error = math.sqrt((count - 1) / count * float((moves**2).sum()))
            ratio, degrees = max(ratio, error / deviation), freedom(moves)
    return float(stats.t.ppf((1 + level) / 2, degrees)) * ratio


def _left_out(metric: Metric, sample: Sample, clusters: Clusters) -> np.ndarray:
    """The metric without each cluster in turn, float64[G]."""
    sums = cluster_sums(metric.parts(sample), clusters)
    return metric.of_sums(sums.sum(axis=0) - sums)


def permutation_test(
    metric: Metric,
    left: Sample,
    right: Sample,
    clusters: Clusters,
    *,
    swaps: int | None = None,
    seed: int = 0,
) -> Test:
    """Cluster permutation test of a metric's difference between two models on the same rows.

    Tries all swaps if there are no more than `swaps`, else that many drawn by `seed`; the observed
    one then counts as one of them. A swap that leaves the metric undefined counts against a
    difference.
    """
    method = f"permutation by {clusters.unit}"
    limit = swaps or (SWAPS if metric.additive else SWAPS_OF_AREAS)
    observed = abs(metric.value(left) - metric.value(right))
    if np.isnan(observed):
        return Test(None, method, "undefined")
    exhaustive = clusters.count <= MAX_BITS and 2**clusters.count <= limit + 1
    total = 2**clusters.count if exhaustive else limit
    difference = _swapped(metric, left, right, clusters)
    rng = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, total, CHUNK):
        size = min(CHUNK, total - start)
        if exhaustive:
            swap = np.arange(start, start + size)[:, None] >> np.arange(clusters.count) & 1
        else:
            swap = rng.integers(2, size=(size, clusters.count))
        moved = np.abs(difference(swap.astype(np.float64)))
        as_far += int((~(moved < observed - TOLERANCE)).sum())
    return Test(as_far / total if exhaustive else (as_far + 1) / (total + 1), method)


def _swapped(
    metric: Metric, left: Sample, right: Sample, clusters: Clusters
) -> Callable[[np.ndarray], np.ndarray]:
    """Left minus right, float64[B], as a function of the swaps float64[B, G], 0 or 1."""
    if metric.additive:
        first, second = (cluster_sums(metric.parts(own), clusters) for own in (left, right))

        def of_sums(swap: np.ndarray) -> np.ndarray:
            moved = swap @ (second - first)
            mine, other = first.sum(axis=0) + moved, second.sum(axis=0) - moved
            return metric.of_sums(mine) - metric.of_sums(other)

        return of_sums
    # Ranks: the scores of two models need not mean the same.
    both = Sample(
        np.tile(left.target, 2),
        np.concatenate([rankdata(own.ranking, axis=0) for own in (left, right)]),
        np.concatenate([left.predicted, right.predicted]),
    )

    def of_rows(swap: np.ndarray) -> np.ndarray:
        other = swap[:, clusters.ids]
        mine = np.hstack([1 - other, other])
        return metric.weighted(both, mine) - metric.weighted(both, 1 - mine)

    return of_rows
