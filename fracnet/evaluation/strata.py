"""Groups of a table: the rows of each value of a column, at each level where that is one thing."""

from collections.abc import Iterator, Sequence

import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation.identity import identified, known
from fracnet.evaluation.predictions import LOGIT, PROB
from fracnet.objects import near_miss

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
