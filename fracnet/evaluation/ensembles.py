"""The mean of several runs' probabilities, as predictions of its own."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import combine_views
from fracnet.evaluation.predictions import (
    Predictions,
    align,
    concatenate,
    known_groups,
    list_names,
    names_by,
)
from fracnet.utils.errors import UserError

MEAN, OUT_OF_FOLD, NONE = "mean", "out_of_fold", "none"


@dataclass(frozen=True)
class Ensemble:
    """Predictions; how their val rows were made; and the runs grouped by their val images.

    `validation`: "mean" of all runs, "out_of_fold" (each image by the runs that did not train on
    it), or "none".
    """

    predictions: Predictions
    validation: str
    folds: tuple[tuple[str, ...], ...]


def average(runs: Mapping[str, Predictions]) -> Ensemble:
    """Average the test probabilities of runs, and those of val where that is valid.

    Runs that all validate on the same images are averaged on them too. Where their val images are
    disjoint, as in the folds of one cross-validation, each image gets the mean of the runs that
    validated on it: the others trained on it. Logits are the logs of the means.

    Raises UserError for tables that `align` rejects, and val rows neither the same nor disjoint.
    """
    assert len(runs) > 1, "an ensemble of one"
    test = _mean(align(runs, "test"))
    folds = _folds(runs)
    if not folds:
        return Ensemble(test, NONE, (tuple(runs),))
    parts = [_mean(align({name: runs[name] for name in names}, "val")) for names in folds]
    val = Predictions.trusted(pd.concat([p.table for p in parts]).sort_values("path"))
    return Ensemble(concatenate([val, test]), MEAN if len(folds) == 1 else OUT_OF_FOLD, folds)


def _mean(parts: Mapping[str, Predictions]) -> Predictions:
    first = next(iter(parts.values()))
    prob, logits = (
        np.concatenate([getattr(part, name) for part in parts.values()])
        for name in ("probabilities", "logits")
    )
    rows = np.tile(np.arange(len(first)), len(parts))
    return first.with_probabilities(*combine_views(prob, logits, rows, "mean"), first.table)


def _folds(runs: Mapping[str, Predictions]) -> tuple[tuple[str, ...], ...]:
    """Runs grouped by their val images; no groups where no run has any."""
    without = [name for name, run in runs.items() if not len(run.split("val"))]
    if len(without) == len(runs):
        return ()
    if without:
        raise UserError(
            f"{list_names(without)} has no val rows in its predictions, but other runs do: "
            "thresholds and temperature cannot be chosen for all in the same way. Combine runs "
            "that all have val rows, or that all have none."
        )
    groups = names_by(runs, lambda run: frozenset(run.split("val").table["path"]))
    if overlap := _overlap({names[0]: paths for paths, names in groups.items()}):
        name, other_name, shared = overlap
        raise UserError(
            f"{name} and {other_name} share {len(shared)} of their val images (e.g. {shared[0]}) "
            "but not all: one may have trained on images that the other validates on, so no "
            "threshold can be chosen without bias. Allowed: runs with the same val images, or the "
            "folds of one cross-validation."
        )
    if len({len(names) for names in groups.values()}) > 1:
        listed = "; ".join(f"{len(names)} of {list_names(names)}" for names in groups.values())
        raise UserError(
            f"The runs validate on {len(groups)} separate sets of images, with different numbers "
            f"of runs on each ({listed}), so folds would not count equally. Allowed: the same "
            "number of runs of each fold."
        )
    folds = [names[0] for names in groups.values()]
    if overlap := _overlap({name: known_groups(runs[name].split("val").table) for name in folds}):
        name, other_name, shared = overlap
        raise UserError(
            f"{name} and {other_name} both validate on images of {shared[0].replace(':', ' ', 1)} "
            f"({len(shared)} such patients or studies): each may have trained on images of "
            "patients that the other validates on. Allowed: folds that keep the images of each "
            "patient and study together."
        )
    return tuple(tuple(names) for names in groups.values())


def _overlap(sets: Mapping[str, Set[str]]) -> tuple[str, str, list[str]] | None:
    """The first two names whose sets share anything, and what they share."""
    name_of: dict[str, str] = {}
    for name, members in sets.items():
        if shared := sorted(members & name_of.keys()):
            return name_of[shared[0]], name, shared
        name_of |= dict.fromkeys(members, name)
    return None
