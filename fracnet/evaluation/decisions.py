"""What validation decides, frozen with a hash: temperature and operating points.

Nothing of the test enters: `decide` is handed the rows of validation alone.

The threshold of a two-class task, chosen on validation and then only applied.

A row is positive if its score lies above the threshold; a score equal to it is negative, as MURA's
official rule has it for 0.5. Candidates lie halfway between neighboring scores.

Temperature scaling: one number, fitted on validation, by which all logits are divided.

C. Guo et al. 2017, On calibration of modern neural networks, ICML. It changes how sure a model
sounds and never which class it finds likeliest.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import TINY, check_views, offered, positive, to_level
from fracnet.evaluation.predictions import LOGIT, PROB, assemble, classes_of, probabilities, targets
from fracnet.evaluation.summary import FEW
from fracnet.utils.errors import UserError

DEFAULT = 0.5


def check_operating(rule: object, n_classes: int) -> None:
    """Raise `UserError` for a rule that was asked for where there is no threshold to choose."""
    if n_classes != 2:
        raise UserError(
            f"operating_point={said(rule)} chooses a threshold for two classes; there are {n_classes} "
            "here, and the decision is the likeliest class. Leave operating_point= out."
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


def decide_positive(score: np.ndarray, threshold: float) -> np.ndarray:
    """int64[N], 1 where the score lies above the threshold."""
    return np.asarray(score > threshold, dtype=np.int64)


def _candidates(score: np.ndarray, case: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from the highest down, with the positives and the negatives above each."""
    values, place = np.unique(score, return_inverse=True)
    cases = np.bincount(place, weights=case, minlength=len(values)).astype(np.int64)
    others = np.bincount(place, weights=~case, minlength=len(values)).astype(np.int64)
    between = values[:-1] + (values[1:] - values[:-1]) / 2
    # Neighboring doubles have nothing between them: the lower one then keeps the upper above it.
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


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by `value`; `note` says why it is 1 where it could not be fitted."""

    value: float
    note: str = ""


def fit(table: pd.DataFrame) -> Temperature:
    """The temperature with the least log loss on these rows, those of validation.

    1, with a note, where there is none: rows of one class only, every row right (the loss falls
    for ever as T nears 0), or scores that do not go with the labels (it falls for ever as T grows).
    """
    scores, target = logits(table), targets(table)
    if len(np.unique(target)) < 2:
        return Temperature(1.0, "not fitted: all validation images are of one class")
    scores = scores - scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(target)), target]

    def slope(beta: float) -> float:
        """Derivative of the log loss by beta = 1/T, in which it is convex."""
        return float(((softmax(beta * scores, axis=1) * scores).sum(axis=1) - own).mean())

    if slope(0.0) >= 0:
        return Temperature(1.0, "not fitted: the scores do not go with the labels of validation")
    if own.min() == 0:
        return Temperature(1.0, "not fitted: every validation image is right, so T would be 0")
    high = 1.0
    while slope(high) < 0:
        high *= 2
        # A row that is wrong by next to nothing; then T is next to 0, too.
        if high > 1e6:
            return Temperature(1.0, "not fitted: T would be under one millionth")
    beta = float(brentq(slope, 0.0, high, xtol=1e-15, rtol=1e-14))
    return Temperature(1 / beta)


def calibrated(table: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The table with logits divided by `temperature` and the probabilities that follow.

    With 1 it is the table itself, to the last digit.
    """
    if temperature == 1:
        return table
    kept = [c for c in table.columns if not str(c).startswith((PROB, LOGIT))]
    return assemble(table[kept], classes_of(table), logits(table) / temperature)


def logits(table: pd.DataFrame) -> np.ndarray:
    """float64[N, C]; the logs of the probabilities where the table holds no logits."""
    columns = [f"{LOGIT}{name}" for name in classes_of(table)]
    if set(columns) <= set(table.columns):
        return table[columns].to_numpy(dtype=np.float64)
    return np.log(np.maximum(probabilities(table), TINY))


# The columns of a table on which a decision can depend.
IDENTITY = ("path", "label", "patient", "study")


def decide(val: pd.DataFrame, options: Evaluation) -> dict[str, Any]:
    """Choose temperature and thresholds on the rows of validation: the content of decisions.json.

    In this order: calibrate the logits, put the views together, choose a threshold for each level.
    `operating_point` is None for more than two classes, whose decision is the likeliest class.
    """
    assert set(val["split"]) == {"val"}, "validation decides, and nothing else"
    classes = classes_of(val)
    check_views(options.views, len(classes))
    fitted = Temperature(1.0, "not asked for")
    if options.calibrate:
        fitted = fit(val)
    points = None
    if len(classes) == 2:
        rows = calibrated(val, fitted.value)
        points = {}
        for level in offered(val)[1]:
            units = to_level(rows, level, options.views)
            chosen = choose(positive(units), targets(units) == 1, options.operating_point)
            points[level] = asdict(chosen)
    return sealed(
        {
            "temperature": fitted.value,
            "temperature_note": fitted.note,
            **settings(options),
            "operating_point": points,
            "classes": list(classes),
            "validation": {"n": len(val), "sha256": fingerprint(val)},
        }
    )


def settings(options: Evaluation) -> dict[str, Any]:
    """The options that decisions depend on."""
    return {
        "calibrate": options.calibrate,
        "views": options.views,
        "rule": dict(options.operating_point),
    }


def fingerprint(val: pd.DataFrame) -> str:
    """SHA-256 of the rows that decide, whatever their order: ids, labels, logits, probabilities."""
    scores = [c for c in val.columns if str(c).startswith((PROB, LOGIT))]
    rows = val[[*(c for c in IDENTITY if c in val), *scores]].sort_values("path")
    text = rows.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with `sha256` of all the rest of it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, allow_nan=False)
    return rest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def verify(content: Any, val: pd.DataFrame, options: Evaluation, where: str) -> None:
    """Raise `UserError` unless `content` is whole and was made from these rows with these options.

    `where` names the file.
    """
    again = "remove it to have validation choose anew"
    if not isinstance(content, dict) or "sha256" not in content:
        raise UserError(f"{where} holds no decisions with their hash; {again}.")
    if sealed(content)["sha256"] != content["sha256"]:
        raise UserError(
            f"{where} has been changed since it was written: its content does not have the hash "
            f"{content['sha256'][:12]}... that stands in it. What validation has chosen is frozen; "
            f"bring the file back as it was, or {again}."
        )
    if content["validation"]["sha256"] != fingerprint(val):
        raise UserError(
            f"{where} was made from other rows of validation ({content['validation']['n']}) than "
            f"the {len(val)} in the predictions; bring them back as they were, or {again}."
        )
    wanted = settings(options)
    for key, value in wanted.items():
        if content[key] != value:
            raise UserError(
                f"{where} was made with {key}={said(content[key])}, and the run's config.yaml "
                f"says {key}={said(value)}; bring the config back as it was, or {again}."
            )
