"""The tables of a run's metrics, each with intervals, for the terminal and the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import CALIBRATION, Assessment, OfficialRow, Stratum
from fracnet.evaluation.decisions import temperature_text
from fracnet.evaluation.summary import NOT_FROM_0, Estimate, Summary
from fracnet.metrics.classification import brier_range
from fracnet.report.run_content import Evaluated
from fracnet.report.tables import (
    UNCLEAR,
    Cell,
    EstimateCell,
    Table,
    estimate_cell,
    estimate_scale,
)
from fracnet.utils.text import counted

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_sensitivity": "macro sensitivity",
    "macro_specificity": "macro specificity",
    "macro_auc": "macro AUC",
}
FURTHER_METRICS = {
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "mcc": "MCC",
    "macro_average_precision": "macro AUC-PR",
    "brier": "Brier score",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
MULTICLASS_METRICS = {
    "accuracy": "accuracy",
    "macro_sensitivity": "macro sens.",
    "macro_specificity": "macro spec.",
    "macro_auc": "macro AUC",
}
BINARY_METRICS = ("auc", "sensitivity", "specificity", "precision", "npv")
COLUMN_TITLES = {"auc": "AUC", "npv": "NPV", "precision": "PPV"}
BASELINE_TITLES = {"shortcut": "shortcut baseline", "majority": "majority class"}
IDENTIFIERS = ("patient", "study", "path")
"""Columns whose values identify people or files."""


UNSCALED = "No temperature was applied, so calibrated probabilities equal the model's own."


def level_table(run: Evaluated) -> Table | None:
    """Metrics by level; for two classes at the operating points, and what validation gave there.

    None for several classes at a single level, which `overall_table` has.
    """
    strata = run.overall
    if not run.binary:
        if len(strata) < 2:
            return None
        rows: list[list[Cell]] = [
            [level, str(s.summary.n), *map(estimate_cell, _multiclass(s))]
            for level, s in strata.items()
        ]
        caption = f"Most likely class by level{_scaled(run)}; 95 % intervals"
        return Table(caption, ["level", "n", *MULTICLASS_METRICS.values()], rows)
    positive_class = run.classes[1]
    decisions = run.assessment.decisions or {}
    points = decisions.get("operating_point") or {}
    rows = []
    for level, stratum in strata.items():
        positive = stratum.summary.per_class[1]
        point = points.get(level) or {}
        rates = [point.get("sensitivity"), point.get("specificity")]
        validation = " / ".join("n/a" if rate is None else f"{rate:.3f}" for rate in rates)
        rows.append(
            [
                level,
                f"{positive.n}/{stratum.summary.n}",
                format_threshold(0.5 if stratum.threshold is None else stratum.threshold),
                *(estimate_cell(getattr(positive, name)) for name in BINARY_METRICS),
                validation if point else "-",
            ]
        )
    rule = "above 0.5, without validation to choose a threshold"
    if points:
        rule = f"above a threshold chosen on validation ({rule_text(decisions['rule'])})"
    return Table(
        f"Predicted {positive_class} {rule}; 95 % intervals",
        [
            "level",
            "cases/n",
            "above",
            *(COLUMN_TITLES.get(name, name) for name in BINARY_METRICS),
            "on validation",
        ],
        rows,
        note=" ".join(
            [
                "Sensitivity / specificity on validation come from the rows that chose the "
                "threshold, so they are optimistic on average.",
                f"PPV (precision) and NPV hold for the share of {positive_class} in this test, not "
                f"where {positive_class} is rarer.",
                *threshold_notes(decisions),
            ]
        ),
    )


def rule_text(rule: Mapping[str, Any]) -> str:
    """How an operating point was chosen: `Youden's index`, `sensitivity 0.9`, `a miss costs 5`."""
    ((name, value),) = rule.items()
    if name == "youden":
        return "Youden's index"
    return f"a miss costs {value:g}" if name == "cost_ratio" else f"{name} {value:g}"


def threshold_notes(decisions: Mapping[str, Any]) -> list[str]:
    """What is doubtful about the operating points, one sentence per note."""
    points = decisions.get("operating_point") or {}
    levels: dict[str, list[str]] = {}
    for level, point in points.items():
        for note in filter(None, point["note"].split("; ")):
            levels.setdefault(note, []).append(level)
    return [f"Threshold ({', '.join(names)} level): {note}." for note, names in levels.items()]


def format_threshold(threshold: float) -> str:
    """At most eight characters, and never 0.000 or 1.000 for a value that is neither."""
    if threshold < 0.001:
        return f"{threshold:.2g}"
    return ">0.999" if 0.999 < threshold < 1 else f"{threshold:.3f}"


def decision_rule(run: Evaluated, level: str) -> str:
    """`predicted abnormal: above 0.391`, or `most likely class`."""
    threshold = run.overall[level].threshold
    if threshold is None:
        return "most likely class"
    above = "everything" if threshold == 0 else f"above {format_threshold(threshold)}"
    return f"predicted {run.classes[1]}: {above}"


def default_rule(classes: Sequence[str]) -> str:
    """How the metrics of `summarize` decide without a threshold: `abnormal above 0.5`."""
    return f"{classes[1]} above 0.5" if len(classes) == 2 else "most likely class"


def overall_table(run: Evaluated, metrics: Mapping[str, str] = METRICS | FURTHER_METRICS) -> Table:
    """Metrics over all classes, next to those of the baselines."""
    summary, available = run.summary, run.assessment.baselines
    baselines = {
        BASELINE_TITLES[name]: available[name] for name in BASELINE_TITLES if name in available
    }
    rows: list[list[Cell]] = [
        [title, *(estimate_cell(s.metrics[name]) for s in (summary, *baselines.values()))]
        for name, title in metrics.items()
    ]
    rule = default_rule(run.classes)
    best, worst = brier_range(len(summary.classes))
    note = f"Lower is better for Brier score ({best} to {worst}), log loss and calibration error."
    if any(isinstance(cell, EstimateCell) and cell.near_zero for row in rows for cell in row):
        note += f" {UNCLEAR.capitalize()}: {NOT_FROM_0}."
    return Table(
        f"{counted(summary.n, f'{summary.split} image')}; {rule}; uncalibrated; 95 % intervals",
        ["metric", "model", *baselines],
        rows,
        note=note if "brier" in metrics else "",
    )


def class_table(summary: Summary) -> Table:
    """Each class against the rest, with bars of its AUC."""
    scale = estimate_scale([row.auc for row in summary.per_class], also=[0.5, 1.0])
    rows: list[list[Cell]] = [
        [
            row.name,
            str(row.n),
            *map(estimate_cell, (row.sensitivity, row.specificity, row.precision, row.auc)),
            estimate_cell(row.auc).bar(scale, guide=0.5),
        ]
        for row in summary.per_class
    ]
    metrics = ("sensitivity", "specificity", "precision", "AUC")
    return Table(
        "Each class against the rest, by the most likely class",
        ["class", "n", *metrics, f"AUC, {scale}"],
        rows,
    )


def mura_kappa_table(
    official: Sequence[OfficialRow], positive: str, *, data: str = ""
) -> Table | None:
    """MURA's official metric by region, at image and at study level; None without two classes.

    Also None for other data without studies and regions: `overall_table` has their one kappa.
    Regions that a study spans have a "-" at study level.
    """
    is_mura = data.startswith("mura")
    if not official or (len(official) == 1 and not is_mura):
        return None
    cells = {(row.region, row.level): row for row in official}
    levels = list(dict.fromkeys(row.level for row in official))
    rows: list[list[Cell]] = []
    for region in dict.fromkeys(row.region for row in official):
        line: list[Cell] = [region]
        for level in levels:
            row = cells.get((region, level))
            line += [f"{row.positives}/{row.n}", estimate_cell(row.kappa)] if row else ["-", "-"]
        rows.append(line)
    heads = ["region", *(head for level in levels for head in ("cases/n", f"kappa by {level}"))]
    caption = f"Cohen's kappa: {positive} if the mean raw probability is above 0.5"
    if is_mura:
        caption += ", as in MURA"
    return Table(caption, heads, rows, strong=True)


def calibration_table(run: Evaluated) -> Table | None:
    """Probabilities before and after temperature scaling."""
    split = run.summary.split
    moments = run.assessment.calibration.get(split)
    if not moments:
        return None
    decisions = run.assessment.decisions or {}
    if note := decisions.get("temperature_note"):
        note = f"Temperature scaling: {note}."
    elif "after" in moments:
        n = decisions["validation"]["n"]
        temperature = temperature_text(decisions["temperature"])
        note = f"Temperature {temperature}, fitted on {n} validation images."
    else:
        note = "No temperature was fitted."
    return Table(
        f"Calibration of the {split} probabilities",
        ["lower is better", *(f"{moment} scaling" for moment in moments)],
        [
            [FURTHER_METRICS[name], *(estimate_cell(metrics[name]) for metrics in moments.values())]
            for name in CALIBRATION
        ],
        note=note,
    )


def probability_rule(run: Evaluated) -> list[str]:
    """Which metrics and probabilities are calibrated; nothing where none are."""
    if run.decisions is None:
        return []
    if run.temperature == 1:
        return [UNSCALED]
    return [
        "Probabilities of single images and metrics by level or group are calibrated (temperature "
        f"{temperature_text(run.temperature)}); metrics over all classes and by class are "
        "uncalibrated."
    ]


def group_strata(assessment: Assessment) -> dict[tuple[str, str], list[Stratum]]:
    """The groups of the test rows by column and level."""
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in assessment.strata:
        if stratum.by != OVERALL:
            groups.setdefault((stratum.by, stratum.level), []).append(stratum)
    return groups


def group_tables(run: Evaluated, *, identifiers: bool = True) -> Iterator[tuple[str, Table, bool]]:
    """Title and table for each column and level, and whether it comes first for that column.

    identifiers: whether values may be `IDENTIFIERS`.
    """
    groups = group_strata(run.assessment)
    for by, level in groups:
        if identifiers or by not in IDENTIFIERS:
            first = level == run.level or (by, run.level) not in groups
            yield f"By {by}, {level} level", group_table(run, by, level), first


def group_table(run: Evaluated, by: str, level: str) -> Table:
    """All rows, then each group of a column at one level, with bars of the first metric."""
    members = [run.overall[level], *group_strata(run.assessment)[by, level]]
    threshold, rule = members[0].threshold, decision_rule(run, level)
    if threshold is None:
        titles, metrics = [*MULTICLASS_METRICS.values()], [_multiclass(s) for s in members]
        count = "n"
    else:
        names = BINARY_METRICS[:4]
        titles = ["AUC", *names[1:]]
        metrics = [[getattr(s.summary.per_class[1], name) for name in names] for s in members]
        count = "cases/n"
    scale = estimate_scale([row[0] for row in metrics], also=[1.0])
    rows: list[list[Cell]] = []
    for stratum, (first, *others) in zip(members, metrics, strict=True):
        n = str(stratum.summary.n)
        rows.append(
            [
                "all" if stratum.by == OVERALL else stratum.value,
                n if threshold is None else f"{stratum.summary.per_class[1].n}/{n}",
                estimate_cell(first),
                estimate_cell(first).bar(scale, guide=metrics[0][0].value),
                *map(estimate_cell, others),
            ]
        )
    heads = [by, count, titles[0], f"{titles[0]}, {scale}; line: all", *titles[1:]]
    rule += _scaled(run) if threshold is None else ""
    return Table(f"By {by}, {level} level; {rule}", heads, rows, strong=True)


def _scaled(run: Evaluated) -> str:
    """Of several classes, the AUC after scaling is another one than in the uncalibrated tables."""
    return "" if run.temperature == 1 else "; calibrated"


def _multiclass(stratum: Stratum) -> list[Estimate]:
    return [stratum.summary.metrics[name] for name in MULTICLASS_METRICS]


def of_clusters(summary: Summary) -> str:
    """`of 30 patients`; "" where each image is a cluster of its own."""
    unit = "group" if "," in summary.unit else summary.unit
    if summary.unit == "image, joined by copies":
        unit = "picture"
    return "" if summary.clusters == summary.n else f"of {counted(summary.clusters, unit)}"


def level_plural(run: Evaluated) -> str:
    """`studies` or `images`: what the metrics that a reader sees first are of."""
    return "studies" if run.level == "study" else "images"
