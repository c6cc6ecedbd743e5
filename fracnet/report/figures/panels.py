"""What the panels of ROC and precision-recall figures show: one for each class, or each level."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.assess import Stratum
from fracnet.evaluation.predictions import Clusters, clusters_of, probabilities, targets
from fracnet.evaluation.summary import ClassSummary, Estimate, Summary
from fracnet.words import limits

# More panels than this make no figure: the classes with the most cases are drawn.
MOST = 24


@dataclass(frozen=True)
class Panel:
    """One class against the rest. `case` bool[N], `score` float64[N], `clusters` of these rows.

    `summary` has its figures at the operating point, which `decision` puts into words; `chosen` is
    (sensitivity, specificity) on the validation rows that chose the point, None if none did.
    """

    title: str
    level: str
    case: np.ndarray
    score: np.ndarray
    clusters: Clusters
    summary: ClassSummary
    decision: str
    chosen: tuple[float, float] | None = None


def by_class(table: pd.DataFrame, summary: Summary) -> list[Panel]:
    """One panel a class, in their order; `summary` is of the same rows, decided by argmax."""
    target, prob, clusters = targets(table), probabilities(table), clusters_of(table)
    most = sorted(range(len(summary.classes)), key=lambda c: -summary.per_class[c].n)[:MOST]
    return [
        Panel(
            title=summary.classes[c],
            level="image",
            case=target == c,
            score=prob[:, c],
            clusters=clusters,
            summary=summary.per_class[c],
            decision="the most likely class",
        )
        for c in sorted(most)
    ]


def by_level(
    tables: Mapping[str, pd.DataFrame],
    strata: Mapping[str, Stratum],
    decisions: Mapping[str, Any] | None,
) -> list[Panel]:
    """One panel a level of a two-class task, of its second class; `strata` are of these tables."""
    operating = (decisions or {}).get("operating") or {}
    panels = []
    for level, table in tables.items():
        point = operating.get(level, {})
        threshold = strata[level].threshold
        words = f"threshold {0.5 if threshold is None else threshold:.3g}"
        chosen = point.get("sensitivity"), point.get("specificity")
        if decisions is not None and None not in chosen:
            words += f" ({in_words(decisions['rule'])})"
        panels.append(
            Panel(
                title=f"{level} level",
                level=level,
                case=targets(table) == 1,
                score=probabilities(table)[:, 1],
                clusters=clusters_of(table),
                summary=strata[level].summary.per_class[1],
                decision=words,
                chosen=None if None in chosen else chosen,
            )
        )
    return panels


def in_words(rule: Mapping[str, Any]) -> str:
    """How an operating point was chosen: `Youden`, `sensitivity 0.9`, `a miss costs 5`."""
    name, value = next(iter(rule.items()))
    return {"youden": "Youden", "cost_ratio": f"a miss costs {value:g}"}.get(
        name, f"{name} {value:g}"
    )


def told(estimate: Estimate, name: str = "") -> str:
    """`AUC 0.984 (0.944-0.996)`; the note where there is no interval or no value."""
    if np.isnan(estimate.value):
        return f"{name} n/a".strip()
    text = f"{name} {estimate.value:.3f}".strip()
    if estimate.low is not None and estimate.high is not None:
        return f"{text} ({limits(estimate.low, estimate.high)})"
    return f"{text} (no interval)"


def counted(n: int, level: str) -> str:
    """1 image, 83 images, 12 studies."""
    if n == 1:
        return f"1 {level}"
    return f"{n} studies" if level == "study" else f"{n} {level}s"
