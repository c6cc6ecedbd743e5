"""Which test images to show: right and wrong, sure and unsure ones, by lot and not by looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fracnet.evaluation.predictions import classes_of, probabilities, targets
from fracnet.evaluation.temperature import calibrated
from fracnet.evaluation.unsure import Limits, decided, limits, unsure

KINDS = ("wrong and sure", "wrong and unsure", "right and unsure", "right and sure")


@dataclass(frozen=True)
class Case:
    """A test image to show.

    row: its row in predictions.csv. truth, predicted: indices of classes. probability: of the
    predicted class, calibrated.
    """

    kind: str
    row: int
    truth: int
    predicted: int
    probability: float


def choose(
    table: pd.DataFrame, decisions: Mapping[str, Any], each: int, *, error: float, seed: int
) -> tuple[list[Case], list[str]]:
    """At most `each` test images of every kind, and how they were chosen, in sentences.

    Predicted is what validation's operating point decides. Sure is what its limits call so
    (`fracnet.evaluation.unsure`), as in prediction. Drawn by lot within a kind, in turns from the
    classes, and of each patient at most one image a kind. With `each` 0 there is nothing to tell.

    Args:
        table: all of predictions.csv.
        decisions: the content of decisions.json.
        error: of the limits.
        seed: of the lot, which does not depend on the order of rows.
    """
    table = calibrated(table, decisions["temperature"])
    val = table[table["split"] == "val"]
    test = table[table["split"] == "test"]
    points = decisions["operating"]
    threshold = points["image"]["threshold"] if points else None
    prob, truth = probabilities(test), targets(test)
    choice = decided(prob, threshold)
    bounds = limits(probabilities(val), targets(val), error, classes_of(val))
    doubt = unsure(prob, choice, bounds)
    lot = _lot(test["path"], seed)
    members = {
        "wrong and sure": (choice != truth) & ~doubt,
        "wrong and unsure": (choice != truth) & doubt,
        "right and unsure": (choice == truth) & doubt,
        "right and sure": (choice == truth) & ~doubt,
    }
    rows = np.flatnonzero((table["split"] == "test").to_numpy())
    found, counts = [], []
    for kind in KINDS:
        member = members[kind]
        counts.append(f"{kind} {int(member.sum())}")
        for i in _in_turns(lot[member[lot]], truth, test["patient"], each):
            named = int(choice[i])
            found.append(Case(kind, int(rows[i]), int(truth[i]), named, float(prob[i, named])))
    if not each:
        return [], []
    how = (
        f"The pictures were drawn by lot, at most {each} of each kind, in turns from the classes. "
        f"All {len(test)} test images: {', '.join(counts)}. {_sure(bounds)}"
    )
    return found, [how]


def _sure(bounds: Limits) -> str:
    """What a sure decision is, and what that promises."""
    if bounds.note:
        return (
            "A decision is sure where limits chosen on validation leave no other class. "
            f"{bounds.note}"
        )
    return (
        f"A decision is sure where limits chosen on validation, by which at most "
        f"{100 * bounds.error:g} % of a class would surely be taken for another, leave no other "
        "class."
    )


def _lot(paths: pd.Series, seed: int) -> np.ndarray:
    """Places of the rows in an order that is drawn, int64 [n]."""
    by_name = np.argsort(paths.to_numpy(dtype=str), kind="stable")
    return np.asarray(by_name[np.random.default_rng(seed).permutation(len(paths))])


def _in_turns(lot: np.ndarray, truth: np.ndarray, patients: pd.Series, each: int) -> list[int]:
    """The first `each` of the lot, from the classes in turns, no known patient twice."""
    taken: list[int] = []
    seen: set[Any] = set()
    names = patients.to_numpy(dtype=object)
    queues = [[int(i) for i in lot if truth[i] == c] for c in np.unique(truth[lot])]
    while len(taken) < each and any(queues):
        for queue in queues:
            while queue and names[queue[0]] in seen:
                queue.pop(0)
            if not queue or len(taken) == each:
                continue
            taken.append(queue.pop(0))
            if pd.notna(names[taken[-1]]):
                seen.add(names[taken[-1]])
    return taken


def as_entry(case: Case, table: pd.DataFrame) -> dict[str, Any]:
    """The case as explain.json holds it, but for the names of its pictures."""
    classes, row = classes_of(table), table.iloc[case.row]
    entry = {
        "kind": case.kind,
        "path": str(row["path"]),
        "row": case.row,
        "truth": classes[case.truth],
        "predicted": classes[case.predicted],
        "probability": case.probability,
    }
    return entry | ({"patient": str(row["patient"])} if pd.notna(row["patient"]) else {})
