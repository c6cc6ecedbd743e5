"""Runs side by side on the same test rows: ranking by validation, differences, tests, verdicts.

"This model is better" is a statement about two trained networks and patients like these. "This
configuration is better" is one about what training with other seeds would give; it needs several
runs of each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from fracnet.config.instantiate import near_miss
from fracnet.evaluation.decisions import decide_rows
from fracnet.evaluation.metric_selection import (
    Metric,
    Sample,
    area_interval,
    difference_interval,
    find_metric,
    identical_part,
    paired_test,
)
from fracnet.evaluation.predictions import Predictions, align, rows_of_split
from fracnet.evaluation.summary import FEW, TOO_FEW, plain, summarize
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import (
    ALPHA,
    ENOUGH,
    POWER,
    Test,
    area_difference,
    area_test,
    clusters_needed,
    detectable,
    holm,
    spread_over_runs,
)
from fracnet.metrics.intervals import Interval
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

BETTER, WORSE, UNDECIDED, IDENTICAL = "better", "worse", "undecided", "identical"
MIN_RESAMPLES = 2
"""Resamples where no interval rests on them: the fewest that `summarize` accepts."""
MIN_CLUSTERS_TO_PLAN, MIN_CASES_TO_PLAN = 50, 10
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
class PointingGames:
    """Differences in the pointing game of heatmaps, on `images` annotated test images."""

    images: int
    values: Mapping[str, float]  # mean of each candidate
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Candidates in the order of validation, and the differences between them.

    localization: None where heatmaps of the same annotated images do not exist.
    """

    metric: Metric
    level: str
    n: int
    clusters: Clusters
    margin: float | None
    standings: tuple[Standing, ...]
    models: tuple[Difference, ...]
    configurations: tuple[Difference, ...]
    localization: PointingGames | None = None

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
            "localization": plain(self.localization),
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


def compare_pointing(
    result: Comparison, hits: Mapping[str, np.ndarray], clusters: Clusters, seed: int = 0
) -> PointingGames | None:
    """The pairs of a comparison by the pointing game of their heatmaps; None without any pair.

    With several runs of both, the runs' means are compared, otherwise the chosen runs.

    Args:
        result: of the comparison, which gives the pairs.
        hits: by run, those with heatmaps: bool [n] of the same images.
        clusters: of these images.
    """
    metric = Metric("accuracy", 2)  # a hit is a correct answer
    samples, resampled = {}, {}
    for name, hit in hits.items():
        inside = hit.astype(np.int64)
        samples[name] = Sample(np.ones_like(inside), np.eye(2)[inside], inside)
        resampled[name] = metric.resampled(samples[name], clusters, seed=seed)
    runs = {each.name: [run for run in each.runs if run in hits] for each in result.standings}
    rows = []
    for row in result.models:
        names, chosen = (row.name, row.reference), row.runs
        if all(len(runs[name]) >= ENOUGH for name in names):
            values = [np.array([hits[run].mean() for run in runs[name]]) for name in names]
            draws = [np.column_stack([resampled[run] for run in runs[name]]) for name in names]
            pair = compare_configurations(
                names, (values[0], values[1]), (draws[0], draws[1]), clusters
            )
        elif all(run in hits for run in chosen):
            left, right = str(chosen[0]), str(chosen[1])
            pair = compare_models(
                metric,
                names,
                (left, right),
                (samples[left], samples[right]),
                (resampled[left], resampled[right]),
                clusters,
                seed,
            )
        else:
            continue
        rows.append(pair)
    if not rows:
        return None
    means = {
        name: float(np.mean([hits[run].mean() for run in members]))
        for name, members in runs.items()
        if members
    }
    differences = with_verdicts(rows, clusters, True, None)
    return PointingGames(len(clusters.ids), means, tuple(differences))


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
    elif same := identical_part(metric, left, right):
        interval, test = Interval(None, None, "", ""), Test(1.0, "", f"{IDENTICAL} {same}")
    elif metric.is_area:
        areas = area_difference(left.target, left.ranking, right.ranking, clusters, metric.index)
        interval, test = area_interval(areas, clusters), area_test(areas, clusters)
        error = areas.error
    else:
        interval = difference_interval(metric, left, right, gaps, clusters)
        test = paired_test(metric, left, right, clusters, seed)
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
    should show in 80 % showed in 35 % with 10 patients, 42 to 57 % with 20, 71 to 74 % with 30, 79
    to 90 % with 60, and 14 % with 6 cases).
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
