"""Images whose given label is least supported by what the other images show.

A logistic regression on a network's features predicts each image from folds without its patient and
its copies. Confident learning (C. Northcutt, L. Jiang, I. Chuang 2021, J Artif Intell Res 70:1373)
compares the probabilities with the mean that each class gives its own images: an image that another
class claims by that measure, and its own does not claim more, is a candidate. A class that is hard
to recognize is thereby not suspected as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from fracnet.data.manifest import Manifest
from fracnet.data_audit.findings import Finding, image_detail, image_name, percent
from fracnet.data_audit.shortcuts import FOLDS, assign_folds
from fracnet.models.logistic import fit_logistic
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

PENALTIES = (1e-4, 1e-3, 1e-2)  # inverse; the one with the lowest out-of-fold log loss is used


@dataclass(frozen=True)
class Doubt:
    """An image whose label is in doubt: its row, the better supported class, both probabilities."""

    row: int
    suggested: str
    given_probability: float
    suggested_probability: float


def held_out_probabilities(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    groups: Sequence[str],
    n_classes: int,
    progress: Progress[Any] = no_progress,
) -> npt.NDArray[np.float64] | str:
    """Probabilities float64 [N, C] of each row from a fit without its group; or why there are none.

    features: float32 [N, F]. targets: int64 [N] in 0..n_classes - 1.
    """
    _, ids = np.unique(np.array(groups, dtype=str), return_inverse=True)
    n_groups = [len(np.unique(ids[targets == c])) for c in range(n_classes)]
    folds = min(FOLDS, *n_groups)
    if folds < 2:
        return "that needs at least two groups of images of each class"
    fold = assign_folds(targets, ids, folds)
    tried = []
    for strength in progress(PENALTIES, len(PENALTIES), "label errors"):
        probs = np.zeros((len(targets), n_classes))
        for number in range(folds):
            test = fold == number
            if len(np.unique(targets[~test])) < n_classes:
                return "a class has too few groups of images"
            fit = fit_logistic(
                features[~test], targets[~test], features[test], targets[test],
                [strength], None, no_progress, key="",
            )  # fmt: skip
            probs[test] = softmax(features[test] @ fit.weights.T + fit.bias, axis=1)
        loss = -np.log(np.maximum(probs[np.arange(len(targets)), targets], 1e-300)).mean()
        tried.append((float(loss), probs))
    return min(tried, key=lambda pair: pair[0])[1]


def find_doubts(
    probs: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> list[Doubt]:
    """The candidates of confident learning, the least supported label first.

    probs: float64 [N, C] from fits without the image. rows: int64 [N], for the result.
    """
    own = probs[np.arange(len(targets)), targets]
    limits = np.array([own[targets == c].mean() for c in range(len(classes))])
    claimed = np.where(probs >= limits, probs, -1.0)
    suggested = claimed.argmax(axis=1)
    candidates = np.flatnonzero((claimed.max(axis=1) >= 0) & (suggested != targets))
    margin = own[candidates] - probs[candidates, suggested[candidates]]
    return [
        Doubt(
            int(rows[i]),
            classes[int(suggested[i])],
            round(float(own[i]), 4),
            round(float(probs[i, suggested[i]]), 4),
        )
        for i in candidates[np.argsort(margin, kind="stable")]
    ]


def check_labels(manifest: Manifest, doubts: Sequence[Doubt] | str, n: int, model: str) -> Finding:
    """The finding on the labels of `n` images; doubts as text: why they were not searched."""
    if isinstance(doubts, str):
        return Finding("labels", "hint", f"Labels were not checked: {doubts}")
    text = (
        f"Each image was predicted from the features of {model} by a regression on the images of "
        "other patients. An image is listed if another class supports it more than its own label "
        "does, measured by how sure each class is of its own images."
    )
    if not doubts:
        return Finding("labels", "ok", f"None of {counted(n, 'label')} is in doubt.", text)
    table = manifest.table
    return Finding(
        "labels",
        "hint",
        f"{counted(len(doubts), 'label')} of {n} ({percent(len(doubts), n)}) may be wrong: the "
        "image looks like another class.",
        text + " Some of them are only hard cases.",
        "Look at them, the least supported first. Change a label only where the image shows that "
        "it is wrong: dropping hard cases makes a model look better than it is.",
        [
            f"{image_name(table, d.row)}: {d.suggested} {d.suggested_probability:.2f}, "
            f"{table['label'].iat[d.row]} {d.given_probability:.2f}"
            for d in doubts
        ],
        [image_detail(table, d.row) | vars(d) for d in doubts],
    )
