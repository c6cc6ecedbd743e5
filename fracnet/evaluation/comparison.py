"""Runs side by side on the same test rows: a standing by validation, and differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation import metrics
from fracnet.evaluation.alignment import align, one_split
from fracnet.evaluation.differences import (
    Difference,
    between_configurations,
    between_models,
    judged,
)
from fracnet.evaluation.figure import Figure, Sample, figure_of
from fracnet.evaluation.operating import decide
from fracnet.evaluation.power import ALPHA, POWER
from fracnet.evaluation.predictions import Clusters, classes_of, clusters_of, probabilities, targets
from fracnet.evaluation.seeds import ENOUGH, spread
from fracnet.evaluation.summary import plain, summarise
from fracnet.objects import near_miss
from fracnet.progress import Show, unseen

# Resamples where no interval rests on them: the least that `summarise` can do with.
NONE_NEEDED = 2
# Of two runs the interval of the mean held 90 % in simulation, of three and more 93-96 %.
FEWEST = 3


@dataclass(frozen=True)
class Member:
    """A run: its predictions for val and test, and the threshold that decides (two classes)."""

    name: str
    table: pd.DataFrame
    threshold: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A configuration with its runs."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Standing:
    """A candidate's figures: means over its runs. `chosen` is the run of the best validation.

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

    figure: Figure
    level: str
    n: int
    clusters: Clusters
    margin: float | None
    standings: tuple[Standing, ...]
    models: tuple[Difference, ...]
    configurations: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        figure = {"metric": self.figure.name, "of": self.figure.of}
        test = {
            "level": self.level,
            "n": self.n,
            "clusters": self.clusters.count,
            "unit": self.clusters.unit,
        }
        return {
            **figure,
            "larger_is_better": self.figure.larger_is_better,
            "margin": self.margin,
            # What `detectable` and `needed` rest on; `alpha` of a difference is the corrected one.
            "planning": {"power": POWER, "alpha": ALPHA, "error": "as observed on these rows"},
            "test": test,
            "standings": plain(self.standings),
            "models": [row.to_dict() for row in self.models],
            "configurations": [row.to_dict() for row in self.configurations],
        }


def compare(
    candidates: Sequence[Candidate],
    metric: str,
    *,
    of: str | None = None,
    level: str = "image",
    reference: str | None = None,
    pairs: str = "reference",
    margin: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    show: Show[Any] = unseen,
) -> Comparison:
    """Set candidates side by side.

    Args:
        candidates: two at least.
        metric: a figure of merit, see `figure_of`; `of` its class.
        level: what a row of the tables is.
        reference: name of a candidate or of a run; the first by validation unless given.
        pairs: "reference": all others less it; "all": each pair, the lower standing less the upper.
        margin: the smallest difference that matters, if any.
        resamples: of whole clusters, the same for all runs.
        seed: of resamples and swaps.
        show: told of the runs, of which each takes a moment.

    Raises:
        UserError: runs on different test rows, or an unknown metric, class or reference.
    """
    members = [member for candidate in candidates for member in candidate.members]
    tables = align({member.name: member.table for member in members}, "test")
    first = tables[members[0].name]
    figure = figure_of(metric, classes_of(first), of)
    clusters = clusters_of(first)
    samples = {m.name: _sample(tables[m.name], m.threshold) for m in members}
    drawn: dict[str, np.ndarray] = {}
    for member in show(members, len(members), "resampling"):
        drawn[member.name] = figure.resampled(samples[member.name], clusters, resamples, seed)
    standings = [
        _standing(figure, candidate, samples, drawn, tables, clusters)
        for candidate in show(candidates, len(candidates), "scoring")
    ]
    sign = -1 if figure.larger_is_better else 1
    standings.sort(key=lambda s: math.inf if math.isnan(s.validation) else sign * s.validation)
    couples = _couples(standings, reference, pairs)
    models, configurations = [], []
    for one, two in show(couples, len(couples), "comparing"):
        names, chosen = (one.name, two.name), (one.chosen, two.chosen)
        models.append(
            between_models(
                figure,
                names,
                chosen,
                (samples[one.chosen], samples[two.chosen]),
                (drawn[one.chosen], drawn[two.chosen]),
                clusters,
                seed,
            )
        )
        if min(len(one.runs), len(two.runs)) >= ENOUGH:
            values = [np.array([figure.value(samples[r]) for r in s.runs]) for s in (one, two)]
            both = [np.column_stack([drawn[r] for r in s.runs]) for s in (one, two)]
            configurations.append(
                between_configurations(names, (values[0], values[1]), (both[0], both[1]), clusters)
            )
    better = figure.larger_is_better
    return Comparison(
        figure=figure,
        level=level,
        n=len(first),
        clusters=clusters,
        margin=margin,
        standings=tuple(standings),
        models=tuple(judged(models, clusters, better, margin)),
        configurations=tuple(judged(configurations, clusters, better, margin)),
    )


def _standing(
    figure: Figure,
    candidate: Candidate,
    samples: Mapping[str, Sample],
    drawn: Mapping[str, np.ndarray],
    tables: Mapping[str, pd.DataFrame],
    clusters: Clusters,
) -> Standing:
    names = tuple(member.name for member in candidate.members)
    validation = np.array([_on_validation(figure, member) for member in candidate.members])
    best = 0
    if not np.isnan(validation).all():
        best = int((np.nanargmax if figure.larger_is_better else np.nanargmin)(validation))
    values = np.array([figure.value(samples[name]) for name in names])
    each = tuple(map(float, validation)), tuple(map(float, values))
    who = candidate.name, names, names[best], *each, float(validation.mean())
    if len(names) == 1:
        count = NONE_NEEDED if figure.closed_form else len(drawn[names[0]])
        named = samples[names[0]].predicted
        found = figure.estimate(summarise(tables[names[0]], named, resamples=count))
        return Standing(*who, found.value, found.low, found.high, found.method, found.note)
    if len(names) < FEWEST:
        note = f"{len(names)} runs are too few for an interval of their mean"
        return Standing(*who, float(values.mean()), None, None, "", note)
    both = np.column_stack([drawn[name] for name in names])
    over = spread(values, both[~np.isnan(both).any(axis=1)], clusters.count)
    low, high = over.limits(share=figure.from_0_to_1) or (None, None)
    note = "degenerate: equal in all runs and resamples" if low is None else ""
    return Standing(*who, over.value, low, high, f"by seed and {clusters.unit}", note)


def _sample(table: pd.DataFrame, threshold: float | None) -> Sample:
    prob = probabilities(table)
    named = metrics.predict(prob) if threshold is None else decide(prob[:, 1], threshold)
    return Sample(targets(table), prob, named)


def _on_validation(figure: Figure, member: Member) -> float:
    if not (member.table["split"] == "val").any():
        return math.nan
    return figure.value(_sample(one_split(member.name, member.table, "val"), member.threshold))


def _couples(
    standings: Sequence[Standing], reference: str | None, pairs: str
) -> list[tuple[Standing, Standing]]:
    if pairs == "all":
        return [(lower, upper) for upper, lower in combinations(standings, 2)]
    base = standings[0] if reference is None else _named(standings, reference)
    return [(standing, base) for standing in standings if standing.name != base.name]


def _named(standings: Sequence[Standing], reference: str) -> Standing:
    """The candidate of this name, or the one that holds the run of this name, which then stands."""
    for standing in standings:
        if reference == standing.name:
            return standing
        if reference in standing.runs:
            return replace(standing, chosen=reference)
    allowed = [s.name for s in standings] + [run for s in standings for run in s.runs]
    allowed = list(dict.fromkeys(allowed))
    raise UserError(
        f"reference={reference} is none of the runs; allowed: {'; '.join(allowed)}."
        f"{near_miss(reference, allowed)}"
    )
