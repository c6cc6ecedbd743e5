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
from fracnet.utils.text import counted, near_miss

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
            "models": plain(self.models),
            "configurations": plain(self.configurations),
            "localization": plain(self.localization),
        }


@dataclass(frozen=True)
class ScoredRuns:
    """A metric of several runs on the same rows, and in the same resamples of their clusters.

    samples, resampled (float64[B] each): by run.
    """

    metric: Metric
    clusters: Clusters
    samples: Mapping[str, Sample]
    resampled: Mapping[str, np.ndarray]
    seed: int = 0

    def standing(self, candidate: Candidate, rows: Mapping[str, Predictions]) -> Standing:
        """The metric of a candidate, whose runs predict these `rows`."""
        metric, names = self.metric, tuple(member.name for member in candidate.members)
        validation = np.array([_on_validation(metric, member) for member in candidate.members])
        ranks = np.where(np.isnan(validation), -np.inf, validation * metric.sign)
        values = np.array([metric.value(self.samples[name]) for name in names])
        per_run = tuple(map(float, validation)), tuple(map(float, values))
        chosen = names[int(ranks.argmax())]
        common = candidate.name, names, chosen, *per_run, float(validation.mean())
        if len(names) == 1:
            count = MIN_RESAMPLES if metric.closed_form else len(self.resampled[chosen])
            summary = summarize(rows[chosen], self.samples[chosen].predicted, resamples=count)
            single = metric.estimate(summary)
            limits = single.low, single.high
            return Standing(*common, single.value, *limits, single.method, single.note)
        if len(names) < MIN_RUNS:
            note = f"{len(names)} runs are too few for an interval of their mean"
            return Standing(*common, float(values.mean()), None, None, "", note)
        draws = np.column_stack([self.resampled[name] for name in names])
        defined = draws[~np.isnan(draws).any(axis=1)]
        mean = spread_over_runs(values, defined, self.clusters.count)
        low, high = mean.limits(share=metric.from_0_to_1) or (None, None)
        note = "degenerate: equal in all runs and resamples" if low is None else ""
        return Standing(*common, mean.value, low, high, f"by seed and {self.clusters.unit}", note)

    def models(self, names: tuple[str, str], runs: tuple[str, str]) -> Difference:
        """One of `runs` minus the other."""
        metric, clusters = self.metric, self.clusters
        left, right = (self.samples[run] for run in runs)
        gaps = self.resampled[runs[0]] - self.resampled[runs[1]]
        error = float(np.nanstd(gaps, ddof=1)) if (~np.isnan(gaps)).sum() > 1 else math.nan
        if clusters.count < 2:
            interval = Interval(None, None, "", f"all rows are one {clusters.unit}")
            test = Test(None, "", interval.note)
        elif same := identical_part(metric, left, right):
            interval, test = Interval(None, None, "", ""), Test(1.0, "", f"{IDENTICAL} {same}")
        elif metric.is_area:
            areas = area_difference(left.target, left.score, right.score, clusters, metric.index)
            interval, test = area_interval(areas, clusters), area_test(areas, clusters)
            error = areas.error
        else:
            interval = difference_interval(metric, left, right, gaps, clusters)
            test = paired_test(metric, left, right, clusters, self.seed)
        few = TOO_FEW if metric.cases(left.target) < FEW else ""
        return Difference(
            *names,
            kind="model",
            runs=runs,
            value=metric.value(left) - metric.value(right),
            low=interval.low,
            high=interval.high,
            method=interval.method,
            p=test.p,
            test=test.method,
            note="; ".join(dict.fromkeys(filter(None, (interval.note, test.note, few)))),
            error=error,
        )

    def configurations(
        self, names: tuple[str, str], runs: tuple[Sequence[str], Sequence[str]]
    ) -> Difference:
        """The mean of several runs minus that of several others."""
        first, second = (
            np.array([self.metric.value(self.samples[run]) for run in own]) for own in runs
        )
        draws = [np.column_stack([self.resampled[run] for run in own]) for own in runs]
        defined = ~np.isnan(np.hstack(draws)).any(axis=1)
        left, right = (part[defined] for part in draws)
        gap = spread_over_runs(first, left, self.clusters.count, second, right)
        low, high = gap.limits() or (None, None)
        method = f"Obuchowski-Rockette by seed and {self.clusters.unit}"
        return Difference(
            *names,
            kind="configuration",
            runs=(len(first), len(second)),
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


def _on_validation(metric: Metric, member: Member) -> float:
    if not len(member.predictions.split("val")):
        return math.nan
    rows = rows_of_split(member.name, member.predictions, "val")
    return metric.value(Sample.of(rows, member.cut))


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
    """Compare two or more candidates on the same test rows.

    Args:
        metric_name: see `find_metric`; `class_name` for a metric of one class.
        level: what a row of the tables is.
        reference: name of a candidate or of a run; by default the first by validation.
        pairs: "reference": every other candidate minus the reference; "all": each pair, the lower
            ranked minus the higher ranked.
        margin: the smallest difference that matters, if any.
        resamples: of whole clusters, the same for all runs.
        seed: of resamples and swaps.

    Raises UserError for runs on different test rows, or an unknown metric, class or reference.
    """
    members = [member for candidate in candidates for member in candidate.members]
    rows = align({member.name: member.predictions for member in members}, "test")
    first = rows[members[0].name]
    metric = find_metric(metric_name, first.classes, class_name)
    clusters = first.clusters
    samples = {m.name: Sample.of(rows[m.name], m.cut) for m in members}
    resampled = {
        name: metric.resampled(sample, clusters, resamples, seed)
        for name, sample in progress(samples.items(), len(samples), "resampling")
    }
    scored = ScoredRuns(metric, clusters, samples, resampled, seed)
    standings = [
        scored.standing(candidate, rows)
        for candidate in progress(candidates, len(candidates), "scoring")
    ]
    worst = math.inf
    standings.sort(key=lambda s: worst if math.isnan(s.validation) else -metric.sign * s.validation)
    selected = _pairs(standings, reference, pairs)
    models, configurations = [], []
    for left, right in progress(selected, len(selected), "comparing"):
        names = left.name, right.name
        models.append(scored.models(names, (left.chosen, right.chosen)))
        if min(len(left.runs), len(right.runs)) >= ENOUGH:
            configurations.append(scored.configurations(names, (left.runs, right.runs)))
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


def compare_pointing(
    result: Comparison, hits: Mapping[str, np.ndarray], clusters: Clusters, seed: int = 0
) -> PointingGames | None:
    """The pairs of a comparison by the pointing game of their heatmaps; None without any pair.

    With several runs of both, the runs' means are compared, otherwise the chosen runs. hits: by
    run, those with heatmaps: bool [n] of the same images, whose clusters are `clusters`.
    """
    metric = Metric("accuracy", 2)  # a hit is a correct answer
    samples, resampled = {}, {}
    for name, hit in hits.items():
        inside = hit.astype(np.int64)
        prob = np.eye(2)[inside]
        samples[name] = Sample(np.ones_like(inside), prob, inside, prob)
        resampled[name] = metric.resampled(samples[name], clusters, seed=seed)
    scored = ScoredRuns(metric, clusters, samples, resampled, seed)
    runs = {each.name: [run for run in each.runs if run in hits] for each in result.standings}
    rows = []
    for row in result.models:
        names, chosen = (row.name, row.reference), (str(row.runs[0]), str(row.runs[1]))
        both = runs[names[0]], runs[names[1]]
        if min(map(len, both)) >= ENOUGH:
            rows.append(scored.configurations(names, both))
        elif hits.keys() >= set(chosen):
            rows.append(scored.models(names, chosen))
    if not rows:
        return None
    means = {
        name: float(np.mean([hits[run].mean() for run in members]))
        for name, members in runs.items()
        if members
    }
    differences = with_verdicts(rows, clusters, True, None)
    return PointingGames(len(clusters.ids), means, tuple(differences))


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
    names = [s.name for s in standings] + [run for s in standings for run in s.runs]
    allowed = list(dict.fromkeys(names))
    raise UserError(
        f"reference={reference} is not one of the runs; allowed: {'; '.join(allowed)}."
        f"{near_miss(reference, allowed)}"
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
    is planned: in simulations, what should have shown in 80 % of comparisons showed in 35 % with 10
    patients, 71 to 74 % with 30, 79 to 90 % with 60, and 14 % with 6 cases.
    """
    unplanned = ""
    if clusters.count < MIN_CLUSTERS_TO_PLAN:
        unit = "cluster" if "," in clusters.unit else clusters.unit
        unplanned = f"with fewer than {counted(MIN_CLUSTERS_TO_PLAN, unit)}"
    elif cases is not None and cases < MIN_CASES_TO_PLAN:
        unplanned = f"with fewer than {MIN_CASES_TO_PLAN} cases"
    if unplanned:
        unplanned += ", the smallest detectable difference cannot be estimated"
    tested = [row.p for row in differences if row.p is not None]
    corrected = iter(holm(tested))
    alpha = ALPHA / max(len(tested), 1)
    result = []
    for row in differences:
        adjusted = None if row.p is None else next(corrected)
        verdict = needed = within = agree = None
        if row.note.startswith(IDENTICAL):
            verdict = IDENTICAL
        elif adjusted is not None:
            verdict = UNDECIDED
            if adjusted < ALPHA and row.leaves_out_0:
                verdict = BETTER if (row.value > 0) == larger_is_better else WORSE
        if row.low is not None and row.high is not None:
            agree = None if row.p is None else (row.p < ALPHA) == row.leaves_out_0
            within = None if margin is None else -margin < row.low and row.high < margin
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
