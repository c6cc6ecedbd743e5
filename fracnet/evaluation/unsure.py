"""When a model had better say that it does not know: limits from the rows of validation.

Split conformal prediction, class by class (V. Vovk 2012, Conditional validity of inductive
conformal predictors, ACML; M. Sadinle et al. 2019, JASA 114:223). A class stays possible for an
image unless its probability lies below nearly all that validation's images of this class have been
given. Where exactly the decided class stays possible the decision is sure, otherwise it is not.

What that promises: of new images of a class, drawn as those of validation were, at most the share
`error` is surely taken for another class, on average over validation sets. It promises nothing for
images of another kind, nor for the share of errors among the sure ones, which depends on how
common the classes are; and rows that have also chosen checkpoint, temperature and threshold, or
that come in groups of one patient, make it approximate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.intervals import proportion
from fracnet.evaluation.levels import offered, to_level
from fracnet.evaluation.operating import decide
from fracnet.evaluation.predictions import classes_of, clusters_of, probabilities, targets
from fracnet.evaluation.temperature import calibrated

NEVER = -1.0  # a limit that no probability lies below


@dataclass(frozen=True)
class Limits:
    """A class with a probability below its limit is ruled out; one limit a class.

    note: why limits are not those that were asked for, or "".
    """

    error: float
    values: tuple[float, ...]
    counts: tuple[int, ...]
    note: str = ""


def limits(prob: np.ndarray, target: np.ndarray, error: float) -> Limits:
    """Limits from validation's probabilities float64 [N, C] and labels int64 [N].

    The limit of a class is the k-th smallest probability that its own images have been given, with
    k = floor(error (n + 1)) of its n images. Where a class has too few for k = 1, all classes
    share the limit of all rows together, and the promise holds for the classes' mixture alone.
    """
    counts = np.bincount(target, minlength=prob.shape[1])
    own = prob[np.arange(len(target)), target]
    found = [_limit(own[target == c], error) for c in range(prob.shape[1])]
    note = ""
    if any(value is None for value in found):
        least = int(np.ceil(1 / error - 1 - 1e-9))
        together = _limit(own, error)
        found = [together] * prob.shape[1]
        note = (
            f"a class has fewer than {least} validation images: one limit for all classes, and its "
            "promise is for all images together, not for each class"
        )
        if together is None:
            note = f"validation has fewer than {least} images: nothing can be called sure"
    values = tuple(NEVER if value is None else value for value in found)
    return Limits(error, values, tuple(int(n) for n in counts), note)


def _limit(own: np.ndarray, error: float) -> float | None:
    k = int(np.floor(error * (len(own) + 1) + 1e-9))
    return float(np.sort(own)[k - 1]) if k >= 1 else None


def unsure(prob: np.ndarray, decided: np.ndarray, found: Limits) -> np.ndarray:
    """bool [N]: whether other classes than the decided one, int64 [N], are possible, or it is not.

    `prob`: float64 [N, C], calibrated.
    """
    possible = prob >= np.asarray(found.values)
    alone = possible.sum(axis=1) == 1
    return np.asarray(~(alone & possible[np.arange(len(decided)), decided]))


def reasons(prob: np.ndarray, doubt: np.ndarray, found: Limits) -> list[str]:
    """Why a decision is unsure, by row; "" where it is sure."""
    possible = (prob >= np.asarray(found.values)).sum(axis=1)
    words = {0: "no class fits", 1: "another class fits better"}
    many = "more than one class fits"
    if all(value == NEVER for value in found.values):
        many = "validation has too few images to be sure of any"
    return [
        words.get(int(n), many) if unsure_here else ""
        for n, unsure_here in zip(possible, doubt, strict=True)
    ]


def decided(prob: np.ndarray, threshold: float | None) -> np.ndarray:
    """int64 [N], the class decided on: by the threshold of two classes, else the likeliest."""
    if threshold is None:
        return np.asarray(prob.argmax(axis=1), dtype=np.int64)
    return decide(prob[:, 1], threshold)


def by_level(
    table: pd.DataFrame, decisions: Mapping[str, Any], error: float
) -> dict[str, dict[str, Any]]:
    """Limits for images and, where they are known, studies; and what they did on the test rows.

    Args:
        table: a run's predictions, rows of val and test.
        decisions: the content of its decisions.json, verified.

    Returns:
        By level: `threshold` (None for more than two classes), `limits`, and `test`: rows, share of
        sure ones, of errors among the sure and the unsure, and of images of each class that are
        surely taken for another, each with value, low, high and n; None without test.
    """
    table = calibrated(table, decisions["temperature"])
    val, test = (table[table["split"] == split] for split in ("val", "test"))
    two = decisions["operating"] is not None
    levels = [level for level in offered(val)[1] if level != "patient"]
    result = {}
    for level in levels:
        if two and level not in decisions["operating"]:
            continue
        threshold = decisions["operating"][level]["threshold"] if two else None
        units = to_level(val, level, decisions["views"])
        found = limits(probabilities(units), targets(units), error)
        told = None
        if len(test) and level in offered(test)[1]:
            told = _seen(to_level(test, level, decisions["views"]), threshold, found)
        result[level] = {"threshold": threshold, "limits": found, "test": told}
    return result


def _seen(units: pd.DataFrame, threshold: float | None, found: Limits) -> dict[str, Any]:
    """What the limits do on rows that have not made them."""
    prob, truth, clusters = probabilities(units), targets(units), clusters_of(units)
    choice = decided(prob, threshold)
    sure = ~unsure(prob, choice, found)
    wrong, everyone = choice != truth, np.ones(len(units), dtype=bool)

    def share(success: np.ndarray, member: np.ndarray) -> dict[str, Any]:
        held = int(member.sum())
        interval = proportion(success, member, clusters, rows="rows")
        value = float((success & member).sum() / held) if held else None
        return {"value": value, "low": interval.low, "high": interval.high, "n": held}

    return {
        "n": len(units),
        "sure": share(sure, everyone),
        "wrong_of_sure": share(wrong, sure),
        "wrong_of_unsure": share(wrong, ~sure),
        "surely_wrong_by_class": {
            name: share(wrong & sure, truth == c) for c, name in enumerate(classes_of(units))
        },
    }
