"""The metrics of one split with their intervals: what a run prints and stores.

Each metric has one interval, by the method that holds for it (`primary_intervals`): scores of
proportions with an effective n where rows cluster, clustered variances on the scale of the logit or
the log, and for kappa, MCC and macro F1 a seeded bootstrap by cluster.

In simulations of 83 images in six classes and of 200 patients with three views, 95 % intervals
cover the population's overall metrics in 93 to 98 % of samples, and the calibration error in up to
100 % where few predictions are wrong. Percentiles of resamples do so for few of the metrics: at 83
images of a good model they cover kappa in 91 %, and the F1 of a class of six images in 75 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from fracnet.evaluation.predictions import Predictions
from fracnet.metrics import classification
from fracnet.metrics.calibration import (
    BINS,
    ESTIMATOR,
    bins_of,
    calibration_error,
    calibration_interval,
)
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import (
    RESAMPLES,
    Interval,
    bootstrap,
    f1_interval,
    mean_loss,
    mean_of_proportions,
    proportion,
    score_bootstrap,
)
from fracnet.metrics.roc import auc_intervals, average_precision_intervals
from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

UNDEFINED = "undefined: labels or predictions are of one class only"
FEW = 10
"""With fewer cases (or non-cases) a metric is marked `TOO_FEW`."""
TOO_FEW = "too few"
NOT_FROM_0 = "not distinguishable from 0"
"""Of a debiased estimate that is cut off at 0, which is no proof of perfection."""
MACRO = {
    "balanced_accuracy": "sensitivity",
    **{f"macro_{rate}": rate for rate in classification.PER_CLASS if rate != "npv"},
}
AGREEMENT = ("kappa", "mcc")
BOOTSTRAPPED = {"kappa": -1.0, "mcc": -1.0, "macro_f1": 0.0}
"""Metrics of a confusion matrix without an interval of their own, and their lowest values."""


def primary_intervals(
    target: np.ndarray,
    prob: np.ndarray,
    predicted: np.ndarray,
    clusters: Clusters,
    *,
    resamples: int,
    seed: int,
    score: np.ndarray | None = None,
) -> tuple[dict[str, Interval], dict[str, list[Interval]]]:
    """Intervals of the metrics in `classification.OVERALL` and, by class, in `PER_CLASS`.

    Only `BOOTSTRAPPED` are resampled. `score` ranks the rows, by default `prob`.
    """
    score = prob if score is None else score
    index = np.arange(prob.shape[1])
    case, positive = target[:, None] == index, predicted[:, None] == index
    everyone = np.ones(len(target), dtype=bool)
    areas = auc_intervals(target, score, clusters)
    precisions = average_precision_intervals(target, score, clusters)
    recall = mean_of_proportions(positive, case, clusters)
    overall = {
        "accuracy": proportion(predicted == target, everyone, clusters, rows="rows"),
        "balanced_accuracy": recall,
        "macro_sensitivity": recall,
        "macro_specificity": mean_of_proportions(~positive, ~case, clusters, rows="others"),
        "macro_precision": _macro_precision_interval(case, positive, clusters),
        "macro_auc": areas[-1],
        "macro_average_precision": precisions[-1],
        **_loss_intervals(target, prob, clusters),
        **agreement_intervals(
            target, predicted, prob.shape[1], clusters, resamples=resamples, seed=seed
        ),
    }

    def by_class(success: np.ndarray, member: np.ndarray, rows: str) -> list[Interval]:
        return [proportion(success[:, c], member[:, c], clusters, rows=rows) for c in index]

    return overall, {
        "sensitivity": by_class(positive, case, "cases"),
        "specificity": by_class(~positive, ~case, "others"),
        "precision": by_class(case, positive, "predictions"),
        "npv": by_class(~case, ~positive, "other predictions"),
        "f1": [f1_interval(case[:, c], positive[:, c], clusters) for c in index],
        "auc": areas[:-1],
        "average_precision": precisions[:-1],
    }


def _loss_intervals(
    target: np.ndarray, prob: np.ndarray, clusters: Clusters
) -> dict[str, Interval]:
    """Intervals of the metrics in `classification.LOSSES`."""
    rows = {name: loss(target, prob) for name, loss in classification.ROW_LOSSES.items()}
    most = {"brier": float(classification.brier_range(prob.shape[1])[1])}
    means = {
        name: mean_loss(values, clusters, most.get(name, math.inf)) for name, values in rows.items()
    }
    return {**means, "calibration_error": calibration_interval(target, prob, clusters)}


def _macro_precision_interval(
    case: np.ndarray, positive: np.ndarray, clusters: Clusters
) -> Interval:
    """The interval of the predicted classes' mean, shrunk by the classes that count as 0."""
    interval = mean_of_proportions(case, positive, clusters, rows="predictions")
    predicted, scored = positive.any(axis=0).sum(), (positive | case).any(axis=0).sum()
    if interval.low is None or interval.high is None or predicted == scored:
        return interval
    share = float(predicted / scored)
    return replace(interval, low=interval.low * share, high=interval.high * share)


def agreement_intervals(
    target: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    clusters: Clusters,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of `BOOTSTRAPPED` from int64[N] each, by a bootstrap of whole clusters."""

    def metrics(weights: np.ndarray | None = None) -> list[np.ndarray]:
        matrix = classification.confusion(target, predicted, n_classes, weights)
        return [classification.of_matrix(name, matrix) for name in BOOTSTRAPPED]

    method, values = f"score, bootstrap by {clusters.unit}", metrics()
    if clusters.count > 1:
        resampled = bootstrap(
            lambda weights: np.stack(metrics(weights), axis=1),
            clusters,
            resamples=resamples,
            seed=seed,
        )
    return {
        name: Interval(None, None, method, UNDEFINED)
        if np.isnan(values[k])
        else Interval(None, None, method, clusters.lone)
        if clusters.count < 2
        else score_bootstrap(float(values[k]), resampled[:, k], clusters, lowest=lowest)
        for k, (name, lowest) in enumerate(BOOTSTRAPPED.items())
    }


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and what both rest on. NaN and None mean undefined.

    `n` counts the rows of the denominator (for an AUC: the class's cases); `scored` the classes
    that a macro average covers.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    n: int
    note: str = ""
    scored: int | None = None


@dataclass(frozen=True)
class ClassSummary:
    """One class against the rest; `n` is its number of cases."""

    name: str
    n: int
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate
    npv: Estimate
    f1: Estimate
    auc: Estimate
    average_precision: Estimate


@dataclass(frozen=True)
class Summary:
    """All metrics of one split. `confusion[truth][prediction]` counts rows.

    `definitions` explains a metric and its range where its name leaves that open.
    """

    split: str
    classes: tuple[str, ...]
    n: int
    clusters: int
    unit: str
    metrics: dict[str, Estimate]
    per_class: tuple[ClassSummary, ...]
    confusion: tuple[tuple[int, ...], ...]
    definitions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        content: dict[str, Any] = plain(self)
        for row in content["per_class"]:
            row["class"] = row.pop("name")
        return content


def summarize(
    predictions: Predictions,
    decided: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Score the rows of one split. Raises `UserError` for rows of two.

    `decided` int64[N] gives each row's class, e.g. at an operating point, in place of the likeliest
    one. The result does not depend on the order of rows.
    """
    splits = sorted(predictions.table["split"].unique())
    if len(splits) != 1:
        raise UserError(
            f"The predictions table's column 'split' holds {', '.join(splits)}; "
            "metrics are computed for one split at a time: select its rows first."
        )
    classes = predictions.classes
    if decided is not None:
        assert decided.shape == (len(predictions),), (decided.shape, len(predictions))
        assert ((decided >= 0) & (decided < len(classes))).all(), "classes by index"
    # Floating-point sums depend on the order.
    order = np.argsort(predictions.table["path"].astype(str).to_numpy(), kind="stable")
    predictions = Predictions.trusted(predictions.table.iloc[order])
    prob, target, clusters = predictions.probabilities, predictions.targets, predictions.clusters
    predicted = classification.predict(prob) if decided is None else np.asarray(decided)[order]
    matrix = classification.confusion(target, predicted, len(classes))
    score = predictions.scores
    rates = classification.by_class(target, score, predicted)
    values = classification.overall(target, prob, predicted, rates)
    values["calibration_error"] = np.asarray(calibration_error(target, prob, clusters))
    intervals, class_intervals = primary_intervals(
        target, prob, predicted, clusters, resamples=resamples, seed=seed, score=score
    )
    n, counts, predicted_counts = len(target), matrix.sum(axis=1), matrix.sum(axis=0)
    refused = int(((predicted_counts == 0) & (counts > 0)).sum())
    notes = _loss_notes(target, prob, clusters, float(values["calibration_error"]))
    if refused:
        unused = counted(refused, "class")
        notes["macro_precision"] = f"{unused} that {are(refused)} never predicted: precision 0"
    overall = {}
    averaged = rates | {"precision": classification.precision_or_zero(matrix)}
    for name in classification.OVERALL:
        if name in MACRO:
            metric = _macro(averaged[MACRO[name]], intervals[name], n)
        else:
            # With two classes, kappa and MCC rest on the rarer one.
            cases = int(counts.min()) if len(classes) == 2 and name in AGREEMENT else n
            metric = estimate(values[name], intervals[name], n, cases=cases)
        overall[name] = replace(metric, note=_joined(metric.note, notes.get(name, "")))
    per_class = []
    for c, name in enumerate(classes):
        cases, rest, positives = int(counts[c]), int(n - counts[c]), int(predicted_counts[c])
        # The denominator of each rate, and the smaller count that it rests on where they differ.
        denominators = {"specificity": rest, "precision": positives, "npv": n - positives}
        rarer = {"auc": min(cases, rest), "average_precision": min(cases, rest)}
        estimates = {
            rate: estimate(
                rates[rate][c],
                class_intervals[rate][c],
                denominators.get(rate, cases),
                cases=rarer.get(rate, denominators.get(rate, cases)),
            )
            for rate in classification.PER_CLASS
        }
        per_class.append(ClassSummary(name=name, n=cases, **estimates))
    return Summary(
        split=str(splits[0]),
        classes=classes,
        n=n,
        clusters=clusters.count,
        unit=clusters.unit,
        metrics=overall,
        per_class=tuple(per_class),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        definitions=_definitions(len(classes)),
    )


def losses(predictions: Predictions) -> dict[str, Estimate]:
    """The metrics in `classification.LOSSES` of the rows of one split, as `summarize` has them."""
    predictions = predictions.by_path()
    prob, target, clusters = predictions.probabilities, predictions.targets, predictions.clusters
    rows = classification.ROW_LOSSES.items()
    values = {name: float(loss(target, prob).mean()) for name, loss in rows}
    values["calibration_error"] = calibration_error(target, prob, clusters)
    notes = _loss_notes(target, prob, clusters, values["calibration_error"])
    estimates = {
        name: estimate(values[name], interval, len(target), cases=len(target))
        for name, interval in _loss_intervals(target, prob, clusters).items()
    }
    return {
        name: replace(metric, note=_joined(metric.note, notes.get(name, "")))
        for name, metric in estimates.items()
    }


def _loss_notes(
    target: np.ndarray, prob: np.ndarray, clusters: Clusters, error: float
) -> dict[str, str]:
    """Remarks on the calibration error, which is `error`, and the log loss."""
    bins = int(bins_of(prob.max(axis=1), clusters).max()) + 1
    few = counted(bins, "bin") if bins < BINS else ""
    notes = {"calibration_error": _joined(few, NOT_FROM_0 if error == 0 else "")}
    if floored := int((prob[np.arange(len(target)), target] < classification.FLOOR).sum()):
        rows = counted(floored, "row")
        notes["log_loss"] = f"in {rows} the true class has a probability near 0"
    return notes


def _definitions(n_classes: int) -> dict[str, str]:
    best, worst = classification.brier_range(n_classes)
    over = "of the second class's probability" if n_classes == 2 else "summed over the classes"
    return {
        "brier": f"squared error {over}, {best} (best) to {worst}",
        "log_loss": "natural logarithm; a probability of 0 counts as 2.2e-16",
        "calibration_error": f"root mean squared, {ESTIMATOR}",
        "average_precision": "step-wise, without interpolation",
        "macro": "plain mean over the classes in which the metric is defined",
        "macro_precision": "a class that has cases but is never predicted counts as 0",
    }


def estimate(value: float | np.ndarray, interval: Interval, n: int, cases: int) -> Estimate:
    """A value with its interval, marked if it rests on too few `cases`."""
    note = _joined(interval.note, TOO_FEW if 0 < cases < FEW else "")
    return Estimate(float(value), interval.low, interval.high, interval.method, n, note)


def _macro(values: np.ndarray, interval: Interval, n: int) -> Estimate:
    scored = int((~np.isnan(values)).sum())
    missing = f"{scored} of {len(values)} classes scored" if 0 < scored < len(values) else ""
    value, note = float(classification.macro(values)), _joined(interval.note, missing)
    return Estimate(value, interval.low, interval.high, interval.method, n, note, scored)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def plain(value: Any) -> Any:
    """Dataclasses and sequences as plain containers for JSON; non-finite numbers become None."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
