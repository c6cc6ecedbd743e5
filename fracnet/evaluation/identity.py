"""Whose image a row is: patients and studies by name, where the names alone leave doubt.

The name of a study may be unique only within its patient ("study1_positive"), and a patient may be
named for some images of a study alone.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from fracnet.errors import UserError
from fracnet.words import are, counted

# Groups named in a message.
SHOWN = 5


class _Doubt(NamedTuple):
    """Rows, bool[N] each, and the number of known patients of each study that has any."""

    ambiguous: np.ndarray  # the study has several patients, and this is the row of one of them
    unclear: np.ndarray  # the study has several patients, and the row has none
    gap: np.ndarray  # the study has one patient, whom the row does not name
    patients: pd.Series


def known(column: pd.Series) -> np.ndarray:
    """bool[N], whether a value is there and not blank."""
    return np.asarray(column.notna() & (column.astype(str).str.strip() != ""))


def identified(table: pd.DataFrame) -> pd.DataFrame:
    """The table with studies that are each of one patient, and patients that their studies tell.

    A study's name that several patients have becomes `<patient>/<study>` for each of them. A row
    without a patient gets the one patient of its study. Other columns, and tables without such
    rows, stay as they are.
    """
    doubt = _doubt(table)
    if doubt is None or not (doubt.ambiguous.any() or doubt.gap.any()):
        return table
    patient = table["patient"].to_numpy(dtype=object, copy=True)
    study = table["study"].to_numpy(dtype=object, copy=True)
    names = table["study"].astype(str).to_numpy(dtype=object)
    named = known(table["patient"])
    first = dict(zip(names[named][::-1], patient[named][::-1], strict=True))
    patient[doubt.gap] = [first[name] for name in names[doubt.gap]]
    rows = doubt.ambiguous
    study[rows] = [f"{p}/{s}" for p, s in zip(patient[rows], names[rows], strict=True)]
    return table.assign(patient=patient, study=study)


def identity_notes(table: pd.DataFrame) -> list[str]:
    """Sentences on what `identified` does to the table, and on what it cannot tell."""
    doubt = _doubt(table)
    if doubt is None:
        return []
    names = table["study"].astype(str).to_numpy(dtype=object)
    notes = []
    if doubt.ambiguous.any():
        name = min(names[doubt.ambiguous])
        notes.append(
            f"names of studies are not unique over the patients ({name} is that of "
            f"{counted(int(doubt.patients[name]), 'patient')}): a study is told by patient and name"
        )
    if doubt.gap.any():
        n = int(doubt.gap.sum())
        notes.append(
            f"{counted(n, 'image')} without a patient {are(n)} of a study whose other images name "
            f"one (e.g. {min(names[doubt.gap])}), and counted as that patient's"
        )
    if doubt.unclear.any():
        n, name = int(doubt.unclear.sum()), min(names[doubt.unclear])
        notes.append(
            f"{counted(n, 'image')} without a patient {are(n)} of studies that several patients "
            f"have by name (e.g. {name}): those of one name count as one study"
        )
    return notes


def group_keys(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What each row must not be parted from, and its kind, both object[N].

    The kind is "patient" where that is known, else "study", else "image"; the key names both.
    """
    table = identified(table)
    keys = ("image:" + table["path"].astype(str)).to_numpy(dtype=object, copy=True)
    units = np.full(len(table), "image", dtype=object)
    for column in ("study", "patient"):
        if column in table:
            rows = known(table[column])
            names = table[column].astype(str).to_numpy(dtype=object)
            keys[rows] = [f"{column}:{name}" for name in names[rows]]
            units[rows] = column
    return keys, units


def check_apart(table: pd.DataFrame) -> None:
    """Raise `UserError` where a patient, or a study of no known patient, is in val and in test."""
    keys, units = group_keys(table)
    split = table["split"].to_numpy(dtype=object)
    of_group = units != "image"
    counts = [
        pd.Series(keys[of_group & (split == name)]).value_counts() for name in ("val", "test")
    ]
    both = sorted(set(counts[0].index) & set(counts[1].index))
    if not both:
        return
    told = [
        f"{key.replace(':', ' ', 1)} (val {counts[0][key]}, test {counts[1][key]})"
        for key in both[:SHOWN]
    ]
    more = f" and {len(both) - SHOWN} more" if len(both) > SHOWN else ""
    rows = int(counts[1][both].sum())
    raise UserError(
        f"{counted(rows, 'row')} of test {are(rows)} of patients or studies that are in val too, "
        f"rows of each: {', '.join(told)}{more}. Val chooses thresholds and temperature, which "
        "must not be measured on the same people: leave each of them in one split, or, where a "
        "name stands for different ones, make names unique (studies: by the column patient)."
    )


def _doubt(table: pd.DataFrame) -> _Doubt | None:
    """None where a column is missing or no row has both."""
    if "study" not in table or "patient" not in table:
        return None
    patient, study = known(table["patient"]), known(table["study"])
    if not (patient & study).any():
        return None
    names = table["study"].astype(str).reset_index(drop=True)
    whose = table["patient"].astype(str).reset_index(drop=True)
    patients = whose[patient & study].groupby(names[patient & study]).nunique()
    count = names.map(patients).fillna(0).to_numpy() * study
    return _Doubt((count > 1) & patient, (count > 1) & ~patient, (count == 1) & ~patient, patients)
