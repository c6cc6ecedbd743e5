"""The threshold of a two-class task, chosen on validation and then only applied.

A row is positive if its score lies above the threshold; a score equal to it is negative, as MURA's
official rule has it for 0.5. Candidates lie halfway between neighbouring scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fracnet.errors import UserError
from fracnet.evaluation.summary import FEW

DEFAULT = 0.5


def check_operating(rule: object, n_classes: int) -> None:
    """Raise `UserError` for a rule that was asked for where there is no threshold to choose."""
    if n_classes != 2:
        raise UserError(
            f"operating={said(rule)} chooses a threshold for two classes; there are {n_classes} "
            "here, and the decision is the likeliest class. Leave operating= out."
        )


@dataclass(frozen=True)
class Point:
    """A threshold and what it gave on the rows that chose it; None where undefined."""

    threshold: float
    sensitivity: float | None
    specificity: float | None
    n: int
    positives: int
    note: str = ""


def choose(score: np.ndarray, case: np.ndarray, rule: Mapping[str, Any]) -> Point:
    """The operating point that `rule` asks for, on scores float64[N] of cases bool[N].

    - {"youden": True}: the most sensitivity + specificity (Youden 1950, Cancer 3:32).
    - {"sensitivity": x}: at least x, with the most specificity.
    - {"specificity": x}: at least x, with the most sensitivity.
    - {"cost_ratio": c}: the least c misses + false alarms, at the prevalence of these rows.

    Among equals the one with the most sensitivity is taken, then the fewest false alarms. Where one
    class has no row nothing can be chosen: `DEFAULT`, with a note.
    """
    n, positives = len(score), int(case.sum())
    negatives = n - positives
    if not positives or not negatives:
        missing = "positive" if not positives else "negative"
        note = f"not chosen: validation has no {missing} case"
        return Point(DEFAULT, None, None, n, positives, note)
    thresholds, hits, alarms = _candidates(score, case)
    place = _best(hits, alarms, positives, negatives, rule)
    notes = []
    if alarms[place] == negatives:
        notes.append("only by naming everything positive")
    if not hits[place]:
        notes.append("only by naming nothing positive")
    if min(positives, negatives) < FEW:
        notes.append(f"chosen by {positives} positive and {negatives} negative cases: too few")
    return Point(
        float(thresholds[place]),
        float(hits[place] / positives),
        float(1 - alarms[place] / negatives),
        n,
        positives,
        "; ".join(notes),
    )


def decide(score: np.ndarray, threshold: float) -> np.ndarray:
    """int64[N], 1 where the score lies above the threshold."""
    return np.asarray(score > threshold, dtype=np.int64)


def _candidates(score: np.ndarray, case: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from the highest down, with the positives and the negatives above each."""
    values, place = np.unique(score, return_inverse=True)
    cases = np.bincount(place, weights=case, minlength=len(values)).astype(np.int64)
    others = np.bincount(place, weights=~case, minlength=len(values)).astype(np.int64)
    between = values[:-1] + (values[1:] - values[:-1]) / 2
    # Neighbouring doubles have nothing between them: the lower one then keeps the upper above it.
    between = np.where(between < values[1:], between, values[:-1])
    # Below all: 0, unless a score is 0, which 0 itself would leave out.
    lowest = 0.0 if values[0] > 0 else float(np.nextafter(0.0, -1.0))
    thresholds = np.concatenate([[lowest], between, [max(1.0, values[-1])]])[::-1]
    above = [np.concatenate([[0], np.cumsum(counts[::-1])]) for counts in (cases, others)]
    return thresholds, above[0], above[1]


def _best(
    hits: np.ndarray, alarms: np.ndarray, positives: int, negatives: int, rule: Mapping[str, Any]
) -> int:
    """Index of the chosen candidate; whole numbers, so that equals are equal."""
    ((name, wanted),) = rule.items()
    allowed = np.ones(len(hits), dtype=bool)
    if name == "youden":
        gain = hits * negatives - alarms * positives
    elif name == "cost_ratio":
        gain = -np.round(wanted * (positives - hits) + alarms, 9)
    elif name == "sensitivity":
        # Not a hair above: 0.9 of 10 is 9, whatever floats make of it.
        allowed = hits >= np.ceil(wanted * positives - 1e-9)
        gain = -alarms
    else:
        assert name == "specificity", name
        allowed = negatives - alarms >= np.ceil(wanted * negatives - 1e-9)
        gain = hits
    top = allowed & (gain == gain[allowed].max())
    most = top & (hits == hits[top].max())
    return int(np.flatnonzero(most & (alarms == alarms[most].min()))[0])


def said(value: Any) -> str:
    """A rule, or another option, as it stands on a command line."""
    if value == {"youden": True}:
        return "youden"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {number:g}" for key, number in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
