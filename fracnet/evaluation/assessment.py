"""From a predictions table to all figures of a run: one function for training and for evaluating.

Raw probabilities and the likeliest class give `val`, `test`, the baselines and the official
figures of a two-class task. Calibrated probabilities, and the operating points where there are
two classes, give the strata: figures by level, overall and by group.

The figures of a two-class task, at image and at study level, overall and per region.

A study is abnormal by the arithmetic mean of its views' probabilities, as MURA's official
evaluation has it; its Cohen's kappa takes a mean above 0.5 as abnormal.

metrics.json read back: the assessment that was written, so that a page needs nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fracnet.config.schema import Evaluation, validated
from fracnet.evaluation.aggregation import (
    OVERALL,
    by_study,
    check_by,
    groups,
    is_class,
    levels_for,
    offered,
    positive,
    to_level,
    why_not,
)
from fracnet.evaluation.decisions import DEFAULT, calibrated
from fracnet.evaluation.decisions import decide_positive as above
from fracnet.evaluation.predictions import (
    check,
    check_apart,
    classes_of,
    clusters_of,
    identified,
    identity_notes,
    probabilities,
    targets,
)
from fracnet.evaluation.summary import (
    ClassSummary,
    Estimate,
    Summary,
    agreement_intervals,
    estimate,
    plain,
    summarize,
)
from fracnet.metrics import classification
from fracnet.metrics.classification import PER_CLASS
from fracnet.metrics.intervals import RESAMPLES, proportion
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

_OVERALL = "overall"


@dataclass(frozen=True)
class BinaryRow:
    """The figures of one region (or overall) at one level; `positives` of `n` are cases."""

    level: str
    region: str
    n: int
    positives: int
    unit: str
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    kappa: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        row: dict[str, Any] = plain(self)
        return row


def binary_rows(table: pd.DataFrame, resamples: int = RESAMPLES) -> tuple[BinaryRow, ...]:
    """Score one split: images, then studies where they are known; overall first, then regions.

    Studies have regions where each lies in one (`levels_for`). `resamples` are those of kappa's
    bootstrap. Raises `UserError` for a table that `check` refuses.
    """
    check(table)
    assert len(classes_of(table)) == 2, "a task of two classes"
    table = table.sort_values("path")  # sums of floats depend on their order
    levels = {"image": table}
    if "study" in offered(table)[1]:
        levels["study"] = by_study(table)
    fit = levels_for(table, "region", tuple(levels))
    return tuple(
        _row(part, level, region, resamples)
        for level, rows in levels.items()
        for region, part in {
            _OVERALL: rows,
            **{str(name): of for name, of in rows.groupby("region", sort=True) if level in fit},
        }.items()
    )


def _row(table: pd.DataFrame, level: str, region: str, resamples: int) -> BinaryRow:
    clusters = clusters_of(table)
    prob, target = probabilities(table), targets(table)
    predicted = classification.predict(prob)  # abnormal above 0.5: a tie is normal
    case, named = target == 1, predicted == 1
    n, positives = len(target), int(case.sum())
    matrix = classification.confusion(target, predicted, 2)
    area = auc_intervals(target, prob, clusters)[1]
    value = classification.auc(target, prob)[1]
    rates = classification.sensitivity(matrix)
    return BinaryRow(
        level=level,
        region=region,
        n=n,
        positives=positives,
        unit=clusters.unit,
        auc=estimate(value, area, positives, cases=min(positives, n - positives)),
        sensitivity=estimate(rates[1], proportion(named, case, clusters), positives, positives),
        specificity=estimate(
            rates[0], proportion(~named, ~case, clusters), n - positives, n - positives
        ),
        kappa=estimate(
            classification.kappa(matrix),
            agreement_intervals(target, predicted, 2, clusters, resamples=resamples)["kappa"],
            n,
            cases=min(positives, n - positives),
        ),
    )


BASELINES = ("majority", "shortcut")
MIXED = "images only, since a study has several values of it"

# Figures that temperature changes although it leaves the likeliest class as it is.
CALIBRATION = ("log_loss", "brier", "calibration_error")


@dataclass(frozen=True)
class Stratum:
    """The figures of one group of the test rows at one level.

    `by` is the column, or "overall", and `value` its value. With two classes `threshold` has
    decided, and `positives` of the units are cases.
    """

    level: str
    by: str
    value: str
    threshold: float | None
    positives: int | None
    summary: Summary

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        own: dict[str, Any] = {"level": self.level, "by": self.by, "value": self.value}
        own |= {"threshold": self.threshold, "positives": self.positives}
        return own | self.summary.to_dict()


@dataclass(frozen=True)
class Assessment:
    """All figures of a table.

    `calibration[split][before | after]` holds the figures of `CALIBRATION`; "after" where there
    is a temperature. `decisions` is the content of decisions.json. `notes` are sentences on what
    could not be had.
    """

    options: Evaluation
    decisions: Mapping[str, Any] | None
    val: Summary | None
    test: Summary | None
    baselines: Mapping[str, Summary]
    official: tuple[BinaryRow, ...]
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
            content["test_by_level_and_region"] = [row.to_dict() for row in self.official]
        content["evaluation"] = self.options.said()
        content["decisions"] = None if self.decisions is None else dict(self.decisions)
        content["calibration"] = plain(self.calibration)
        content["test_strata"] = [stratum.to_dict() for stratum in self.strata]
        content["notes"] = list(self.notes)
        return content


def assess(
    table: pd.DataFrame,
    options: Evaluation,
    decisions: Mapping[str, Any] | None,
    baselines: Mapping[str, pd.DataFrame] | None = None,
    progress: Progress = no_progress,
) -> Assessment:
    """Score the rows of val and test.

    Args:
        table: predictions of either split, or of both.
        options: how; what they say of thresholds is in `decisions` already.
        decisions: what validation has chosen; None where there are no such rows. Two classes are
            then split at 0.5, without calibration.
        baselines: predictions of the test rows by what the model must beat.
        progress: told of the steps, of which some take seconds.

    Raises:
        UserError: a table that `check` refuses, patients or studies that are in val and in test, or
            a column in `by` that there is not.
    """
    check(table)
    check_apart(table)
    told, table = identity_notes(table), identified(table)
    splits = {name: table[table["split"] == name] for name in ("val", "test")}
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    check_by(splits.get("test", table), options.by)
    factor = 1.0 if decisions is None else float(decisions["temperature"])
    warm = {name: calibrated(rows, factor) for name, rows in splits.items()}
    parts, notes = _parts(warm["test"], options, decisions) if "test" in warm else ([], [])
    jobs: list[_Part] = [_Part(name, "", "", rows, None) for name, rows in splits.items()]
    jobs += [_Part(name, "baseline", "", rows, None) for name, rows in (baselines or {}).items()]
    if factor != 1 and "val" in warm:
        jobs.append(_Part("val", "calibrated", "", warm["val"], None))
    found = {}
    for job in progress([*jobs, *parts], len(jobs) + len(parts), "scoring"):
        found[job.level, job.by, job.value] = job.score(options.resamples)
    plainly = {name: found[name, "", ""] for name in splits}
    warmly = {"val": found.get(("val", "calibrated", ""))}
    warmly["test"] = found.get(("image", OVERALL, OVERALL)) if factor != 1 else None
    return Assessment(
        options=options,
        decisions=decisions,
        val=plainly.get("val"),
        test=plainly.get("test"),
        baselines={name: found[name, "baseline", ""] for name in baselines or {}},
        official=_official(splits, options.resamples),
        calibration={
            split: {
                moment: {name: summary.metrics[name] for name in CALIBRATION}
                for moment, summary in (("before", plainly[split]), ("after", warmly[split]))
                if summary is not None
            }
            for split in splits
        },
        strata=tuple(part.stratum(found[part.level, part.by, part.value]) for part in parts),
        notes=(*told, *notes),
    )


@dataclass(frozen=True)
class _Part:
    """Rows to be scored, and what they are."""

    level: str
    by: str
    value: str
    rows: pd.DataFrame
    threshold: float | None

    def score(self, resamples: int) -> Summary:
        decided = None if self.threshold is None else above(positive(self.rows), self.threshold)
        return summarize(self.rows, decided, resamples=resamples)

    def stratum(self, summary: Summary) -> Stratum:
        cases = None if self.threshold is None else int((targets(self.rows) == 1).sum())
        return Stratum(self.level, self.by, self.value, self.threshold, cases, summary)


def _official(splits: Mapping[str, pd.DataFrame], resamples: int) -> tuple[BinaryRow, ...]:
    test = splits.get("test")
    return () if test is None or len(classes_of(test)) != 2 else binary_rows(test, resamples)


def _parts(
    test: pd.DataFrame, options: Evaluation, decisions: Mapping[str, Any] | None
) -> tuple[list[_Part], list[str]]:
    """The rows of each stratum; and sentences on those that cannot be had."""
    why, levels = offered(test)
    notes = _missing_levels(why, len(classes_of(test)))
    points = (decisions or {}).get("operating_point") or {}
    for level in [level for level in levels if points and level not in points]:
        levels.remove(level)
        notes.append(f"no figures by {level}: validation has none to choose a threshold by")
    of = {OVERALL: (levels, [(OVERALL, test)])}
    for name in options.by:
        if is_class(test, name):
            continue  # the figures of each class are there already
        if reason := why_not(test, name):
            notes.append(reason)
            continue
        fit = levels_for(test, name, levels)
        if fit != levels:
            notes.append(f"by {name}: {MIXED}")
        of[name] = (fit, list(groups(test, name)))
    two = len(classes_of(test)) == 2
    mixed = f"by region: {MIXED}"
    # The official figures go by region whatever `by` says.
    if two and not why["study"] and "study" not in levels_for(test, "region", ("image", "study")):
        notes += [mixed] if mixed not in notes else []
    cuts = {level: points[level]["threshold"] if points else DEFAULT for level in levels}
    parts = [
        _Part(level, by, value, to_level(rows, level, options.views), cuts[level] if two else None)
        for by, (fit, found) in of.items()
        for level in fit
        for value, rows in found
    ]
    return parts, notes


def _missing_levels(why: Mapping[str, str], n_classes: int) -> list[str]:
    """What a reader of the figures would look for: with two classes, studies and patients."""
    if n_classes > 2:
        return []
    if why["study"] and why["study"] == why["patient"].replace("patient", "study"):
        return [f"images only: {why['study'].replace('study is', 'study and patient are')}"]
    if why["study"] and why["patient"].endswith(why["study"]):
        return [f"no figures by study or patient: {why['study']}"]
    return [f"no figures by {level}: {reason}" for level, reason in why.items() if reason]


OFFICIAL = ("auc", "sensitivity", "specificity", "kappa")
WANTED = ("evaluation", "decisions", "calibration", "test_strata", "notes")


def assessment_of(content: Mapping[str, Any], where: str) -> Assessment:
    """The inverse of `Assessment.to_dict`; undefined values are NaN again.

    content: of a metrics.json, which may hold more. where: names the file.
    Raises UserError for one of an older fracnet, which lacks what is wanted.
    """
    if lacking := [key for key in WANTED if key not in content]:
        raise UserError(
            f"{where} lacks {', '.join(lacking)}: an older fracnet wrote it. "
            "python -m fracnet.evaluate run=<its folder> writes it anew."
        )
    return Assessment(
        options=validated(Evaluation, content["evaluation"], f"{where}: evaluation"),
        decisions=content["decisions"],
        val=summary_of(content["val"]) if "val" in content else None,
        test=summary_of(content["test"]) if "test" in content else None,
        baselines={k: summary_of(v) for k, v in content.get("baselines_on_test", {}).items()},
        official=tuple(
            _stored_official(row) for row in content.get("test_by_level_and_region", [])
        ),
        calibration={
            split: {
                moment: {name: estimate_of(held) for name, held in figures.items()}
                for moment, figures in moments.items()
            }
            for split, moments in content["calibration"].items()
        },
        strata=tuple(_stratum(row) for row in content["test_strata"]),
        notes=tuple(content["notes"]),
    )


def summary_of(held: Mapping[str, Any]) -> Summary:
    """The inverse of `Summary.to_dict`."""
    return Summary(
        split=held["split"],
        classes=tuple(held["classes"]),
        n=held["n"],
        clusters=held["clusters"],
        unit=held["unit"],
        metrics={name: estimate_of(value) for name, value in held["metrics"].items()},
        per_class=tuple(
            ClassSummary(
                name=row["class"],
                n=row["n"],
                **{rate: estimate_of(row[rate]) for rate in PER_CLASS},
            )
            for row in held["per_class"]
        ),
        confusion=tuple(tuple(row) for row in held["confusion"]),
        definitions=dict(held["definitions"]),
    )


def estimate_of(held: Mapping[str, Any]) -> Estimate:
    """The inverse of `plain` for one figure."""
    value = math.nan if held["value"] is None else float(held["value"])
    return Estimate(**{**held, "value": value})


def _stratum(row: Mapping[str, Any]) -> Stratum:
    own = {key: row[key] for key in ("level", "by", "value", "threshold", "positives")}
    return Stratum(**own, summary=summary_of(row))


def _stored_official(row: Mapping[str, Any]) -> BinaryRow:
    own = {key: row[key] for key in ("level", "region", "n", "positives", "unit")}
    figures: dict[str, Any] = {name: estimate_of(row[name]) for name in OFFICIAL}
    return BinaryRow(**own, **figures)
