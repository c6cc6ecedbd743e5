"""From images to studies and patients (one row per unit), and groups of rows by a column.

A study's probability is the mean of its views' (MURA's official rule) or their maximum. A patient
is positive if any study is, so a patient's probability is the highest of the studies'.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from fracnet.evaluation.predictions import LOGIT, PROB, TINY, Predictions, is_known, safe_log
from fracnet.utils.errors import UserError
from fracnet.utils.text import near_miss

LEVELS = ("image", "study", "patient")
OVERALL, UNKNOWN = "overall", "(unknown)"
MAX_GROUPS = 50
TIE, NEAR_TIE = 0.5, 1e-9
LIST_COLUMNS = ("polygons", "boxes")
"""Columns that hold a list per image; they cannot form groups."""


def level_problems(predictions: Predictions) -> dict[str, str]:
    """Why a level is not available, by level; "" where it is."""
    identified = predictions.identified
    table = identified.table
    problems = {"image": ""}
    for level in LEVELS[1:]:
        gaps = len(table) if level not in table else int((~is_known(table[level])).sum())
        if gaps:
            images = "any image" if gaps == len(table) else f"{gaps} of {len(table)} images"
            problems[level] = f"the {level} is not known for {images}"
        elif level == "patient" and len(identified.classes) > 2:
            problems[level] = "patient-level metrics need exactly two classes"
        elif level == "patient" and problems["study"]:
            problems[level] = f"patient-level metrics need studies, and {problems['study']}"
        else:
            problems[level] = _mixed_labels(table) if level == "study" else ""
    return problems


def available_levels(predictions: Predictions) -> list[str]:
    """The levels without a problem, from image to patient."""
    return [level for level, problem in level_problems(predictions).items() if not problem]


def to_level(predictions: Predictions, level: str, views: str = "mean") -> Predictions:
    """The predictions at an available level, sorted by the unit's name.

    `path` is the unit's name, `views` the number of its images and, for patients, `studies` the
    number of studies; logits are logs of the probabilities. Raises UserError for a study with two
    labels, and for `views` "max" with more than two classes.
    """
    assert level in LEVELS, level
    predictions = predictions.by_path()
    if level == "image":
        return predictions
    check_views(views, len(predictions.classes))
    table = predictions.identified.table
    if problem := _mixed_labels(table):
        raise UserError(f"{problem[0].upper()}{problem[1:]}.")
    groups = table.groupby("study", sort=True)
    units = groups.first().assign(views=groups.size())
    studies = _combined(predictions, groups, units, views)
    if level == "study":
        return studies
    negative, positive = studies.classes
    table = studies.table
    groups = table.groupby("patient", sort=True)
    case = (table["label"] == positive).groupby(table["patient"], sort=True).any()
    units = groups.first().assign(views=groups["views"].sum(), studies=groups.size(), study=np.nan)
    units["label"] = np.where(case, positive, negative)
    return _combined(studies, groups, units, "max")


def _combined(rows: Predictions, groups: Any, units: pd.DataFrame, views: str) -> Predictions:
    """The `units`, a row for each group of `rows`, whose index is their names."""
    units = units.assign(path=units.index.astype(object)).reset_index()
    group = groups.ngroup().to_numpy()
    prob, logits = combine_views(rows.probabilities, rows.logits, group, views)
    return rows.with_probabilities(prob, logits, units)


def check_views(views: str, n_classes: int, key: str = "views") -> None:
    """Raise `UserError` if a study's views cannot be combined so; `key` as the user wrote it."""
    if views == "max" and n_classes > 2:
        raise UserError(
            f"{key}=max needs two classes; there are {n_classes}, and the maxima of their "
            "probabilities over the views of a study do not sum to 1. Allowed: mean."
        )


def combine_views(
    prob: np.ndarray, logits: np.ndarray, groups: np.ndarray, views: str
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and their logits float64[G, C] of groups of rows, such as views of a study.

    The logits are the logs of the probabilities or, of one that is 0 as a float, the log of the
    exact value, by which very confident networks still differ.

    Args:
        prob, logits: float64[N, C]; of logits only their differences count.
        groups: int64[N], 0 to G - 1, or -1 for rows of no group.
        views: "mean", or "max": the highest of the second of two classes.
    """
    order = np.argsort(groups, kind="stable")[int((groups < 0).sum()) :]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    prob, logs = prob[order], log_softmax(logits[order], axis=1)
    if views == "mean":
        parts = [np.split(column, starts[1:]) for column in prob.T]
        combined = np.column_stack([[exact_mean(p.tolist()) for p in column] for column in parts])
        if combined.shape[1] == 2:
            # 1 - p of decimals may be off in the last digit, which must not break a tie.
            combined[combined[:, 1] == TIE, 0] = TIE
        sizes = np.diff(starts, append=len(order))
        logs = np.logaddexp.reduceat(logs, starts, axis=0) - np.log(sizes)[:, None]
    else:
        ends = (np.minimum.reduceat, np.maximum.reduceat)
        combined, logs = (
            np.column_stack([end(values[:, c], starts) for c, end in enumerate(ends)])
            for values in (prob, logs)
        )
    return combined, np.where(combined > TINY, safe_log(combined), logs)


def exact_mean(numbers: Sequence[float]) -> float:
    """The mean of probabilities without an error of summation, in any order.

    Next to 0.5, where the official rule of MURA decides, it is the mean of the numbers as written:
    a tie of decimals, such as 0.15, 0.6 and 0.75, is exactly 0.5.
    """
    mean = math.fsum(numbers) / len(numbers)
    if abs(mean - TIE) < NEAR_TIE and len(numbers) > 1:
        return float(sum(Fraction(repr(number)) for number in numbers) / len(numbers))
    return mean


def _mixed_labels(table: pd.DataFrame) -> str:
    """Which study has images with different labels, and the remedy; "" if none has."""
    groups = table.groupby("study", sort=True)["label"]
    counts = groups.nunique()
    mixed = counts[counts > 1]
    if not len(mixed):
        return ""
    name = mixed.index[0]
    labels = ", ".join(sorted(map(str, groups.get_group(name).unique())))
    more = f", as have {len(mixed) - 1} more" if len(mixed) > 1 else ""
    text = f"the study {name} has images with different labels ({labels}){more}: a study has one "
    if "patient" in table and is_known(table.loc[table["study"] == name, "patient"]).all():
        return f"{text}label"
    return f"{text}label; if several patients have a study of that name, add the column patient"


def check_by(table: pd.DataFrame, by: Sequence[str], key: str = "by") -> None:
    """Raise `UserError` for a column that the table lacks or with more than `MAX_GROUPS` values."""
    allowed = [
        str(c)
        for c in table.columns
        if not str(c).startswith((PROB, LOGIT)) and c not in LIST_COLUMNS
    ]
    for name in by:
        if name not in allowed:
            raise UserError(
                f"{key}={name}: no such column; allowed: {', '.join(allowed)}."
                + near_miss(name, allowed)
            )
        values = table[name].nunique()
        if values > MAX_GROUPS:
            raise UserError(
                f"{key}={name}: the column has {values} different values, which would make as many "
                f"groups; allowed: at most {MAX_GROUPS}."
            )


def groups_by(predictions: Predictions, column: str) -> Iterator[tuple[str, Predictions]]:
    """The rows of each value of a column, in the order of the values; missing ones last."""
    table = predictions.table
    missing = ~is_known(table[column])
    for value, rows in table[~missing].groupby(column, sort=True):
        yield str(value), Predictions.trusted(rows)
    if missing.any():
        yield UNKNOWN, Predictions.trusted(table[missing])


def equals_label(table: pd.DataFrame, column: str) -> bool:
    """Whether a column repeats the label, as the region does where it is the task."""
    return bool((table[column].astype(str) == table["label"].astype(str)).all())


def levels_for_groups(predictions: Predictions, column: str, levels: Sequence[str]) -> list[str]:
    """Those of `levels` at which the groups of a column contain whole studies.

    Otherwise a group would score studies by part of their views.
    """
    if "study" not in levels:
        return [level for level in levels if level == "image"]
    studies = predictions.identified.table.groupby("study")
    whole = bool((studies[column].nunique(dropna=False) <= 1).all())
    return [level for level in levels if whole or level == "image"]
