"""The predictions table: one row an image with its label, logits and probabilities.

Every figure of a run is computed from this table alone. Its class names and their order are those
of the `prob_<class>` columns; a name may hold spaces. In a binary task the first class is the
negative one, the second the positive one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from fracnet.errors import UserError
from fracnet.evaluation.identity import group_keys
from fracnet.words import counted

PROB, LOGIT = "prob_", "logit_"
SPLITS = ("val", "test")
REQUIRED = ("path", "split", "label")
# Probabilities saved with four decimals, for up to a dozen classes, still pass.
SUM_TOLERANCE = 1e-3
# Rows named in a message.
SHOWN = 5


@dataclass(frozen=True)
class Clusters:
    """What counts as one independent observation: `ids` int64[N] in 0..count-1, and its name."""

    ids: np.ndarray
    count: int
    unit: str

    @property
    def trivial(self) -> bool:
        """Whether every row is a cluster of its own."""
        return self.count == len(self.ids)

    @property
    def lone(self) -> str:
        """Why rows of a single cluster have no variance."""
        return "there is only one row" if self.trivial else f"all rows come from one {self.unit}"


def assemble(rows: pd.DataFrame, classes: Sequence[str], logits: np.ndarray) -> pd.DataFrame:
    """Add `logit_` and `prob_` columns (softmax, float64) to manifest rows; a new table.

    `logits` is [N, C]: row i belongs to row i of `rows`, column c to `classes[c]`.
    """
    logits = np.asarray(logits, dtype=np.float64)
    assert logits.shape == (len(rows), len(classes)), (logits.shape, len(rows), len(classes))
    columns = {f"{LOGIT}{name}": logits[:, c] for c, name in enumerate(classes)}
    prob = softmax(logits, axis=1)
    columns |= {f"{PROB}{name}": prob[:, c] for c, name in enumerate(classes)}
    return pd.concat([rows.reset_index(drop=True), pd.DataFrame(columns)], axis=1)


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Class names in the order of the `prob_<class>` columns."""
    return tuple(str(c).removeprefix(PROB) for c in table.columns if str(c).startswith(PROB))


def probabilities(table: pd.DataFrame) -> np.ndarray:
    """float64[N, C], columns in the order of `classes_of`."""
    return table[[f"{PROB}{name}" for name in classes_of(table)]].to_numpy(dtype=np.float64)


def targets(table: pd.DataFrame) -> np.ndarray:
    """int64[N], the label's index in `classes_of`. Every label must be one of the classes."""
    index = pd.Index(classes_of(table)).get_indexer(pd.Index(table["label"]))
    assert (index >= 0).all(), "labels outside the classes: call check() first"
    return np.asarray(index, dtype=np.int64)


def clusters_of(table: pd.DataFrame) -> Clusters:
    """Group rows by patient where it is known, else by study, else each image by itself.

    A study's patient is known for all of its images, and its name for one patient (`identified`).
    Ids follow the sorted keys, not the order of rows, so that a seeded draw by cluster is the same
    for any order of rows.
    """
    keys, units = group_keys(table)
    names, ids = np.unique(keys.astype(str), return_inverse=True)
    present = [unit for unit in ("patient", "study", "image") if (units == unit).any()]
    return Clusters(ids.reshape(-1).astype(np.int64), len(names), ", else ".join(present))


def check(table: pd.DataFrame) -> None:
    """Raise `UserError` naming column and row if the table cannot be scored.

    Wanted: columns path, split (val or test), label (one of the classes) and at least two
    `prob_<class>` columns of numbers in [0, 1] whose sum is 1 within `SUM_TOLERANCE` in each row;
    and no path twice.
    """
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise UserError(
            f"The predictions table lacks the column {missing[0]!r}; it needs "
            f"{', '.join(REQUIRED)} and one {PROB}<class> a class. It has: "
            f"{', '.join(map(str, table.columns)) or 'none'}."
        )
    classes = classes_of(table)
    if len(classes) < 2:
        raise UserError(
            f"The predictions table has {len(classes)} column(s) named {PROB}<class>; "
            "at least two classes are needed."
        )
    if len(set(table.columns)) != len(table.columns):
        double = table.columns[table.columns.duplicated()][0]
        raise UserError(f"The predictions table has the column {double!r} more than once.")
    if not len(table):
        raise UserError("The predictions table has no rows.")
    _check_probabilities(table, classes)
    for column, allowed in (("split", SPLITS), ("label", classes)):
        wrong = ~table[column].isin(allowed).to_numpy()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"The predictions table's column {column!r} holds {table[column].iloc[row]!r} "
                f"{place(table, row)}; allowed: {', '.join(allowed)}."
            )
    _check_paths(table)


def _check_paths(table: pd.DataFrame) -> None:
    double = table["path"].duplicated().to_numpy()
    if double.any():
        path = table["path"].iloc[int(np.flatnonzero(double)[0])]
        rows = np.flatnonzero((table["path"] == path).to_numpy())
        told = ", ".join(f"{row} ({table['split'].iloc[row]})" for row in rows[:SHOWN])
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        others = int(table["path"][double].nunique()) - 1
        too = f", and so {counted(others, 'other path')}" if others else ""
        raise UserError(
            f"The predictions table holds the path {path} more than once, in the rows {told}{more}"
            f"{too}; an image counts once, and in one split."
        )


def _check_probabilities(table: pd.DataFrame, classes: Sequence[str]) -> None:
    for name in classes:
        column = table[f"{PROB}{name}"]
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
        # NaN fails the comparison too, so one test finds text, missing and out-of-range values.
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            held = column.iloc[row]
            held = repr(held) if isinstance(held, str) else str(held)
            raise UserError(
                f"The predictions table's column {PROB + name!r} holds {held} "
                f"{place(table, row)}; a probability is a number from 0 to 1."
            )
    total = probabilities(table).sum(axis=1)
    wrong = np.abs(total - 1) > SUM_TOLERANCE
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"The {PROB}<class> columns of the predictions table sum to {total[row]:.6g} "
            f"{place(table, row)}; they must sum to 1 (within {SUM_TOLERANCE:g})."
        )


def place(table: pd.DataFrame, row: int) -> str:
    """Where a row is, for messages."""
    return f"in row {row} (path {table['path'].iloc[row]})"
