"""The figures of a two-class task, at image and at study level, overall and per region.

A study is abnormal by the arithmetic mean of its views' probabilities, as MURA's official
evaluation has it; its Cohen's kappa takes a mean above 0.5 as abnormal.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fracnet.evaluation import metrics
from fracnet.evaluation.areas import auc_intervals
from fracnet.evaluation.bootstrap import RESAMPLES
from fracnet.evaluation.intervals import proportion
from fracnet.evaluation.levels import by_study, offered
from fracnet.evaluation.predictions import (
    check,
    classes_of,
    clusters_of,
    probabilities,
    targets,
)
from fracnet.evaluation.primary import agreement_intervals
from fracnet.evaluation.strata import levels_for
from fracnet.evaluation.summary import Estimate, estimate, plain

OVERALL = "overall"


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
            OVERALL: rows,
            **{str(name): of for name, of in rows.groupby("region", sort=True) if level in fit},
        }.items()
    )


def _row(table: pd.DataFrame, level: str, region: str, resamples: int) -> BinaryRow:
    clusters = clusters_of(table)
    prob, target = probabilities(table), targets(table)
    predicted = metrics.predict(prob)  # abnormal above 0.5: a tie is normal
    case, named = target == 1, predicted == 1
    n, positives = len(target), int(case.sum())
    matrix = metrics.confusion(target, predicted, 2)
    area = auc_intervals(target, prob, clusters)[1]
    value = metrics.auc(target, prob)[1]
    rates = metrics.sensitivity(matrix)
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
            metrics.kappa(matrix),
            agreement_intervals(target, predicted, 2, clusters, resamples=resamples)["kappa"],
            n,
            cases=min(positives, n - positives),
        ),
    )
