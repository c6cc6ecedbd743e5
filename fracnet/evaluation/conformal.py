"""When a model had better say that it does not know: limits from the rows of validation.

Split conformal prediction, class by class (V. Vovk 2012, Conditional validity of inductive
conformal predictors, ACML; M. Sadinle et al. 2019, JASA 114:223). A class stays possible for an
image unless its probability lies below nearly all that validation's images of this class have been
given. Where exactly the decided class stays possible the decision is confident, otherwise it is not.

What that promises: of new images of a class, drawn as those of validation were, at most the share
`error` is surely taken for another class, on average over validation sets. A class with too few
images for that is ruled out only below the lowest probability of its own n, which promises
1 / (n + 1) for it; one for which that is more than `MOST` times `error` is never ruled out. It
cannot surely be taken for another then, but no decision for another class is confident, either.

Nothing is promised for images of another kind, nor for the share of errors among the confident ones,
which depends on how common the classes are; and rows that have also chosen checkpoint, temperature
and threshold, or that come in groups of one patient, make it approximate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import offered, to_level
from fracnet.evaluation.decisions import calibrated, decide_positive
from fracnet.evaluation.predictions import classes_of, clusters_of, probabilities, targets
from fracnet.metrics.intervals import proportion
from fracnet.utils.text import counted

NEVER = -1.0  # a limit that no probability lies below
MOST = 2.0
DEFAULT_ERROR = 0.05
"""Of new images of a class, the share that may be surely taken for another."""


@dataclass(frozen=True)
class Limits:
    """A class with a probability below its limit is ruled out; one limit a class.

    error: what was asked for. promised: by class, the share that is surely taken for another at
    most; 0 for a class that is never ruled out. counts: of validation's images, or studies.
    note: sentences on the classes for which `error` is not promised, or "".
    """

    classes: tuple[str, ...]
    error: float
    values: tuple[float, ...]
    promised: tuple[float, ...]
    counts: tuple[int, ...]
    note: str = ""


def limits(
    prob: np.ndarray, target: np.ndarray, error: float, classes: Sequence[str], unit: str = "image"
) -> Limits:
    """Limits from validation's probabilities float64 [N, C] and labels int64 [N].

    The limit of a class is the k-th smallest probability that its own images have been given, with
    k = floor(promised (n + 1)) of its n images. unit: what a row is, in the note.
    """
    counts = np.bincount(target, minlength=prob.shape[1]).tolist()
    own = prob[np.arange(len(target)), target]
    values, promised = [], []
    for c, n in enumerate(counts):
        share = max(error, 1 / (n + 1))
        never = not n or share > MOST * error + 1e-9
        k = int(np.floor(share * (n + 1) + 1e-9))
        values.append(NEVER if never else float(np.sort(own[target == c])[k - 1]))
        promised.append(0.0 if never else share)
    found = Limits(tuple(classes), error, tuple(values), tuple(promised), tuple(counts))
    return replace(found, note=_note(found, unit))


def _note(found: Limits, unit: str) -> str:
    """What to know of classes with too few images."""
    error, every = found.error, range(len(found.classes))
    few = [c for c in every if found.promised[c] > error]
    none = [c for c in every if found.values[c] == NEVER]
    said = []
    if few:
        shares = _and([f"{100 * found.promised[c]:.1f} %" for c in few])
        have = _and([f"{found.classes[c]} has {found.counts[c]}" for c in few])
        said.append(
            f"{100 * error:g} % takes {_least(error)} validation {_plural(unit)} of a class; "
            f"{have}: there the limits promise {shares}."
        )
    if none:
        them = "it" if len(none) == 1 else "them"
        listed = _and([f"{found.classes[c]} ({found.counts[c]})" for c in none])
        text = f"Validation has too few {_plural(unit)} of {listed} to rule {them} out"
        if len(none) == 1:
            text += f", so no {unit} is surely anything but {found.classes[none[0]]}"
        else:
            text += f", so no decision on {_one(unit)} can be confident"
        text += f"; it takes {_least(MOST * error)} of each class"
        if all(found.counts[c] for c in none):
            enough = max(1 / (MOST * (found.counts[c] + 1)) for c in none)
            text += f", or fracnet.predict with uncertain={np.ceil(1000 * enough - 1e-6) / 1000:g}"
        said.append(f"{text}.")
    return " ".join(said)


def _least(share: float) -> int:
    """The fewest images of which one in (n + 1) is no more than the share."""
    return max(1, int(np.ceil(1 / share - 1 - 1e-9)))


def _plural(unit: str) -> str:
    return counted(2, unit)[2:]


def _one(unit: str) -> str:
    return f"an {unit}" if unit[0] in "aeiou" else f"a {unit}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def uncertain(prob: np.ndarray, decided: np.ndarray, found: Limits) -> np.ndarray:
    """bool [N]: whether other classes than the decided one, int64 [N], are possible, or it is not.

    `prob`: float64 [N, C], calibrated.
    """
    possible = prob >= np.asarray(found.values)
    alone = possible.sum(axis=1) == 1
    return np.asarray(~(alone & possible[np.arange(len(decided)), decided]))


def reasons(prob: np.ndarray, decided: np.ndarray, doubt: np.ndarray, found: Limits) -> list[str]:
    """Why a decision, int64 [N], is uncertain, by row; "" where it is confident."""
    never = np.asarray(found.values) == NEVER
    possible = (prob >= np.asarray(found.values)) & ~never
    return [
        _reason(set(np.flatnonzero(row).tolist()), int(choice), never, found.classes)
        if here
        else ""
        for row, choice, here in zip(possible, decided, doubt, strict=True)
    ]


def _reason(fitting: set[int], choice: int, never: np.ndarray, classes: tuple[str, ...]) -> str:
    """fitting: classes that have a limit and are not ruled out by it."""
    if never.all():
        return "validation is too small to be confident of any"
    untold = [classes[c] for c in np.flatnonzero(never) if c != choice]
    if fitting - {choice}:
        alone = choice not in fitting and not never[choice]
        return "another class fits better" if alone else "more than one class fits"
    them = "it" if len(untold) == 1 else "them"
    few = f"validation has too few of {_and(untold)} to rule {them} out" if untold else ""
    if choice in fitting or never[choice]:
        assert few, "a decision that fits alone is confident"
        return few
    return "; ".join(filter(None, ("no class fits", few)))


def decided(prob: np.ndarray, threshold: float | None) -> np.ndarray:
    """int64 [N], the class decided on: by the threshold of two classes, else the likeliest."""
    if threshold is None:
        return np.asarray(prob.argmax(axis=1), dtype=np.int64)
    return decide_positive(prob[:, 1], threshold)


def by_level(
    table: pd.DataFrame, decisions: Mapping[str, Any], error: float
) -> dict[str, dict[str, Any]]:
    """Limits for images and, where they are known, studies; and what they did on the test rows.

    Args:
        table: a run's predictions, rows of val and test.
        decisions: the content of its decisions.json, verified.

    Returns:
        By level: `threshold` (None for more than two classes), `limits`, and `test`: rows, share of
        confident ones, of errors among the confident and the uncertain, and of images of each class that are
        surely taken for another, each with value, low, high and n; None without test.
    """
    table = calibrated(table, decisions["temperature"])
    val, test = (table[table["split"] == split] for split in ("val", "test"))
    two = decisions["operating_point"] is not None
    levels = [level for level in offered(val)[1] if level != "patient"]
    result = {}
    for level in levels:
        if two and level not in decisions["operating_point"]:
            continue
        threshold = decisions["operating_point"][level]["threshold"] if two else None
        units = to_level(val, level, decisions["views"])
        found = limits(probabilities(units), targets(units), error, classes_of(units), level)
        told = None
        if len(test) and level in offered(test)[1]:
            told = _seen(to_level(test, level, decisions["views"]), threshold, found)
        result[level] = {"threshold": threshold, "limits": found, "test": told}
    return result


def _seen(units: pd.DataFrame, threshold: float | None, found: Limits) -> dict[str, Any]:
    """What the limits do on rows that have not made them."""
    prob, truth, clusters = probabilities(units), targets(units), clusters_of(units)
    choice = decided(prob, threshold)
    confident = ~uncertain(prob, choice, found)
    wrong, everyone = choice != truth, np.ones(len(units), dtype=bool)

    def share(success: np.ndarray, member: np.ndarray) -> dict[str, Any]:
        held = int(member.sum())
        interval = proportion(success, member, clusters, rows="rows")
        value = float((success & member).sum() / held) if held else None
        return {"value": value, "low": interval.low, "high": interval.high, "n": held}

    return {
        "n": len(units),
        "confident": share(confident, everyone),
        "wrong_of_confident": share(wrong, confident),
        "wrong_of_uncertain": share(wrong, ~confident),
        "surely_wrong_by_class": {
            name: share(wrong & confident, truth == c) for c, name in enumerate(classes_of(units))
        },
    }
