"""The figures of one split with their intervals: what a run prints and stores.

Accuracy, sensitivity and specificity carry Wilson intervals, their macro averages the score
interval of a mean of proportions, with an effective n where rows cluster (`intervals`); AUC the
logit of its clustered variance (`areas`). No draw of random numbers is involved.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation import intervals, metrics
from fracnet.evaluation.areas import auc_intervals
from fracnet.evaluation.intervals import Interval
from fracnet.evaluation.predictions import (
    check,
    classes_of,
    clusters_of,
    probabilities,
    targets,
)

# Below this number of cases (or non-cases) "too few" stands beside a figure.
FEW = 10
TOO_FEW = "too few"


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
    auc: Estimate


@dataclass(frozen=True)
class Summary:
    """All figures of one split. `confusion[truth][prediction]` counts rows."""

    split: str
    classes: tuple[str, ...]
    n: int
    clusters: int
    unit: str
    metrics: dict[str, Estimate]
    per_class: tuple[ClassSummary, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; undefined values are None."""
        found: dict[str, Any] = plain(self)
        for row in found["per_class"]:
            row["class"] = row.pop("name")
        return found


def summarise(table: pd.DataFrame) -> Summary:
    """Score the rows of one split. Raises `UserError` for a table that `check` refuses.

    The same rows give the same figures, whatever their order.
    """
    check(table)
    splits = sorted(table["split"].unique())
    if len(splits) != 1:
        raise UserError(
            f"The predictions table's column 'split' holds {', '.join(splits)}; "
            "figures are made for one split at a time: select its rows first."
        )
    classes, clusters = classes_of(table), clusters_of(table)
    prob, target = probabilities(table), targets(table)
    predicted = metrics.predict(prob)
    matrix = metrics.confusion(target, predicted, len(classes))
    areas, area_limits = metrics.auc(target, prob), auc_intervals(target, prob, clusters)

    index = np.arange(len(classes))
    case = target[:, None] == index
    named = predicted[:, None] == index
    everyone = np.ones(len(target), dtype=bool)
    sensitivity, specificity = metrics.sensitivity(matrix), metrics.specificity(matrix)
    recall = intervals.mean_of_proportions(named, case, clusters)
    rejection = intervals.mean_of_proportions(~named, ~case, clusters)
    overall = {
        "accuracy": estimate(
            metrics.accuracy(matrix),
            intervals.proportion(predicted == target, everyone, clusters),
            len(target),
            cases=len(target),
        ),
        "balanced_accuracy": _macro(sensitivity, recall, len(target)),
        "macro_sensitivity": _macro(sensitivity, recall, len(target)),
        "macro_specificity": _macro(specificity, rejection, len(target)),
        "macro_auc": _macro(areas, area_limits[-1], len(target)),
    }
    per_class = []
    for c, name in enumerate(classes):
        n, rest = int(case[:, c].sum()), int((~case[:, c]).sum())
        hits = intervals.proportion(named[:, c], case[:, c], clusters)
        rejects = intervals.proportion(~named[:, c], ~case[:, c], clusters)
        per_class.append(
            ClassSummary(
                name,
                n,
                estimate(sensitivity[c], hits, n, cases=n),
                estimate(specificity[c], rejects, rest, cases=rest),
                estimate(areas[c], area_limits[c], n, cases=min(n, rest)),
            )
        )
    return Summary(
        split=str(splits[0]),
        classes=classes,
        n=len(target),
        clusters=clusters.count,
        unit=clusters.unit,
        metrics=overall,
        per_class=tuple(per_class),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
    )


def estimate(value: float | np.ndarray, interval: Interval, n: int, cases: int) -> Estimate:
    """A value with its interval, marked where it rests on too few `cases`."""
    notes = [interval.note]
    if 0 < cases < FEW:
        notes.append(TOO_FEW)
    note = "; ".join(filter(None, notes))
    return Estimate(float(value), interval.low, interval.high, interval.method, n, note)


def _macro(values: np.ndarray, interval: Interval, n: int) -> Estimate:
    scored = int(metrics.scored(values))
    notes = [interval.note]
    if scored < len(values):
        notes.append(f"{scored} of {len(values)} classes scored")
    note = "; ".join(filter(None, notes))
    value = float(metrics.macro(values))
    return Estimate(value, interval.low, interval.high, interval.method, n, note, scored)


def plain(value: Any) -> Any:
    """Dataclasses and sequences as plain containers for JSON; what is not finite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
