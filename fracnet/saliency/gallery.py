"""Pictures of chosen test images with their heatmaps, and notes on how to read them.

Cases are right and wrong, confident and uncertain ones, chosen at random and not by looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data.annotations import annotation_outlines
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.conformal import Limits, fit_limits, is_uncertain, limit_evidence
from fracnet.evaluation.decisions import calibrate, cut_of, decide_rows
from fracnet.evaluation.predictions import Predictions, classes_of
from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import Layer
from fracnet.saliency.cam import DEFAULTS, Settings, heatmaps
from fracnet.saliency.drawing import draw_overlay, enlarge, write_png
from fracnet.saliency.methods import CLASS_AGNOSTIC, LOCALIZATION, METHOD_NAMES
from fracnet.utils.text import counted, join_names

KINDS = ("wrong and confident", "wrong and uncertain", "right and uncertain", "right and confident")
FOLDER = "overlays"
READING = (
    "A heatmap shows which regions raised the score of the predicted class, according to one "
    "method of attribution."
)
AGNOSTIC = {
    "eigencam": "Eigen-CAM ignores the class: it shows what dominates the output of the layer, not "
    "the evidence for a class.",
    LOCALIZATION: "The maps come from a head of their own, trained towards the annotations: they "
    "show where it expects one, not what the class was decided by.",
}
NO_PROOF = "It does not prove that the model has seen a fracture, and it is not a diagnosis."
BODY_PARTS = (
    "The classes are body parts: the maps explain what separates one part from another, not the "
    "fracture."
)


@dataclass(frozen=True)
class Case:
    """A test image to show.

    row: its row in predictions.csv. truth, predicted: indices of classes. probability: of the
    predicted class, calibrated. evidence: why it is confident or uncertain.
    """

    kind: str
    row: int
    truth: int
    predicted: int
    probability: float
    evidence: str = ""


def choose_cases(
    predictions: Predictions, decisions: Mapping[str, Any], each: int, *, error: float, seed: int
) -> tuple[list[Case], list[str]]:
    """At most `each` test images of every kind, and sentences on how they were chosen.

    The operating point from validation gives the predicted class, its limits
    (`fracnet.evaluation.conformal`) whether it is confident, as in prediction. Cases of a kind are
    drawn at random, the classes taking turns, with at most one image of each patient.

    Args:
        predictions: all of predictions.csv.
        decisions: the content of decisions.json.
        each: 0 chooses no cases and gives no sentences.
        error: of the limits.
        seed: of the draw, which does not depend on the order of rows.
    """
    if not each:
        return [], []
    predictions = calibrate(predictions, decisions["temperature"])
    val, test = predictions.split("val"), predictions.split("test")
    prob, truth = test.probabilities, test.targets
    predicted = decide_rows(test, cut_of(decisions, "image"))
    limits = fit_limits(val.probabilities, val.targets, error, val.classes)
    uncertain = is_uncertain(prob, predicted, limits)
    order = _shuffled(test.table["path"], seed)
    right = predicted == truth
    members = dict(
        zip(
            KINDS,
            (~right & ~uncertain, ~right & uncertain, right & uncertain, right & ~uncertain),
            strict=True,
        )
    )
    rows = np.flatnonzero((predictions.table["split"] == "test").to_numpy())
    cases = []
    for kind, member in members.items():
        for i in _in_turns(order[member[order]], truth, test.table["patient"], each):
            name = int(predicted[i])
            evidence = limit_evidence(prob[i], name, limits)
            cases.append(
                Case(kind, int(rows[i]), int(truth[i]), name, float(prob[i, name]), evidence)
            )
    counts = ", ".join(f"{kind} {int(member.sum())}" for kind, member in members.items())
    return cases, [
        f"The pictures were chosen at random, at most {each} of each kind, with the classes taking "
        f"turns. All {len(test)} test images: {counts}. {_confident(limits)}"
    ]


def _confident(limits: Limits) -> str:
    """What makes a decision confident, and what that guarantees."""
    if limits.note:
        return (
            "A decision is confident if limits chosen on validation rule out every other class. "
            f"{limits.note}"
        )
    return (
        "A decision is confident if limits chosen on validation rule out every other class; they "
        f"allow confident errors in at most {100 * limits.error:g} % of the images of a class."
    )


def _shuffled(paths: pd.Series, seed: int) -> np.ndarray:
    """Places of the rows in random order, int64 [n]."""
    by_name = np.argsort(paths.to_numpy(dtype=str), kind="stable")
    return np.asarray(by_name[np.random.default_rng(seed).permutation(len(paths))])


def _in_turns(order: np.ndarray, truth: np.ndarray, patients: pd.Series, each: int) -> list[int]:
    """The first `each` in this order, the classes taking turns, no known patient twice."""
    chosen: list[int] = []
    seen: set[Any] = set()
    names = patients.to_numpy(dtype=object)
    queues = [[int(i) for i in order if truth[i] == c] for c in np.unique(truth[order])]
    while len(chosen) < each and any(queues):
        for queue in queues:
            while queue and names[queue[0]] in seen:
                queue.pop(0)
            if not queue or len(chosen) == each:
                continue
            chosen.append(queue.pop(0))
            if pd.notna(names[chosen[-1]]):
                seen.add(names[chosen[-1]])
    return chosen


def case_entry(case: Case, table: pd.DataFrame) -> dict[str, Any]:
    """The case as explain.json holds it, without the names of its pictures."""
    classes, row = classes_of(table), table.iloc[case.row]
    entry = {
        "kind": case.kind,
        "path": str(row["path"]),
        "row": case.row,
        "truth": classes[case.truth],
        "predicted": classes[case.predicted],
        "probability": case.probability,
        "evidence": case.evidence,
    }
    return entry | ({"patient": str(row["patient"])} if pd.notna(row["patient"]) else {})


def draw_cases(
    model: Classifier,
    data: RadiographData,
    table: pd.DataFrame,
    cases: Sequence[Case],
    folder: Path,
    settings: Settings = DEFAULTS,
) -> tuple[list[dict[str, Any]], int]:
    """Write two pictures of each case; entries for explain.json, and the number of empty maps.

    The map is that of the predicted class, unless the method is class-agnostic; outlines are the
    annotations of the image's own class.

    Args:
        model: as for `heatmaps`.
        data: set up; holds all images of `table`, the run's predictions.
        table: of predictions.csv.
        cases: may be empty.
        folder: exists; the pictures go to `FOLDER` in it.
    """
    (folder / FOLDER).mkdir()
    paths = table["path"].iloc[[case.row for case in cases]]
    rows = pd.Index(data.manifest.table["path"]).get_indexer(paths)
    assert (rows >= 0).all(), "a predicted image that is not in the manifest"
    images = data.cache.images[rows]
    classes = np.array([case.predicted for case in cases], dtype=np.int64)
    maps = [heat for batch in heatmaps(model, images, classes, settings) for heat in batch]
    entries = []
    for i, (case, row, heat) in enumerate(zip(cases, rows, maps, strict=True), start=1):
        outlines = annotation_outlines(data.manifest.table.iloc[row], data.preprocess)
        image, heat, outlines = enlarge(images[i - 1], heat, outlines)
        files = {"overlay": f"{FOLDER}/{i:04d}.png", "plain": f"{FOLDER}/{i:04d}_plain.png"}
        write_png(draw_overlay(image, heat, outlines), folder / files["overlay"])
        write_png(image, folder / files["plain"])
        empty = {} if heat.any() else {"empty": True}
        entries.append(case_entry(case, table) | files | empty)
    return entries, sum(not heat.any() for heat in maps)


def heatmap_notes(
    layer: Layer, method: str, data: RadiographData, pictures: int, empty: int
) -> list[str]:
    """Sentences on how to read the pictures. empty: how many of the maps are 0 everywhere."""
    cells = " x ".join(str(side) for side in layer.grid)
    notes = [
        f"Heatmaps by {METHOD_NAMES[method]} at the layer {layer.name}, whose output has {cells} "
        "cells per image: no map is finer than that.",
        f"{AGNOSTIC.get(method, READING)} {NO_PROOF}",
    ]
    if method != LOCALIZATION and classes_are_regions(data):
        notes.append(BODY_PARTS)
    elif method != LOCALIZATION and data.task == "multiclass":
        notes.append(
            f"The classes are {join_names(data.manifest.classes)}: a map explains what separates "
            "one of them from the others, not what is annotated as such."
        )
    if empty:
        reason = (
            "the layer responded to nothing"
            if method in CLASS_AGNOSTIC
            else "nothing raised the score"
        )
        notes.append(f"In {empty} of {counted(pictures, 'picture')}, {reason}: no color.")
    return notes


def classes_are_regions(data: RadiographData) -> bool:
    """Whether the classes are body parts: each label is its image's region."""
    table = data.manifest.table
    known = table["region"].notna()
    return bool(known.any()) and bool((table["label"] == table["region"])[known].all())
