"""The mean of several runs' probabilities, as a predictions table of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import TINY
from fracnet.evaluation.predictions import (
    LOGIT,
    PROB,
    align,
    assemble,
    classes_of,
    listed,
    one_split,
    probabilities,
)
from fracnet.utils.errors import UserError

MEAN, OUT_OF_FOLD, NONE = "mean", "out_of_fold", "none"


@dataclass(frozen=True)
class Ensemble:
    """A predictions table; how its val rows were made; and the runs by the images they validate on.

    `validation`: "mean" of all runs, "out_of_fold" (each image by the runs that have not trained on
    it), or "none".
    """

    table: pd.DataFrame
    validation: str
    folds: tuple[tuple[str, ...], ...]


def average(tables: Mapping[str, pd.DataFrame]) -> Ensemble:
    """Average the test probabilities of runs, and those of val where that is honest.

    Runs that all validate on the same images are averaged there too. Where their images of val are
    disjoint, as in the folds of one cross-validation, each image keeps the mean of the runs that
    validated on it: the others have trained on it. Logits are the logs of the means.

    Raises:
        UserError: tables that `align` refuses, or val rows that are neither the same nor disjoint.
    """
    assert len(tables) > 1, "an ensemble of one"
    test = _mean(align(tables, "test"))
    folds = _folds(tables)
    if not folds:
        return Ensemble(test, NONE, (tuple(tables),))
    parts = [_mean(align({name: tables[name] for name in names}, "val")) for names in folds]
    val = pd.concat(parts).sort_values("path")
    table = pd.concat([val, test], ignore_index=True)
    return Ensemble(table, MEAN if len(folds) == 1 else OUT_OF_FOLD, folds)


def _mean(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    first = next(iter(parts.values()))
    mean = np.mean([probabilities(part) for part in parts.values()], axis=0)
    kept = [c for c in first.columns if not str(c).startswith((PROB, LOGIT))]
    return assemble(first[kept], classes_of(first), np.log(np.maximum(mean, TINY)))


def _folds(tables: Mapping[str, pd.DataFrame]) -> tuple[tuple[str, ...], ...]:
    """Runs with the same images of val, together; no groups where no run has any."""
    without = [name for name, table in tables.items() if not (table["split"] == "val").any()]
    if len(without) == len(tables):
        return ()
    if without:
        raise UserError(
            f"{listed(without)} has no val rows in its predictions, and others have: thresholds "
            "and temperature could not be chosen for all alike. Put together runs with, or "
            "without."
        )
    groups: dict[frozenset[str], list[str]] = {}
    for name, table in tables.items():
        groups.setdefault(frozenset(one_split(name, table, "val")["path"]), []).append(name)
    _check_folds(groups)
    return tuple(tuple(names) for names in groups.values())


def _check_folds(groups: Mapping[frozenset[str], Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for paths, names in groups.items():
        both = sorted(paths & seen.keys())
        if both:
            raise UserError(
                f"{seen[both[0]]} and {names[0]} share {len(both)} of their val images (e.g. "
                f"{both[0]}) but not all: the one may have trained on what the other validates on, "
                "so no threshold could be chosen honestly. Allowed: runs with the same val images, "
                "or the folds of one cross-validation."
            )
        seen |= dict.fromkeys(paths, names[0])
    sizes = {len(names) for names in groups.values()}
    if len(sizes) > 1:
        told = "; ".join(f"{len(names)} of {listed(names)}" for names in groups.values())
        raise UserError(
            f"The runs validate on {len(groups)} separate sets of images, but not the same number "
            f"of runs on each ({told}), so folds would not count alike. Allowed: as many runs of "
            "each fold."
        )
