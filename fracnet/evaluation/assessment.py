"""From a predictions table to all metrics of a run: one function for training and `evaluate`.

Raw probabilities and the likeliest class give `val`, `test`, the baselines and the official metrics
of a two-class task. Calibrated probabilities, with the operating points where there are two
classes, give the strata: metrics by level, overall and by group.

Official metrics come at image and study level, overall and per region. A study is abnormal if the
arithmetic mean of its views' probabilities lies above 0.5, as in MURA's official evaluation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import (
    OVERALL,
    available_levels,
    check_by,
    equals_label,
    groups_by,
    level_problems,
    levels_for_groups,
    to_level,
)
from fracnet.evaluation.decisions import (
    DEFAULT_THRESHOLD,
    calibrate,
    cut_of,
    decide_rows,
)
from fracnet.evaluation.predictions import Predictions, identity_notes
from fracnet.evaluation.summary import (
    Estimate,
    Summary,
    agreement_intervals,
    estimate,
    losses,
    plain,
    summarize,
)
from fracnet.metrics import classification
from fracnet.metrics.intervals import RESAMPLES, proportion
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.shared import shared

BASELINE = "baseline"
CALIBRATION = ("log_loss", "brier", "calibration_error")
"""Metrics that temperature changes although it leaves the likeliest class as it is."""


@dataclass(frozen=True)
class OfficialRow:
    """Official metrics of one region (or overall) at one level; `positives` of `n` are cases."""

    level: str
    region: str
    n: int
    positives: int
    unit: str
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Stratum:
    """The metrics of one group of the test rows at one level.

    `by` is the column, or "overall", and `value` its value. With two classes `threshold` decides,
    and `positives` of the units are cases.
    """

    level: str
    by: str
    value: str
    threshold: float | None
    positives: int | None
    summary: Summary

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        row = {key: value for key, value in vars(self).items() if key != "summary"}
        return row | self.summary.to_dict()


@dataclass(frozen=True)
class Assessment:
    """All metrics of a table.

    `calibration[split][before | after]` holds the metrics of `CALIBRATION`; "after" where there is
    a temperature. `decisions` is the content of decisions.json. `notes` are sentences on what is
    not available.
    """

    options: Evaluation
    decisions: Mapping[str, Any] | None
    val: Summary | None
    test: Summary | None
    baselines: Mapping[str, Summary]
    official: tuple[OfficialRow, ...]
    calibration: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    strata: tuple[Stratum, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for metrics.json; undefined values are None."""
        content: dict[str, Any] = {}
        for split, summary in (("val", self.val), ("test", self.test)):
            if summary is not None:
                content[split] = summary.to_dict()
        if self.baselines:
            content["baselines_on_test"] = {k: v.to_dict() for k, v in self.baselines.items()}
        if self.official:
            content["test_by_level_and_region"] = plain(self.official)
        return content | {
            "evaluation": self.options.numeric_options(),
            "decisions": None if self.decisions is None else dict(self.decisions),
            "calibration": plain(self.calibration),
            "test_strata": [stratum.to_dict() for stratum in self.strata],
            "notes": list(self.notes),
        }


def evaluate(
    predictions: Predictions,
    options: Evaluation,
    decisions: Mapping[str, Any] | None,
    baselines: Mapping[str, Predictions] | None = None,
    progress: Progress = no_progress,
) -> Assessment:
    """Score the rows of val and test, or of either.

    Args:
        options: the evaluation options; their thresholds are in `decisions` already.
        decisions: what validation has chosen; None where there are no such rows. Two classes are
            then split at 0.5, without calibration.
        baselines: predictions of the test rows by the baselines.

    Raises UserError for a column in `by` that does not exist.
    """
    notes, predictions = identity_notes(predictions.table), predictions.identified
    splits = {name: predictions.split(name) for name in ("val", "test")}
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    check_by(splits.get("test", predictions).table, options.by)
    temperature = 1.0 if decisions is None else float(decisions["temperature"])
    calibrated = {name: calibrate(rows, temperature) for name, rows in splits.items()}
    parts: list[_Part] = []
    if "test" in calibrated:
        parts, part_notes = _parts(calibrated["test"], options, decisions)
        notes += part_notes
    jobs = [_Part(name, "", "", rows) for name, rows in splits.items()]
    jobs += [_Part(name, BASELINE, "", rows) for name, rows in (baselines or {}).items()]
    summaries = {}
    for job in progress([*jobs, *parts], len(jobs) + len(parts), "scoring"):
        summaries[job.level, job.by, job.value] = job.score(options.resamples)
    raw = {name: summaries[name, "", ""] for name in splits}
    before = {name: summary.metrics for name, summary in raw.items()}
    after: dict[str, Mapping[str, Estimate]] = {}
    if temperature != 1 and "val" in splits:
        after["val"] = losses(calibrated["val"])
    if temperature != 1 and "test" in splits:
        after["test"] = summaries["image", OVERALL, OVERALL].metrics
    test = splits.get("test")
    return Assessment(
        options=options,
        decisions=decisions,
        val=raw.get("val"),
        test=raw.get("test"),
        baselines={name: summaries[name, BASELINE, ""] for name in baselines or {}},
        official=official_metrics(test, options.resamples)
        if test is not None and len(test.classes) == 2
        else (),
        calibration={
            split: {
                moment: {name: metrics[split][name] for name in CALIBRATION}
                for moment, metrics in (("before", before), ("after", after))
                if split in metrics
            }
            for split in splits
        },
        strata=tuple(part.stratum(summaries[part.level, part.by, part.value]) for part in parts),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Part:
    """Rows to score, and what they are."""

    level: str
    by: str
    value: str
    rows: Predictions
    threshold: float | None = None
    cut: float | None = None  # the threshold in log-odds

    def score(self, resamples: int) -> Summary:
        decided = None if self.cut is None else decide_rows(self.rows, self.cut)
        key = (self.rows, resamples) if self.by == BASELINE else None
        name = f"{self.level} {self.by}"
        return shared(name, key, lambda: summarize(self.rows, decided, resamples=resamples))

    def stratum(self, summary: Summary) -> Stratum:
        cases = None if self.threshold is None else int((self.rows.targets == 1).sum())
        return Stratum(self.level, self.by, self.value, self.threshold, cases, summary)


def _parts(
    test: Predictions, options: Evaluation, decisions: Mapping[str, Any] | None
) -> tuple[list[_Part], list[str]]:
    """The rows of each stratum; and sentences on strata that are not available."""
    two = len(test.classes) == 2
    problems, levels = level_problems(test), available_levels(test)
    notes = _level_notes(problems) if two else []
    points = (decisions or {}).get("operating_point") or {}
    for level in [level for level in levels if points and level not in points]:
        levels.remove(level)
        notes.append(f"no metrics by {level}: validation has no {level} to choose a threshold on")
    strata = {OVERALL: (levels, [(OVERALL, test)])}
    for column in options.by:
        if equals_label(test.table, column):
            continue  # the metrics of each class are reported anyway
        if test.table[column].isna().all():
            notes.append(f"no metrics by {column}: it is not known for any image")
            continue
        fit = levels_for_groups(test, column, levels)
        if fit != levels:
            notes.append(_images_only(column))
        strata[column] = (fit, list(groups_by(test, column)))
    # The official metrics go by region whatever `by` says.
    by_region = levels_for_groups(test, "region", ("image", "study"))
    if two and not problems["study"] and "study" not in by_region:
        notes += [_images_only("region")] if _images_only("region") not in notes else []
    thresholds: dict[str, float | None] = dict.fromkeys(levels)
    cuts: dict[str, float | None] = dict.fromkeys(levels)
    if two:
        for level in levels:
            thresholds[level] = points[level]["threshold"] if points else DEFAULT_THRESHOLD
            cuts[level] = cut_of(decisions, level) if points else 0.0
    parts = [
        _Part(
            level, by, value, to_level(rows, level, options.views), thresholds[level], cuts[level]
        )
        for by, (fit, groups) in strata.items()
        for level in fit
        for value, rows in groups
    ]
    return parts, notes


def _images_only(column: str) -> str:
    return f"by {column}: images only, because a study has several values of it"


def _level_notes(problems: Mapping[str, str]) -> list[str]:
    """With two classes a reader expects metrics by study and patient: why they are missing."""
    study, patient = problems["study"], problems["patient"]
    if study and study == patient.replace("patient", "study"):
        return [f"images only: {study.replace('study is', 'study and patient are')}"]
    if study and patient.endswith(study):
        return [f"no metrics by study or patient: {study}"]
    return [f"no metrics by {level}: {problem}" for level, problem in problems.items() if problem]


def official_metrics(test: Predictions, resamples: int = RESAMPLES) -> tuple[OfficialRow, ...]:
    """Score two classes: images, then studies where known; overall first, then by region.

    `resamples` are those of kappa's bootstrap.
    """
    assert len(test.classes) == 2, "a task of two classes"
    levels = [level for level in available_levels(test) if level != "patient"]
    with_regions = levels_for_groups(test, "region", levels)
    rows = []
    for level in levels:
        units = to_level(test, level)
        rows.append(_official_row(units, level, OVERALL, resamples))
        if level in with_regions:
            for region, group in units.table.groupby("region", sort=True):
                part = Predictions.trusted(group)
                rows.append(_official_row(part, level, str(region), resamples))
    return tuple(rows)


def _official_row(units: Predictions, level: str, region: str, resamples: int) -> OfficialRow:
    prob, target, clusters = units.probabilities, units.targets, units.clusters
    predicted = (prob[:, 1] > DEFAULT_THRESHOLD).astype(np.int64)  # a tie is normal
    case, positive = target == 1, predicted == 1
    n, cases = len(target), int(case.sum())
    matrix = classification.confusion(target, predicted, 2)
    rates, area = classification.sensitivity(matrix), classification.auc(target, units.scores)[1]
    area_interval = auc_intervals(target, units.scores, clusters)[1]
    specificity = proportion(~positive, ~case, clusters)
    agreement = agreement_intervals(target, predicted, 2, clusters, resamples=resamples)
    rarer = min(cases, n - cases)
    return OfficialRow(
        level=level,
        region=region,
        n=n,
        positives=cases,
        unit=clusters.unit,
        auc=estimate(area, area_interval, cases, cases=rarer),
        sensitivity=estimate(rates[1], proportion(positive, case, clusters), cases, cases),
        specificity=estimate(rates[0], specificity, n - cases, n - cases),
        kappa=estimate(classification.kappa(matrix), agreement["kappa"], n, cases=rarer),
    )
