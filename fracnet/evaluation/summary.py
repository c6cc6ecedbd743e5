"""The figures of one split with their intervals: what a run prints and stores.

Each has one interval, by the method that holds for it (`primary`): scores of proportions with an
effective n where rows cluster, clustered variances on the scale of the logit or the log, and for
kappa, MCC and macro F1 a seeded bootstrap by cluster.

The one interval that stands beside each figure of merit, by the method that holds for it.

Simulated at 83 images of six classes and at 200 patients of three views, 95 % intervals cover the
population's overall figures in 93 to 98 % of studies; of the calibration error in up to 100 % where
few answers are wrong. Percentiles of resamples do so for few of the figures: at 83 images of a good
model they cover kappa in 91 %, the F1 of a class of six in 75 %.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.predictions import check, classes_of, clusters_of, probabilities, targets
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
    score,
)
from fracnet.metrics.roc import auc_intervals, average_precision_intervals
from fracnet.utils.errors import UserError

UNDEFINED = "undefined: truth or answers are of one class only"


def primary(
    target: np.ndarray,
    prob: np.ndarray,
    predicted: np.ndarray,
    clusters: Clusters,
    *,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Interval], dict[str, list[Interval]]]:
    """Intervals of the figures of `battery.OVERALL` and, for each class, of `PER_CLASS`.

    Only kappa, MCC and macro F1 are resampled.
    """
    index = np.arange(prob.shape[1])
    case, named = target[:, None] == index, predicted[:, None] == index
    everyone = np.ones(len(target), dtype=bool)
    areas = auc_intervals(target, prob, clusters)
    precisions = average_precision_intervals(target, prob, clusters)
    recall = mean_of_proportions(named, case, clusters)
    overall = {
        "accuracy": proportion(predicted == target, everyone, clusters, rows="rows"),
        "balanced_accuracy": recall,
        "macro_sensitivity": recall,
        "macro_specificity": mean_of_proportions(~named, ~case, clusters, rows="others"),
        "macro_precision": mean_of_proportions(case, named, clusters, rows="predictions"),
        "macro_auc": areas[-1],
        "macro_average_precision": precisions[-1],
        "brier": mean_loss(classification.brier_rows(target, prob), clusters),
        "log_loss": mean_loss(classification.log_loss_rows(target, prob), clusters),
        "calibration_error": calibration_interval(target, prob, clusters),
        **agreement_intervals(
            target, predicted, prob.shape[1], clusters, resamples=resamples, seed=seed
        ),
    }
    by_class = {
        "sensitivity": [proportion(named[:, c], case[:, c], clusters) for c in index],
        "specificity": [
            proportion(~named[:, c], ~case[:, c], clusters, rows="others") for c in index
        ],
        "precision": [
            proportion(case[:, c], named[:, c], clusters, rows="predictions") for c in index
        ],
        "npv": [
            proportion(~case[:, c], ~named[:, c], clusters, rows="other predictions") for c in index
        ],
        "f1": [f1_interval(case[:, c], named[:, c], clusters) for c in index],
        "auc": areas[:-1],
        "average_precision": precisions[:-1],
    }
    return overall, by_class


def agreement_intervals(
    target: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    clusters: Clusters,
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of kappa, mcc and macro_f1 from int64[N] each, by a bootstrap of whole clusters."""

    def figures(matrix: np.ndarray) -> list[np.ndarray]:
        return [
            classification.kappa(matrix),
            classification.mcc(matrix),
            classification.macro(classification.f1(matrix)),
        ]

    method = f"score, bootstrap by {clusters.unit}"
    names, lowest = ("kappa", "mcc", "macro_f1"), (-1.0, -1.0, 0.0)
    values = figures(classification.confusion(target, predicted, n_classes))
    if clusters.count < 2:
        return {
            name: Interval(None, None, method, clusters.lone if defined else UNDEFINED)
            for name, defined in zip(names, ~np.isnan(values), strict=True)
        }
    drawn = bootstrap(
        lambda weights: np.stack(
            figures(classification.confusion(target, predicted, n_classes, weights)), axis=1
        ),
        clusters,
        resamples=resamples,
        seed=seed,
    )
    return {
        name: Interval(None, None, method, UNDEFINED)
        if np.isnan(values[k])
        else score(float(values[k]), drawn[:, k], clusters, lowest=lowest[k])
        for k, name in enumerate(names)
    }


# Below this number of cases (or non-cases) "too few" stands beside a figure.
FEW = 10
TOO_FEW = "too few"
MACRO = {
    "balanced_accuracy": "sensitivity",
    **{f"macro_{rate}": rate for rate in classification.PER_CLASS if rate != "npv"},
}
AGREEMENT = ("kappa", "mcc")


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
    """All figures of one split. `confusion[truth][prediction]` counts rows.

    `definitions` says what a figure is and what range it has, where its name leaves that open.
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
        found: dict[str, Any] = plain(self)
        for row in found["per_class"]:
            row["class"] = row.pop("name")
        return found


def summarize(
    table: pd.DataFrame,
    decided: np.ndarray | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Score the rows of one split. Raises `UserError` for a table that `check` refuses.

    `decided` int64[N] names each row's class, as at an operating point, in place of the most
    likely one. The same rows give the same figures, whatever their order.
    """
    check(table)
    splits = sorted(table["split"].unique())
    if len(splits) != 1:
        raise UserError(
            f"The predictions table's column 'split' holds {', '.join(splits)}; "
            "figures are made for one split at a time: select its rows first."
        )
    if decided is not None:
        assert decided.shape == (len(table),), (decided.shape, len(table))
        assert ((decided >= 0) & (decided < len(classes_of(table)))).all(), "classes by index"
    order = np.argsort(table["path"].astype(str).to_numpy(), kind="stable")  # sums depend on it
    table = table.iloc[order]
    classes, clusters = classes_of(table), clusters_of(table)
    prob, target = probabilities(table), targets(table)
    predicted = classification.predict(prob) if decided is None else np.asarray(decided)[order]
    matrix = classification.confusion(target, predicted, len(classes))
    rates = classification.by_class(target, prob, predicted)
    values = classification.overall(target, prob, predicted, per_class=rates)
    values["calibration_error"] = np.asarray(calibration_error(target, prob, clusters))
    limits, class_limits = primary(
        target, prob, predicted, clusters, resamples=resamples, seed=seed
    )
    n, counts, named = len(target), matrix.sum(axis=1), matrix.sum(axis=0)
    overall = {}
    for name in classification.OVERALL:
        rate = MACRO.get(name)
        if rate is None:
            # Two classes: as few as the rarer of them.
            few = int(counts.min()) if len(classes) == 2 and name in AGREEMENT else n
            overall[name] = estimate(values[name], limits[name], n, cases=few)
        else:
            overall[name] = _macro(rates[rate], limits[name], n)
    if floored := int((prob[np.arange(n), target] < classification.FLOOR).sum()):
        overall["log_loss"] = _noted(
            overall["log_loss"], f"{floored} rows gave the true class no chance"
        )
    bins = int(bins_of(prob.max(axis=1), clusters).max()) + 1
    if bins < BINS:
        word = "1 bin" if bins == 1 else f"{bins} bins"
        overall["calibration_error"] = _noted(overall["calibration_error"], word)
    per_class = []
    for c, name in enumerate(classes):
        cases, rest, yes = int(counts[c]), int(n - counts[c]), int(named[c])
        # The rows that each rate is a share of, and how many it hangs on where those differ.
        rows = {"specificity": rest, "precision": yes, "npv": n - yes}
        hang = {"auc": min(cases, rest), "average_precision": min(cases, rest)}
        figures = {
            rate: estimate(
                rates[rate][c],
                class_limits[rate][c],
                rows.get(rate, cases),
                cases=hang.get(rate, rows.get(rate, cases)),
            )
            for rate in classification.PER_CLASS
        }
        per_class.append(ClassSummary(name=name, n=cases, **figures))
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


def _definitions(n_classes: int) -> dict[str, str]:
    best, worst = classification.brier_range(n_classes)
    over = "of the second class's probability" if n_classes == 2 else "summed over the classes"
    return {
        "brier": f"squared error {over}, {best} (best) to {worst}",
        "log_loss": "natural logarithm; a probability of 0 counts as 2.2e-16",
        "calibration_error": f"root mean squared, {ESTIMATOR}",
        "average_precision": "step-wise, without interpolation",
        "macro": "plain mean over the classes in which a figure is defined",
    }


def estimate(value: float | np.ndarray, interval: Interval, n: int, cases: int) -> Estimate:
    """A value with its interval, marked where it rests on too few `cases`."""
    notes = [interval.note]
    if 0 < cases < FEW:
        notes.append(TOO_FEW)
    note = "; ".join(filter(None, notes))
    return Estimate(float(value), interval.low, interval.high, interval.method, n, note)


def _macro(values: np.ndarray, interval: Interval, n: int) -> Estimate:
    scored = int(classification.scored(values))
    notes = [interval.note]
    if 0 < scored < len(values):
        notes.append(f"{scored} of {len(values)} classes scored")
    note = "; ".join(filter(None, notes))
    value = float(classification.macro(values))
    return Estimate(value, interval.low, interval.high, interval.method, n, note, scored)


def _noted(found: Estimate, note: str) -> Estimate:
    return replace(found, note="; ".join(filter(None, [found.note, note])))


def plain(value: Any) -> Any:
    """Dataclasses and sequences as plain containers for JSON; what is not finite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
