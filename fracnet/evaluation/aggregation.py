"""From images to studies and patients: one row a unit, a predictions table like the one before.

A study's probability is the mean of its views' (MURA's official rule) or their maximum; a patient
is positive if any study is, so a patient's probability is the highest of the studies'.

Groups of a table: the rows of each value of a column, at each level where that is one thing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from fracnet.config.instantiate import near_miss
from fracnet.evaluation.predictions import (
    LOGIT,
    PROB,
    assemble,
    classes_of,
    identified,
    known,
    probabilities,
)
from fracnet.utils.errors import UserError

LEVELS = ("image", "study", "patient")

# The smallest double stands for a probability of 0, whose log no table can hold.
TINY = float(np.finfo(np.float64).tiny)


def offered(table: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Why levels are not to be had, by level ("" where one is); and the list of those that are.

    A level needs its column, without a gap; studies need one label each; patients need studies,
    and two classes as well.
    """
    table = identified(table)
    why = {"image": ""}
    for level in LEVELS[1:]:
        gaps = len(table) if level not in table else int((~known(table[level])).sum())
        if gaps:
            of = "any image" if gaps == len(table) else f"{gaps} of {len(table)} images"
            why[level] = f"the {level} is not known for {of}"
        elif level == "patient" and len(classes_of(table)) > 2:
            why[level] = "a patient is judged as positive or not, with two classes only"
        elif level == "patient" and why["study"]:
            why[level] = f"a patient is judged by studies, and {why['study']}"
        else:
            why[level] = _two_labels(table) if level == "study" else ""
    return why, [level for level in LEVELS if not why[level]]


def to_level(table: pd.DataFrame, level: str, views: str = "mean") -> pd.DataFrame:
    """The table at a level that `offered` names, sorted by the unit's name.

    Names of studies that several patients have are told apart (`identified`).
    Raises `UserError` for a study with two labels, and for `views` "max" with more than two
    classes, whose maxima are no probabilities.
    """
    assert level in LEVELS, level
    table = table.sort_values("path")  # sums of floats depend on their order
    if level == "image":
        return table
    studies = by_study(table, views)
    return studies if level == "study" else by_patient(studies)


def by_study(table: pd.DataFrame, views: str = "mean") -> pd.DataFrame:
    """One row a study: the mean (or maximum) of its views' probabilities.

    `path` is the study's name, `views` the number of its images; logits are logs of the
    probabilities.
    """
    classes = classes_of(table)
    check_views(views, len(classes))
    table = identified(table)
    if wrong := _two_labels(table):
        raise UserError(f"{wrong[0].upper()}{wrong[1:]}.")
    groups = table.groupby("study", sort=True)
    first = groups.first()
    first["path"] = first.index.astype(object)
    first["views"] = groups.size()
    if views == "mean":
        names = [f"{PROB}{name}" for name in classes]
        prob = groups[names].mean().to_numpy(dtype=np.float64)
    else:
        prob = _pair(groups[f"{PROB}{classes[1]}"].max())
    return _assembled(first.reset_index(), prob, classes)


def by_patient(studies: pd.DataFrame) -> pd.DataFrame:
    """One row a patient of a table that `by_study` gave: positive if any study is.

    `path` is the patient's name, `studies` the number of studies; `study` is missing.
    """
    classes = classes_of(studies)
    assert len(classes) == 2, classes
    groups = studies.groupby("patient", sort=True)
    first = groups.first()
    first["path"] = first.index.astype(object)
    case = (studies["label"] == classes[1]).groupby(studies["patient"], sort=True).any()
    first["label"] = np.where(case, classes[1], classes[0])
    first["views"], first["studies"] = groups["views"].sum(), groups.size()
    rows = first.reset_index()
    rows["study"] = np.nan
    return _assembled(rows, _pair(groups[f"{PROB}{classes[1]}"].max()), classes)


def check_views(views: str, n_classes: int, key: str = "views") -> None:
    """Raise `UserError` where the views of a study cannot be put together so.

    `key` is how the user wrote it.
    """
    if views == "max" and n_classes > 2:
        raise UserError(
            f"{key}=max is for two classes; there are {n_classes} here, whose maxima over the "
            "views of a study are no probabilities. Allowed: mean."
        )


def positive(table: pd.DataFrame) -> np.ndarray:
    """float64[N], the probability of the second of two classes."""
    return np.asarray(probabilities(table)[:, 1])


def _pair(highest: pd.Series) -> np.ndarray:
    prob = highest.to_numpy(dtype=np.float64)
    return np.column_stack([1 - prob, prob])


def _assembled(rows: pd.DataFrame, prob: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    kept = [c for c in rows.columns if not str(c).startswith((PROB, "logit_"))]
    return assemble(rows[kept], classes, np.log(np.maximum(prob, TINY)))


def _two_labels(table: pd.DataFrame) -> str:
    """What is wrong where a study has images of several labels, and the way out; "" if none has."""
    groups = table.groupby("study", sort=True)["label"]
    wrong = groups.nunique()
    wrong = wrong[wrong > 1]
    if not len(wrong):
        return ""
    name = wrong.index[0]
    labels = ", ".join(sorted(map(str, groups.get_group(name).unique())))
    more = f", and so have {len(wrong) - 1} more" if len(wrong) > 1 else ""
    way = "a study has one"
    rows = table["study"] == name
    if "patient" not in table or not known(table.loc[rows, "patient"]).all():
        way += "; where several patients have a study of that name, the column patient tells which"
    return f"the study {name} has images of more than one label ({labels}){more}: {way}"


OVERALL, UNKNOWN = "overall", "(unknown)"
MOST = 50

# Columns that hold a list an image, and what groups may not go by.
LISTS = ("polygons", "boxes")


def check_by(table: pd.DataFrame, by: Sequence[str], key: str = "by") -> None:
    """Raise `UserError` for a column that the table lacks, or that makes more than `MOST` groups.

    `key` is how the user wrote it.
    """
    allowed = [
        str(c) for c in table.columns if not str(c).startswith((PROB, LOGIT)) and c not in LISTS
    ]
    for name in by:
        if name not in allowed:
            raise UserError(
                f"{key}={name}: there is no such column; allowed: {', '.join(allowed)}."
                + near_miss(name, allowed)
            )
        values = table[name].nunique()
        if values > MOST:
            raise UserError(
                f"{key}={name}: the column has {values} different values, each of which would be "
                f"a group; allowed: at most {MOST}."
            )


def groups(table: pd.DataFrame, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each value of a column, in the order of the values; missing ones last."""
    missing = ~known(table[name])
    for value, rows in table[~missing].groupby(name, sort=True):
        yield str(value), rows
    if missing.any():
        yield UNKNOWN, table[missing]


def why_not(table: pd.DataFrame, name: str) -> str:
    """Why there are no figures by a column; "" where there are."""
    if table[name].isna().all():
        return f"no figures by {name}: it is not known for any image"
    return ""


def is_class(table: pd.DataFrame, name: str) -> bool:
    """Whether a column says the same as the label, as the region does where it is the task."""
    return bool((table[name].astype(str) == table["label"].astype(str)).all())


def levels_for(table: pd.DataFrame, name: str, levels: Sequence[str]) -> list[str]:
    """Those of `levels` at which the groups of a column hold whole studies: a study has one value.

    Otherwise a group would judge studies by part of their views.
    """
    if "study" not in levels:
        return [level for level in levels if level == "image"]
    whole = bool((identified(table).groupby("study")[name].nunique(dropna=False) <= 1).all())
    return [level for level in levels if whole or level == "image"]
