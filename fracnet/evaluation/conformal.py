"""When a prediction is uncertain: per-class probability limits from the rows of validation.

Split conformal prediction, class by class (V. Vovk 2012, Conditional validity of inductive
conformal predictors, ACML; M. Sadinle et al. 2019, JASA 114:223). A class remains possible for an
image unless its probability is below nearly all that validation's images of this class got. A
decision is confident if exactly the decided class remains possible, and uncertain otherwise.

Guarantee: of new images of a class, drawn like those of validation, at most the share `error` is
confidently assigned to another class, on average over validation sets. A class with too few images
for that is ruled out only below the lowest probability of its own n, which guarantees 1 / (n + 1)
instead. If that is more than `MAX_EXCESS` times `error`, the class is never ruled out: it cannot
be confidently taken for another one, but then no decision for another class is confident either.

There is no guarantee for images of another kind, nor for the share of errors among confident
decisions, which depends on how common the classes are. It is approximate where the rows have also
chosen checkpoint, temperature and threshold, or come in groups of one patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fracnet.evaluation.aggregation import available_levels, to_level
from fracnet.evaluation.decisions import calibrate, cut_of, decide_rows
from fracnet.evaluation.predictions import Predictions
from fracnet.metrics.intervals import proportion
from fracnet.utils.text import counted, join_names, list_some, shortened

NEVER = -1.0
"""The limit of a class that is never ruled out: no probability lies below it."""
MAX_EXCESS = 2.0
DEFAULT_ERROR = 0.05
"""The share of new images of a class that may be confidently assigned to another class."""


@dataclass(frozen=True)
class Limits:
    """A class with a probability below its limit is ruled out; one limit per class.

    error: the requested share. promised: by class, the maximum rate of confident errors; 0 for a
    class that is never ruled out. counts: of validation's images, or studies. note: sentences on
    the classes for which `error` cannot be guaranteed, or "".
    """

    classes: tuple[str, ...]
    error: float
    values: tuple[float, ...]
    promised: tuple[float, ...]
    counts: tuple[int, ...]
    note: str = ""


def fit_limits(
    prob: np.ndarray, target: np.ndarray, error: float, classes: Sequence[str], unit: str = "image"
) -> Limits:
    """Limits from validation's probabilities float64[N, C] and labels int64[N].

    The limit of a class is the k-th smallest probability that its own images got, with
    k = floor(promised (n + 1)) for its n images. unit: what a row is, in the note.
    """
    counts = np.bincount(target, minlength=prob.shape[1]).tolist()
    true = prob[np.arange(len(target)), target]
    values, promised = [], []
    for c, n in enumerate(counts):
        share = max(error, 1 / (n + 1))
        never = not n or share > MAX_EXCESS * error + 1e-9
        k = int(np.floor(share * (n + 1) + 1e-9))
        values.append(NEVER if never else float(np.sort(true[target == c])[k - 1]))
        promised.append(0.0 if never else share)
    limits = Limits(tuple(classes), error, tuple(values), tuple(promised), tuple(counts))
    return replace(limits, note=_note(limits, unit))


def _note(limits: Limits, unit: str) -> str:
    """Sentences on classes with too few images."""
    error, classes = limits.error, range(len(limits.classes))
    units = counted(2, unit)[2:]
    few = [c for c in classes if limits.promised[c] > error]
    none = [c for c in classes if limits.values[c] == NEVER]
    notes = []
    if few:
        shares = join_names([f"{100 * limits.promised[c]:.1f} %" for c in few])
        have = join_names([f"{limits.classes[c]} has {limits.counts[c]}" for c in few])
        its = "its limit is" if len(few) == 1 else "their limits are"
        notes.append(
            f"A {100 * error:g} % limit needs {_fewest(error)} validation {units} per class; "
            f"{have}, so {its} {shares}."
        )
    if none:
        them, effect = "it", f"only decisions for {limits.classes[none[0]]} can be confident"
        if len(none) > 1:
            article = "an" if unit[0] in "aeiou" else "a"
            them, effect = "them", f"no decision on {article} {unit} can be confident"
        listed = join_names([f"{limits.classes[c]} ({limits.counts[c]})" for c in none])
        note = (
            f"Validation has too few {units} of {listed} to rule {them} out, so {effect}; each "
            f"class needs {_fewest(MAX_EXCESS * error)}"
        )
        if all(limits.counts[c] for c in none):
            enough = max(1 / (MAX_EXCESS * (limits.counts[c] + 1)) for c in none)
            error = np.ceil(1000 * enough - 1e-6) / 1000
            note += f", or run fracnet.predict with confident_errors={error:g}"
        notes.append(f"{note}.")
    return " ".join(notes)


def _fewest(share: float) -> int:
    """The smallest n for which 1 / (n + 1) does not exceed the share."""
    return max(1, int(np.ceil(1 / share - 1 - 1e-9)))


def is_uncertain(prob: np.ndarray, decided: np.ndarray, limits: Limits) -> np.ndarray:
    """bool[N]: whether another class than the decided one, int64[N], is possible, or it is not.

    `prob`: float64[N, C], calibrated.
    """
    possible = prob >= np.asarray(limits.values)
    alone = (possible.sum(axis=1) == 1) & possible[np.arange(len(decided)), decided]
    return np.asarray(~alone)


def uncertainty_reasons(
    prob: np.ndarray, decided: np.ndarray, uncertain: np.ndarray, limits: Limits
) -> list[str]:
    """Why a decision, int64[N], is uncertain, by row; "" where it is confident.

    For tables, so each names all classes that it concerns; `short_reason` is for people.
    """
    rows = zip(prob, decided.tolist(), uncertain, strict=True)
    return [_reason(row, choice, limits) if doubt else "" for row, choice, doubt in rows]


def _reason(prob: np.ndarray, choice: int, limits: Limits) -> str:
    never = np.asarray(limits.values) == NEVER
    if never.all():
        return "validation is too small for any confident decision"
    fits = prob >= np.asarray(limits.values)  # also where the class is never ruled out
    if (np.delete(fits & ~never, choice)).any():
        return "more than one class fits" if fits[choice] else "another class fits better"
    others = [limits.classes[c] for c in np.flatnonzero(never) if c != choice]
    them = "it" if len(others) == 1 else "them"
    few = (
        f"validation has too few of {join_names(others, len(others))} to rule {them} out"
        if others
        else ""
    )
    if fits[choice]:
        assert few, "a decision that alone fits is confident"
        return few
    return "; ".join(filter(None, ("no class fits", few)))


def short_reason(reason: str) -> str:
    """A reason of a table for a picture or page: each part of `a; b` on about two lines."""
    return "; ".join(shortened(part, 120) for part in reason.split("; "))


def limit_evidence(prob: np.ndarray, choice: int, limits: Limits) -> str:
    """Why the decision for class `choice` is confident or uncertain, by the limits' own numbers.

    prob: float64[C], calibrated. The text is the end of a sentence, without a period.
    """
    values = np.asarray(limits.values)

    def named(classes: list[int], relation: str) -> str:
        texts = (
            f"{limits.classes[c]} {prob[c]:.3f} {relation} its limit {values[c]:.3f}"
            for c in sorted(classes, key=lambda c: -prob[c])
        )
        return list_some(texts, len(classes), 2)

    others = [c for c in range(len(values)) if c != choice]
    never = [c for c in others if values[c] == NEVER]
    possible = [c for c in others if values[c] != NEVER and prob[c] >= values[c]]
    reasons = []
    if prob[choice] < values[choice]:
        reasons.append(named([choice], "is below"))
    if possible:
        reasons.append(named(possible, "is not below"))
    if never:
        few = join_names([limits.classes[c] for c in never])
        reasons.append(f"validation has too few of {few} for a limit")
    if reasons:
        return "; ".join(reasons)
    closest = min(others, key=lambda c: values[c] - prob[c])
    every = "every other class is below its limit, e.g. " if len(others) > 1 else ""
    return every + named([closest], "is below")


def limits_by_level(
    predictions: Predictions, decisions: Mapping[str, Any], error: float
) -> dict[str, dict[str, Any]]:
    """Limits for images and, where known, studies; and their result on the test rows.

    Args:
        predictions: of a run, rows of val and test.
        decisions: the verified content of its decisions.json.
        error: the requested share, see `Limits`.

    Returns by level: `threshold` and, in log-odds, `cut` (None for more than two classes);
    `limits`; and `test` (`_outcome`), None without test rows.
    """
    predictions = calibrate(predictions, decisions["temperature"])
    val, test = predictions.split("val"), predictions.split("test")
    points = decisions["operating_point"]
    result = {}
    for level in available_levels(val):
        if level == "patient" or (points is not None and level not in points):
            continue
        threshold = None if points is None else points[level]["threshold"]
        cut = cut_of(decisions, level)
        units = to_level(val, level, decisions["views"])
        limits = fit_limits(units.probabilities, units.targets, error, units.classes, level)
        outcome = None
        if len(test) and level in available_levels(test):
            outcome = _outcome(to_level(test, level, decisions["views"]), cut, limits)
        result[level] = {"threshold": threshold, "cut": cut, "limits": limits, "test": outcome}
    return result


def _outcome(units: Predictions, cut: float | None, limits: Limits) -> dict[str, Any]:
    """The effect of the limits on rows that did not set them.

    The share of confident rows, of errors among the confident and the uncertain, and of images of
    each class that are confidently assigned to another, each with value, low, high and n.
    """
    choice = decide_rows(units, cut)
    confident = ~is_uncertain(units.probabilities, choice, limits)
    wrong, everyone = choice != units.targets, np.ones(len(units), dtype=bool)

    def share(success: np.ndarray, member: np.ndarray) -> dict[str, Any]:
        n = int(member.sum())
        interval = proportion(success, member, units.clusters, rows="rows")
        value = float((success & member).sum() / n) if n else None
        return {"value": value, "low": interval.low, "high": interval.high, "n": n}

    return {
        "n": len(units),
        "confident": share(confident, everyone),
        "wrong_of_confident": share(wrong, confident),
        "wrong_of_uncertain": share(wrong, ~confident),
        "confidently_wrong_by_class": {
            name: share(wrong & confident, units.targets == c)
            for c, name in enumerate(units.classes)
        },
    }
