"""What validation decides, frozen with a hash: the temperature and the operating points.

`decide` gets the rows of validation alone, so nothing of the test enters.

The threshold of a two-class task is a number of log-odds (`Predictions.scores`), because
probabilities of a very confident network round to 1; it is shown as a probability. A row is
positive if its log-odds lie above the threshold and negative if they equal it, as in MURA's
official rule for 0.5. Candidates lie halfway between neighboring log-odds.

Temperature scaling divides all logits by one number (C. Guo et al. 2017, On calibration of modern
neural networks, ICML). It never changes which class is the likeliest.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from scipy.special import expit, log_softmax, softmax

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import available_levels, check_views, to_level
from fracnet.evaluation.predictions import LOGIT, PROB, Predictions, safe_log
from fracnet.evaluation.summary import FEW
from fracnet.metrics.classification import log_odds
from fracnet.metrics.intervals import clustered_error
from fracnet.utils.errors import UserError

DEFAULT_THRESHOLD = 0.5
EXTREME = float(np.finfo(np.float64).max)
"""Log-odds beyond those of any row: everything, or nothing, is positive."""
SATURATED = 0.999
"""Thresholds of higher probability are also named in log-odds."""
GAIN_FOLDS = 5
USUAL_TEMPERATURES = (0.25, 4.0)
"""Outside of them, `temperature_warning` says so."""
OF_FOLDS = (
    "not chosen: validation rows of an ensemble of folds are scored by single models, and what "
    "fits those does not fit the mean of all"
)
IDENTITY = ("path", "label", "patient", "study")
"""The columns, besides scores, on which a decision can depend."""


def check_operating_point(rule: object, n_classes: int) -> None:
    """Raise `UserError` for a rule that is given where there is no threshold to choose."""
    if n_classes != 2:
        raise UserError(
            f"operating_point={as_option(rule)} chooses a threshold for two classes; there are "
            f"{n_classes}, and the decision is the most likely class. Omit operating_point=."
        )


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates on the rows that chose it; None where undefined.

    `log_odds` decides; `threshold` is the same as a probability.
    """

    threshold: float
    log_odds: float
    sensitivity: float | None
    specificity: float | None
    n: int
    positives: int
    note: str = ""


def choose_threshold(
    score: np.ndarray, case: np.ndarray, rule: Mapping[str, Any]
) -> OperatingPoint:
    """The operating point that `rule` selects, on log-odds float64[N] of cases bool[N].

    - {"youden": True}: the most sensitivity + specificity (Youden 1950, Cancer 3:32).
    - {"sensitivity": x}: at least x, with the most specificity.
    - {"specificity": x}: at least x, with the most sensitivity.
    - {"cost_ratio": c}: the least c misses + false alarms, at the prevalence of these rows.

    Ties go to the most sensitivity, then to the fewest false alarms. Where a class has no row,
    nothing can be chosen: `DEFAULT_THRESHOLD`, with a note.
    """
    n, positives = len(score), int(case.sum())
    negatives = n - positives
    if not positives or not negatives:
        missing = "negative" if positives else "positive"
        return _undecided(case, f"not chosen: validation has no {missing} case")
    thresholds, hits, alarms = _candidates(score, case)
    best = _best(hits, alarms, positives, negatives, rule)
    notes = []
    if alarms[best] == negatives:
        notes.append("reached only by predicting positive for every case")
    if not hits[best]:
        notes.append("reached only by predicting negative for every case")
    if min(positives, negatives) < FEW:
        notes.append(f"chosen on {positives} positive and {negatives} negative cases: too few")
    cut = float(thresholds[best])
    if cut != EXTREME and expit(cut) > SATURATED:
        notes.append(f"{cut:.4g} in log-odds, where probabilities round to 1")
    return OperatingPoint(
        float(expit(cut)),
        cut,
        float(hits[best] / positives),
        float(1 - alarms[best] / negatives),
        n,
        positives,
        "; ".join(notes),
    )


def _undecided(case: np.ndarray, note: str) -> OperatingPoint:
    """The default, where nothing can be chosen."""
    return OperatingPoint(DEFAULT_THRESHOLD, 0.0, None, None, len(case), int(case.sum()), note)


def decide_classes(
    prob: np.ndarray, cut: float | None, score: np.ndarray | None = None
) -> np.ndarray:
    """int64[N], the predicted class: of two by the threshold `cut` in log-odds, else the likeliest.

    score: log-odds float64[N, C] (`Predictions.scores`), by default those of `prob`.
    """
    if cut is None:
        return np.asarray(prob.argmax(axis=1), dtype=np.int64)
    odds = log_odds(safe_log(prob)) if score is None else score
    return np.asarray(odds[:, 1] > cut, dtype=np.int64)


def decide_rows(rows: Predictions, cut: float | None) -> np.ndarray:
    """int64[N], the predicted class of calibrated rows; see `decide_classes`."""
    return decide_classes(rows.probabilities, cut, rows.scores)


def cut_of(decisions: Mapping[str, Any] | None, level: str) -> float | None:
    """The threshold of a level in log-odds; None without operating points."""
    points = (decisions or {}).get("operating_point")
    return float(points[level]["log_odds"]) if points else None


def _candidates(score: np.ndarray, case: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from the highest down, with the positives and the negatives above each."""
    values, index = np.unique(score, return_inverse=True)
    cases = np.bincount(index, weights=case, minlength=len(values)).astype(np.int64)
    others = np.bincount(index, weights=~case, minlength=len(values)).astype(np.int64)
    between = values[:-1] + (values[1:] - values[:-1]) / 2
    # Nothing lies between adjacent doubles: there the lower one keeps the upper above it.
    between = np.where(between < values[1:], between, values[:-1])
    thresholds = np.concatenate([[-EXTREME], between, [EXTREME]])[::-1]
    above = [np.concatenate([[0], np.cumsum(counts[::-1])]) for counts in (cases, others)]
    return thresholds, above[0], above[1]


def _best(
    hits: np.ndarray, alarms: np.ndarray, positives: int, negatives: int, rule: Mapping[str, Any]
) -> int:
    """Index of the chosen candidate; whole numbers, so that ties are exact."""
    ((name, value),) = rule.items()
    allowed = np.ones(len(hits), dtype=bool)
    if name == "youden":
        gain = hits * negatives - alarms * positives
    elif name == "cost_ratio":
        gain = -np.round(value * (positives - hits) + alarms, 9)
    elif name == "sensitivity":
        # With a tolerance: 0.9 of 10 is 9 in spite of floating-point error.
        allowed = hits >= np.ceil(value * positives - 1e-9)
        gain = -alarms
    else:
        assert name == "specificity", name
        allowed = negatives - alarms >= np.ceil(value * negatives - 1e-9)
        gain = hits
    top = allowed & (gain == gain[allowed].max())
    most = top & (hits == hits[top].max())
    return int(np.flatnonzero(most & (alarms == alarms[most].min()))[0])


def as_option(value: Any) -> str:
    """A rule, or another option, as written on a command line."""
    if value == {"youden": True}:
        return "youden"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {number:g}" for key, number in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def fit_temperature(val: Predictions) -> tuple[float, str]:
    """The temperature with the least log loss on the rows of validation, and a note.

    1, with a note on why, where there is none or cross-validation shows no gain in log loss.
    """
    temperature, note = least_loss_temperature(val.logits, val.targets)
    if note:
        return temperature, note
    if val.clusters.count < 2:
        return 1.0, f"not applied: {val.clusters.lone}, so a gain cannot be checked"
    gain, error = temperature_gain(val)
    if not gain > error:
        return 1.0, (
            "not applied: cross-validation on the validation images shows no gain in log loss "
            f"(mean gain {gain:.2g}, standard error {error:.2g} by {val.clusters.unit})"
        )
    return temperature, ""


def temperature_gain(val: Predictions) -> tuple[float, float]:
    """Mean fall of the log loss by temperature scaling, cross-validated, and its standard error.

    The rows of every fifth cluster get the temperature of the others; the error is by cluster.
    """
    logits, target, clusters = val.logits, val.targets, val.clusters
    fold = clusters.ids % min(GAIN_FOLDS, clusters.count)
    temperatures = np.ones(len(target))
    for k in np.unique(fold):
        rest = fold != k
        temperatures[~rest] = least_loss_temperature(logits[rest], target[rest])[0]
    true = np.arange(len(target)), target
    fall = (log_softmax(logits / temperatures[:, None], axis=1) - log_softmax(logits, axis=1))[true]
    gain = float(fall.mean())
    scale = math.sqrt(clusters.count / (clusters.count - 1)) / len(fall)
    return gain, clustered_error((fall - gain) * scale, clusters)[0]


def temperature_text(temperature: float) -> str:
    """Three decimals where they suffice, and never 0.000."""
    if temperature < 0.01:
        return f"{temperature:.3g}"
    return f"{temperature:.3f}" if temperature < 100 else f"{temperature:.0f}"


def temperature_warning(temperature: float) -> str:
    """A sentence on a temperature outside `USUAL_TEMPERATURES`, else ""."""
    lowest, highest = USUAL_TEMPERATURES
    if lowest <= temperature <= highest:
        return ""
    kind = "far too confident" if temperature > highest else "far too cautious"
    return (
        f"The temperature of {temperature_text(temperature)} is extreme (usual: {lowest:g} to "
        f"{highest:g}): the model's own probabilities are {kind} on validation, and calibrated "
        "ones may not hold on other images."
    )


def least_loss_temperature(logits: np.ndarray, target: np.ndarray) -> tuple[float, str]:
    """The temperature with the least log loss on these rows, and a note.

    1, with a note on why, where there is none: rows of one class only, every row right (the loss
    keeps falling as T nears 0), or scores unrelated to the labels (it keeps falling as T grows).
    """
    if len(np.unique(target)) < 2:
        return 1.0, "not fitted: all validation images are of one class"
    scores = logits - logits.max(axis=1, keepdims=True)
    true = scores[np.arange(len(target)), target]

    def slope(beta: float) -> float:
        """Derivative of the log loss by beta = 1/T, in which it is convex."""
        return float(((softmax(beta * scores, axis=1) * scores).sum(axis=1) - true).mean())

    if slope(0.0) >= 0:
        return 1.0, "not fitted: the scores do not rise with the labels of validation"
    if true.min() == 0:
        return 1.0, "not fitted: every validation image is right, so T would be 0"
    high = 1.0
    while slope(high) < 0:
        high *= 2
        # A row that is wrong by almost nothing; then T is almost 0.
        if high > 1e6:
            return 1.0, "not fitted: T would be less than one millionth"
    beta = float(scipy.optimize.brentq(slope, 0.0, high, xtol=1e-15, rtol=1e-14))
    return 1 / beta, ""


def calibrate(predictions: Predictions, temperature: float) -> Predictions:
    """Divide logits by `temperature` and recompute the probabilities.

    With a temperature of 1 nothing changes, not even the last digit.
    """
    if temperature == 1:
        return predictions
    return predictions.with_logits(predictions.logits / temperature)


def decide(val: Predictions, options: Evaluation, *, out_of_fold: bool = False) -> dict[str, Any]:
    """Choose temperature and thresholds on the rows of validation: the content of decisions.json.

    In this order: calibrate the logits, combine the views, choose a threshold for each level.
    `operating_point` is None for more than two classes, whose decision is the likeliest class.
    out_of_fold: the rows are of an ensemble of folds, so nothing is chosen (`OF_FOLDS`).
    """
    assert set(val.table["split"]) == {"val"}, "only validation decides"
    check_views(options.views, len(val.classes))
    temperature, note = 1.0, "not requested"
    if options.calibrate:
        temperature, note = (1.0, OF_FOLDS) if out_of_fold else fit_temperature(val)
    points = None
    if len(val.classes) == 2:
        rows = calibrate(val, temperature)
        points = {}
        for level in available_levels(val):
            units = to_level(rows, level, options.views)
            case = units.targets == 1
            points[level] = asdict(
                _undecided(case, OF_FOLDS)
                if out_of_fold
                else choose_threshold(units.scores[:, 1], case, options.operating_point)
            )
    return seal(
        {
            "temperature": temperature,
            "temperature_note": note,
            **decision_options(options),
            "operating_point": points,
            "classes": list(val.classes),
            "validation": {"n": len(val), "sha256": rows_digest(val)},
        }
    )


def decision_options(options: Evaluation) -> dict[str, Any]:
    """The options that decisions depend on."""
    rule = dict(options.operating_point)
    return {"calibrate": options.calibrate, "views": options.views, "rule": rule}


def rows_digest(val: Predictions) -> str:
    """SHA-256 of ids, labels, logits and probabilities; independent of the order of rows."""
    scores = [c for c in val.table.columns if str(c).startswith((PROB, LOGIT))]
    rows = val.table[[*(c for c in IDENTITY if c in val.table), *scores]].sort_values("path")
    text = rows.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with `sha256` of everything else in it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, allow_nan=False)
    return rest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def verify_decisions(content: Any, val: Predictions, options: Evaluation, where: str) -> None:
    """Raise `UserError` unless `content` is intact and was made from these rows and options.

    `where` names the file.
    """
    remedy = "remove it to let validation choose again"
    if not isinstance(content, dict) or "sha256" not in content:
        raise UserError(f"{where} holds no decisions with a hash; {remedy}.")
    if seal(content)["sha256"] != content["sha256"]:
        raise UserError(
            f"{where} was changed after it was written: its content does not match its hash "
            f"{content['sha256'][:12]}... Decisions of validation are frozen; restore the file, "
            f"or {remedy}."
        )
    if content["validation"]["sha256"] != rows_digest(val):
        raise UserError(
            f"{where} was made from other validation rows ({content['validation']['n']}) than "
            f"the {len(val)} in the predictions: restore those rows."
        )
    for key, value in decision_options(options).items():
        if content[key] != value:
            raise UserError(
                f"{where} was made with {key}={as_option(content[key])}, but the run's config.yaml "
                f"has {key}={as_option(value)}; restore the config, or {remedy}."
            )
