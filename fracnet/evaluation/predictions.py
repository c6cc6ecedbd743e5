"""The predictions table, parsed and checked once: one row per image, label, logits, probabilities.

Every metric of a run is computed from this table alone. The class names and their order are those
of the `prob_<class>` columns; a name may contain spaces. In a binary task the first class is the
negative one and the second the positive one.

A study name may be unique only within its patient ("study1_positive"), and only some images of a
study may name the patient; `resolve_identities` settles both. The optional column `copies` names
the picture that a row shares with its verified copies: they are one observation in every interval.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy.special import softmax

from fracnet.metrics.classification import log_odds
from fracnet.metrics.clusters import Clusters, components
from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted, list_some

PROB, LOGIT = "prob_", "logit_"
COPIES = "copies"
SPLITS = ("val", "test")
NEVER = -1000.0
"""The logit of a class that is absent from train: a probability of 0 that survives JSON and CSV."""
REQUIRED = ("path", "split", "label")
TINY = float(np.finfo(np.float64).tiny)
"""Stands for a probability of 0 in a logarithm: the smallest normal double."""
SUM_TOLERANCE = 1e-3
"""Probabilities saved with four decimals pass, for up to a dozen classes."""
LOGIT_TOLERANCE = 1e-4
"""Between a probability and the softmax of the logits: values saved with four decimals pass."""
MAX_ROWS_LISTED, MAX_RUNS_LISTED = 5, 3
"""Rows (or groups) and runs (or images) named in a message."""
Key = TypeVar("Key")


class Predictions:
    """A checked predictions table (`table`) with its columns as arrays; treat it as read-only."""

    table: pd.DataFrame

    def __init__(self, table: pd.DataFrame) -> None:
        """Check the table.

        Required: the columns path, split (val or test), label (one of the classes), and at least
        two `prob_<class>` columns with numbers in [0, 1] that sum to 1 within `SUM_TOLERANCE` in
        each row. No path may occur twice, and no patient or study in both val and test. Raises
        UserError, which names the column and the row that break this.
        """
        _check(table)
        _check_disjoint(table)
        self.table = table

    @classmethod
    def trusted(cls, table: pd.DataFrame) -> "Predictions":
        """Wrap rows of a checked table without checking them again."""
        predictions = cls.__new__(cls)
        predictions.table = table
        return predictions

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the `prob_<class>` columns."""
        return classes_of(self.table)

    @cached_property
    def targets(self) -> np.ndarray:
        """int64[N], the label's index in `classes`."""
        index = pd.Index(self.classes).get_indexer(pd.Index(self.table["label"]))
        return np.asarray(index, dtype=np.int64)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64[N, C]."""
        return self.table[[f"{PROB}{name}" for name in self.classes]].to_numpy(dtype=np.float64)

    @cached_property
    def logits(self) -> np.ndarray:
        """float64[N, C]; logs of the probabilities where the table has no logits."""
        columns = [f"{LOGIT}{name}" for name in self.classes]
        if set(columns) <= set(self.table.columns):
            return self.table[columns].to_numpy(dtype=np.float64)
        return safe_log(self.probabilities)

    @cached_property
    def scores(self) -> np.ndarray:
        """float64[N, C], by which metrics rank the rows: log-odds of the logits.

        More than two classes without logits are ranked by their probabilities as given.
        """
        if len(self.classes) > 2 and f"{LOGIT}{self.classes[0]}" not in self.table:
            return self.probabilities
        return log_odds(self.logits)

    @cached_property
    def clusters(self) -> Clusters:
        """Rows by patient, else by study, else by image, joined by copies (`clusters_of`)."""
        return clusters_of(self.table)

    @cached_property
    def identified(self) -> "Predictions":
        """The same rows with unambiguous patients and studies (`resolve_identities`)."""
        return Predictions.trusted(resolve_identities(self.table))

    def split(self, name: str) -> "Predictions":
        """The rows of val or of test, possibly none."""
        return self.where((self.table["split"] == name).to_numpy())

    def where(self, rows: np.ndarray) -> "Predictions":
        """The rows that bool[N] selects."""
        return Predictions.trusted(self.table[rows])

    def by_path(self) -> "Predictions":
        """The rows sorted by path: floating-point sums depend on their order."""
        path = self.table["path"]
        if path.is_monotonic_increasing and path.is_unique:
            return self  # with what it has cached
        return Predictions.trusted(self.table.sort_values("path"))

    def with_logits(self, logits: np.ndarray, rows: pd.DataFrame | None = None) -> "Predictions":
        """New scores float64[N, C] for the same rows, or for `rows` with the same classes."""
        rows = self.table if rows is None else rows
        others = [c for c in rows.columns if not str(c).startswith((PROB, LOGIT))]
        return Predictions.trusted(assemble(rows[others], self.classes, logits))

    def with_probabilities(
        self, prob: np.ndarray, logits: np.ndarray, rows: pd.DataFrame
    ) -> "Predictions":
        """Probabilities float64[N, C], to the last digit, and their logits for other `rows`."""
        predictions = self.with_logits(logits, rows)
        columns = {f"{PROB}{name}": prob[:, c] for c, name in enumerate(self.classes)}
        return Predictions.trusted(predictions.table.assign(**columns))


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """The rows of tables with the same classes, renumbered, such as val and test of one run."""
    return Predictions.trusted(pd.concat([part.table for part in parts], ignore_index=True))


def assemble(rows: pd.DataFrame, classes: Sequence[str], logits: np.ndarray) -> pd.DataFrame:
    """Add `logit_` and `prob_` columns (softmax, float64) to manifest rows; returns a new table.

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


def safe_log(prob: np.ndarray) -> np.ndarray:
    """Logits that give these probabilities; finite for a probability of 0."""
    return np.asarray(np.log(np.maximum(prob, TINY)))


def is_known(column: pd.Series) -> np.ndarray:
    """bool[N], whether a value is present and not blank."""
    known = column.notna().to_numpy()
    return known & np.array([bool(str(value).strip()) for value in column], dtype=bool)


class _Identities(NamedTuple):
    """Rows, bool[N] each, and the number of known patients by study name."""

    ambiguous: np.ndarray  # several patients share the study name; the row names its patient
    unclear: np.ndarray  # several patients share the study name; the row names none
    inferable: np.ndarray  # the study has one patient, whom the row does not name
    patients: pd.Series


def _identities(table: pd.DataFrame) -> _Identities | None:
    """None where a column is missing, or no row names both."""
    if "study" not in table or "patient" not in table:
        return None
    patient, study = is_known(table["patient"]), is_known(table["study"])
    both = patient & study
    if not both.any():
        return None
    names = table["study"].astype(str).reset_index(drop=True)
    people = table["patient"].astype(str).reset_index(drop=True)
    patients = people[both].groupby(names[both]).nunique()
    count = names.map(patients).fillna(0).to_numpy() * study
    several = count > 1
    return _Identities(several & patient, several & ~patient, (count == 1) & ~patient, patients)


def resolve_identities(table: pd.DataFrame) -> pd.DataFrame:
    """The table with studies of one patient each, and patients filled in from their studies.

    A study name that several patients share becomes `<patient>/<study>`. A row without a patient
    gets the only patient of its study. Patients, studies and images that `copies` links all get the
    same value there. Other columns, and tables without such rows, do not change.
    """
    return _spread_copies(_resolve_studies(table))


def _resolve_studies(table: pd.DataFrame) -> pd.DataFrame:
    rows = _identities(table)
    if rows is None or not (rows.ambiguous.any() or rows.inferable.any()):
        return table
    patient = table["patient"].to_numpy(dtype=object, copy=True)
    study = table["study"].to_numpy(dtype=object, copy=True)
    names = table["study"].astype(str).to_numpy(dtype=object)
    named = is_known(table["patient"])
    first = dict(zip(names[named][::-1], patient[named][::-1], strict=True))
    patient[rows.inferable] = [first[name] for name in names[rows.inferable]]
    pairs = zip(patient[rows.ambiguous], names[rows.ambiguous], strict=True)
    study[rows.ambiguous] = [f"{p}/{s}" for p, s in pairs]
    return table.assign(patient=patient, study=study)


def _spread_copies(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one value of `copies` for all groups that copies link."""
    known = is_known(table[COPIES]) if COPIES in table else np.zeros(len(table), dtype=bool)
    if not known.any():
        return table
    keys = np.unique(_keys(table)[0].astype(str), return_inverse=True)[1].reshape(-1)
    pictures, picture = np.unique(table[COPIES][known].astype(str), return_inverse=True)
    n = int(keys.max()) + 1
    component = components(n + len(pictures), np.column_stack([keys[known], n + picture]))
    names = dict(zip(component[n:][::-1], pictures[::-1], strict=True))
    return table.assign(**{COPIES: [names.get(component[key], np.nan) for key in keys]})


def identity_notes(table: pd.DataFrame) -> list[str]:
    """Sentences on copies, on what `resolve_identities` changes, and on what it cannot decide."""
    notes = []
    for split in SPLITS if COPIES in table else ():
        pictures = table.loc[(table["split"] == split) & is_known(table[COPIES]), COPIES]
        if repeats := int(pictures.duplicated().sum()):
            n = int((table["split"] == split).sum())
            verb = "repeats" if repeats == 1 else "repeat"
            notes.append(
                f"{repeats} of {n} {split} images {verb} another {split} image (verified copies): "
                "intervals count all copies of a picture as one observation"
            )
    rows = _identities(table)
    if rows is None:
        return notes
    names = table["study"].astype(str).to_numpy(dtype=object)
    if rows.ambiguous.any():
        name = min(names[rows.ambiguous])
        notes.append(
            f"study names are not unique across patients ({name} belongs to "
            f"{counted(int(rows.patients[name]), 'patient')}): studies are identified by patient "
            "and name"
        )
    if rows.inferable.any():
        n = int(rows.inferable.sum())
        notes.append(
            f"{counted(n, 'image')} without a patient {are(n)} of a study whose other images name "
            f"one (e.g. {min(names[rows.inferable])}), and counted as that patient's"
        )
    if rows.unclear.any():
        n, name = int(rows.unclear.sum()), min(names[rows.unclear])
        notes.append(
            f"{counted(n, 'image')} without a patient {are(n)} of study names that several "
            f"patients share (e.g. {name}): images with the same study name count as one study"
        )
    return notes


def _keys(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row, which no split may divide, and its kind; both object[N].

    The kind is "patient" where that is known, else "study", else "image"; the key names both.
    """
    keys = ("image:" + table["path"].astype(str)).to_numpy(dtype=object, copy=True)
    units = np.full(len(table), "image", dtype=object)
    for column in ("study", "patient"):
        if column in table:
            rows = is_known(table[column])
            keys[rows] = f"{column}:" + table[column][rows].astype(str)
            units[rows] = column
    return keys, units


def known_groups(table: pd.DataFrame) -> set[str]:
    """The patients, and the studies of no known patient, such as `patient:p1`."""
    keys, units = _keys(_resolve_studies(table))
    return set(keys[units != "image"])


def clusters_of(table: pd.DataFrame) -> Clusters:
    """Group rows by patient where known, else by study, else each image by itself.

    Groups with copies of one picture (column `copies`) are one. Ids follow the sorted keys and not
    the order of the rows, so that a seeded draw by cluster does not depend on that order.
    """
    table = resolve_identities(table)
    keys, units = _keys(table)
    names, ids = np.unique(keys.astype(str), return_inverse=True)
    unit = ", else ".join(u for u in ("patient", "study", "image") if (units == u).any())
    if COPIES in table:
        known = is_known(table[COPIES])
        keys[known] = ("copies:" + table[COPIES][known].astype(str)).to_numpy(dtype=object)
        joined, joined_ids = np.unique(keys.astype(str), return_inverse=True)
        if len(joined) < len(names):
            names, ids, unit = joined, joined_ids, f"{unit}, joined by copies"
    return Clusters(ids.reshape(-1).astype(np.int64), len(names), unit)


def _check_disjoint(table: pd.DataFrame) -> None:
    """Raise `UserError` where a patient, or a study of no known patient, is in val and in test."""
    keys, units = _keys(_resolve_studies(table))
    val, test = (
        pd.Series(keys[(units != "image") & (table["split"] == name).to_numpy()]).value_counts()
        for name in SPLITS
    )
    if shared := sorted(set(val.index) & set(test.index)):
        named = (f"{key.replace(':', ' ', 1)} (val {val[key]}, test {test[key]})" for key in shared)
        listed = list_some(named, len(shared), MAX_ROWS_LISTED)
        rows = int(test[shared].sum())
        raise UserError(
            f"{counted(rows, 'test row')} {are(rows)} of patients or studies that are also in val "
            f"(rows of each: {listed}). Val chooses thresholds and temperature, which must not be "
            "measured on the same people. Keep each patient and study in one split; if a name "
            "stands for different ones, make it unique (for studies: add the column patient)."
        )


def _check(table: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise UserError(
            f"The predictions table lacks the column {missing[0]!r}; it needs "
            f"{', '.join(REQUIRED)} and one {PROB}<class> column per class. It has: "
            f"{', '.join(map(str, table.columns)) or 'none'}."
        )
    classes = classes_of(table)
    if len(classes) < 2:
        raise UserError(
            f"The predictions table has {len(classes)} column(s) named {PROB}<class>; "
            "at least two classes are needed."
        )
    if len(set(table.columns)) != len(table.columns):
        duplicate = table.columns[table.columns.duplicated()][0]
        raise UserError(f"The predictions table has the column {duplicate!r} more than once.")
    if not len(table):
        raise UserError("The predictions table has no rows.")
    _check_probabilities(table, classes)
    for column, allowed in (("split", SPLITS), ("label", classes)):
        wrong = ~table[column].isin(allowed).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"The predictions table's column {column!r} holds {table[column].iloc[row]!r} "
                f"{locate_row(table, row)}; allowed: {', '.join(allowed)}."
            )
    duplicates = table["path"].duplicated().to_numpy()
    if duplicates.any():
        path = table["path"].iloc[int(duplicates.argmax())]
        rows = np.flatnonzero((table["path"] == path).to_numpy())
        named = (f"{row} ({table['split'].iloc[row]})" for row in rows)
        others = int(table["path"][duplicates].nunique()) - 1
        also = f"; {counted(others, 'other path')} too" if others else ""
        raise UserError(
            f"The predictions table holds the path {path} more than once, in rows "
            f"{list_some(named, len(rows), MAX_ROWS_LISTED)}{also}. Each image counts once, in one "
            "split."
        )


def _check_probabilities(table: pd.DataFrame, classes: Sequence[str]) -> None:
    columns = [f"{PROB}{name}" for name in classes]
    for name in columns:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        # NaN fails the comparison too, so one test finds text, missing and out-of-range values.
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            row = int(wrong.argmax())
            value = table[name].iloc[row]
            value = repr(value) if isinstance(value, str) else str(value)
            raise UserError(
                f"The predictions table's column {name!r} holds {value} "
                f"{locate_row(table, row)}; a probability is a number from 0 to 1."
            )
    prob = table[columns].to_numpy(dtype=np.float64)
    total = prob.sum(axis=1)
    wrong = np.abs(total - 1) > SUM_TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"The {PROB}<class> columns of the predictions table sum to {total[row]:.6g} "
            f"{locate_row(table, row)}; they must sum to 1 (within {SUM_TOLERANCE:g})."
        )
    names = [f"{LOGIT}{name}" for name in classes]
    if not set(names) <= set(table.columns):
        return
    logits = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    expected = softmax(logits, axis=1)
    # NaN, from a logit that is not a finite number, fails the comparison too.
    wrong = ~(np.abs(expected - prob) <= LOGIT_TOLERANCE)
    if wrong.any():
        row, c = (int(index) for index in np.argwhere(wrong)[0])
        rows = int(wrong.any(axis=1).sum())
        raise UserError(
            f"The predictions table's columns contradict each other: {PROB}{classes[c]} is "
            f"{prob[row, c]:.6g} {locate_row(table, row)}, but the softmax of the {LOGIT}<class> "
            f"columns gives {expected[row, c]:.6g} there ({counted(rows, 'row')} differ by more "
            f"than {LOGIT_TOLERANCE:g}). Remove the {LOGIT}<class> columns if the probabilities "
            f"are calibrated, or the {PROB}<class> columns to compute them from the logits."
        )


def locate_row(table: pd.DataFrame, row: int) -> str:
    """Where a row is, for messages."""
    return f"in row {row} (path {table['path'].iloc[row]})"


def align(runs: Mapping[str, Predictions], split: str) -> dict[str, Predictions]:
    """The rows of one split of each run, sorted by path.

    Raises UserError for runs that differ in classes or their order, images, labels, or the grouping
    of images by patient and study.
    """
    parts = {name: rows_of_split(name, run, split) for name, run in runs.items()}
    _check_same_images(parts, split)
    parts = _with_same_copies(parts)
    first, reference = next(iter(parts.items()))
    for name, part in parts.items():
        labels, others = reference.table["label"], part.table["label"]
        wrong = (others != labels).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{first} and {name} have different labels for {int(wrong.sum())} of "
                f"{len(reference)} {split} images, for example "
                f"{part.table['path'].iloc[row]} ({labels.iloc[row]}, {others.iloc[row]})."
            )
        if (part.clusters.ids != reference.clusters.ids).any():
            raise UserError(
                f"{first} and {name} disagree on which {split} images belong to the same patient "
                "or study (columns patient and study of their predictions.csv), so they cannot be "
                "compared."
            )
    return parts


def _with_same_copies(parts: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The same rows, all with the `copies` of the part that knows most, such as after an audit."""
    known = {n: int(is_known(p.table[COPIES]).sum()) for n, p in parts.items() if COPIES in p.table}
    if not known:
        return dict(parts)
    copies = parts[max(known, key=lambda name: known[name])].table[COPIES].to_numpy()
    return {n: Predictions.trusted(p.table.assign(**{COPIES: copies})) for n, p in parts.items()}


def rows_of_split(name: str, run: Predictions, split: str) -> Predictions:
    """The rows of a split, sorted by path and renumbered; `name` is the run's, for messages."""
    table = run.table[run.table["split"] == split].sort_values("path").reset_index(drop=True)
    if not len(table):
        raise UserError(f"{name} has no {split} rows in its predictions.")
    return Predictions.trusted(table)


def list_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return list_some(names, len(names), MAX_RUNS_LISTED)


def names_by(
    runs: Mapping[str, Predictions], key: Callable[[Predictions], Key]
) -> dict[Key, list[str]]:
    """The names of the runs by what `key` gives for each."""
    names: dict[Key, list[str]] = {}
    for name, run in runs.items():
        names.setdefault(key(run), []).append(name)
    return names


def _check_same_images(parts: Mapping[str, Predictions], split: str) -> None:
    """Raise `UserError` for parts of different classes or images."""
    by_classes = names_by(parts, lambda part: part.classes)
    if len(by_classes) > 1:
        listed = (f"{list_names(names)}: {', '.join(c)}" for c, names in by_classes.items())
        raise UserError(
            f"The runs have different classes, or a different order of them ({'; '.join(listed)}). "
            "Only runs of the same task can be compared or averaged."
        )
    by_paths = names_by(parts, lambda part: tuple(part.table["path"]))
    if len(by_paths) > 1:
        (first_paths, firsts), (other_paths, others), *_ = by_paths.items()
        listed = (f"{list_names(names)}: {len(paths)} rows" for paths, names in by_paths.items())
        extra = sorted(set(other_paths) - set(first_paths))
        missing = sorted(set(first_paths) - set(other_paths))
        details = [
            f"{others[0]} {verb} {len(paths)} images {relation} {firsts[0]}, e.g. {paths[0]}"
            for verb, relation, paths in (("lacks", "of", missing), ("has", "not in", extra))
            if paths
        ]
        raise UserError(
            f"The runs have {len(by_paths)} different sets of {split} images "
            f"({'; '.join(listed)}). {'; '.join(details)}. Only metrics on the same images can be "
            "compared."
        )
