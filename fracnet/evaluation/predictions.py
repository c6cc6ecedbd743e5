"""The predictions table: one row an image with its label, logits and probabilities.

Every figure of a run is computed from this table alone. Its class names and their order are those
of the `prob_<class>` columns; a name may hold spaces. In a binary task the first class is the
negative one, the second the positive one.

Whose image a row is: patients and studies by name, where the names alone leave doubt.

The name of a study may be unique only within its patient ("study1_positive"), and a patient may be
named for some images of a study alone.

Predictions of several runs for the same images: checked, and brought into one order.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from fracnet.metrics.clusters import Clusters
from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

# Groups named in a message.
IDENTITY_SHOWN = 5


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
        for key in both[:IDENTITY_SHOWN]
    ]
    more = f" and {len(both) - IDENTITY_SHOWN} more" if len(both) > IDENTITY_SHOWN else ""
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


PROB, LOGIT = "prob_", "logit_"
SPLITS = ("val", "test")
REQUIRED = ("path", "split", "label")

# Probabilities saved with four decimals, for up to a dozen classes, still pass.
SUM_TOLERANCE = 1e-3

# Rows named in a message.
SHOWN = 5


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


# Runs, or images, named in a message.
ALIGNMENT_SHOWN = 3


def align(tables: Mapping[str, pd.DataFrame], split: str) -> dict[str, pd.DataFrame]:
    """The rows of one split of each run, sorted by path.

    Raises:
        UserError: runs that differ in classes or their order, in images, labels, or in whose images
            they are: says which runs, and how many rows. An image that stands twice in a table.
    """
    parts = {name: one_split(name, table, split) for name, table in tables.items()}
    first, reference = next(iter(parts.items()))
    _same_classes(parts)
    _same_images(parts, split)
    clusters = clusters_of(reference)
    for name, part in parts.items():
        wrong = (part["label"] != reference["label"]).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{first} and {name} have different labels for {int(wrong.sum())} of "
                f"{len(reference)} {split} images, the first of them "
                f"{reference['path'].iloc[row]} ({reference['label'].iloc[row]}, "
                f"{part['label'].iloc[row]})."
            )
        if (clusters_of(part).ids != clusters.ids).any():
            raise UserError(
                f"{first} and {name} do not agree on which {split} images belong to one patient or "
                "study (columns patient and study of their predictions.csv), so neither can be "
                "taken for both."
            )
    return parts


def one_split(name: str, table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of a split, sorted by path; `name` is the run's, for messages."""
    part = table[table["split"] == split].sort_values("path").reset_index(drop=True)
    if not len(part):
        raise UserError(f"{name} has no {split} rows in its predictions.")
    twice = part["path"].duplicated()
    if twice.any():
        raise UserError(
            f"{name} has the {split} image {part.loc[twice, 'path'].iloc[0]} more than once in "
            "its predictions."
        )
    return part


def listed(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - ALIGNMENT_SHOWN} more" if len(names) > ALIGNMENT_SHOWN else ""
    return f"{', '.join(names[:ALIGNMENT_SHOWN])}{more}"


def _same_classes(parts: Mapping[str, pd.DataFrame]) -> None:
    sets: dict[tuple[str, ...], list[str]] = {}
    for name, part in parts.items():
        sets.setdefault(classes_of(part), []).append(name)
    if len(sets) > 1:
        told = (f"{listed(names)}: {', '.join(classes)}" for classes, names in sets.items())
        raise UserError(
            f"The runs have different classes, or another order of them ({'; '.join(told)}). Only "
            "runs of one task can be put side by side."
        )


def _same_images(parts: Mapping[str, pd.DataFrame], split: str) -> None:
    sets: dict[tuple[str, ...], list[str]] = {}
    for name, part in parts.items():
        sets.setdefault(tuple(part["path"]), []).append(name)
    if len(sets) == 1:
        return
    (here, _), (there, others), *_ = sets.items()
    told = (f"{listed(names)}: {len(paths)} rows" for paths, names in sets.items())
    only, missing = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    details = [
        f"{others[0]} {verb} {len(paths)} of the images of {next(iter(parts))}, e.g. {paths[0]}"
        for verb, paths in (("lacks", missing), ("has beside", only))
        if paths
    ]
    raise UserError(
        f"The runs have {len(sets)} different sets of {split} images ({'; '.join(told)}). "
        f"{'; '.join(details)}. Only figures on the same images can be put side by side."
    )
