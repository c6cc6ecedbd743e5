"""Anyone's predictions as a predictions table: a plain csv, its columns mapped by name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.config.instantiate import near_miss
from fracnet.evaluation.predictions import LOGIT, PROB, assemble, check, classes_of, known, place
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.text import counted

OURS = ("path", "split", "label", "patient", "study", "region")
GROUPS = ("patient", "study", "region")

# Labels named in a message.
MOST = 8


def load(
    path: Path,
    columns: Mapping[str, Any] | None = None,
    labels: Mapping[Any, str] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Read a csv of predictions; also sentences on what was assumed.

    Args:
        path: the file. Its columns are text; an empty field is missing.
        columns: fracnet's name of a column -> the file's, such as {"label": "truth", "prob_normal":
            "p0"}. Columns that it does not name keep their own names. The order of its prob_<class>
            is that of the classes. One alone is the positive class of two.
        labels: the file's labels -> names of classes, such as {0: "normal", 1: "abnormal"}. A
            class that it names counts, though no row may have it.

    Returns:
        A table that `check` accepts. Without a split column every row is test; without a path
        column the rows are numbered; from logit_<class> alone the probabilities are made.

    Raises:
        UserError: no such file, no csv, a column that is not there, a label or probability that is
            missing, labels that are no classes.
    """
    read = _read(path)
    table = _renamed(read, columns or {}, path)
    notes = []
    if "label" not in table:
        raise UserError(
            f"table={path} has no column 'label', the truth of each row; name it, as in "
            f"columns={{label: truth}}. The file has: {', '.join(read.columns)}."
        )
    if "path" not in table:
        table.insert(0, "path", [f"row {i:07d}" for i in range(1, len(table) + 1)])
        notes.append("The table has no column 'path': its rows are numbered.")
    if "split" not in table:
        table.insert(1, "split", "test")
        notes.append(
            "The table has no column 'split': every row is test, so nothing can be chosen."
        )
    for name in GROUPS:
        if name not in table:
            table[name] = np.nan
    _check_filled(table, "label", columns or {}, path)
    if labels:
        table["label"] = _named(table["label"], labels)
    if not {c for c in table.columns if c.startswith((PROB, LOGIT))}:
        raise UserError(
            f"table={path} has no column {PROB}<class>, a class's probability; name them, as in "
            "columns={prob_normal: p0, prob_abnormal: p1}, or the positive one of two classes "
            f"alone. The file has: {', '.join(read.columns)}."
        )
    table = _with_scores(table, columns or {}, (labels or {}).values(), path)
    names = _ordered([c for c in columns or {} if str(c).startswith(PROB)], classes_of(table))
    others = [c for c in table.columns if not str(c).startswith((PROB, LOGIT))]
    logits = [f"{LOGIT}{n}" for n in names if f"{LOGIT}{n}" in table]
    if len(logits) < len(names):
        logits = []
    table = table[[*others, *logits, *(f"{PROB}{name}" for name in names)]]
    _check_labels(table, names, path)
    check(table)
    return table, notes


def origin(
    path: Path, columns: Mapping[str, Any] | None, labels: Mapping[Any, str] | None
) -> dict[str, Any]:
    """Which file a table was read from, and how: name, SHA-256, columns and labels as given."""
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "columns": dict(columns or {}),
        "labels": {str(theirs): name for theirs, name in (labels or {}).items()},
    }


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"table={path}: there is no such file.{_near_file(path)}")
    try:
        table = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"table={path} is no csv with a header ({error}).") from error
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _renamed(table: pd.DataFrame, columns: Mapping[str, Any], path: Path) -> pd.DataFrame:
    found = list(table.columns)
    for ours, theirs in columns.items():
        if str(theirs) not in found:
            raise UserError(
                f"columns.{ours}={theirs}: {path} has no such column; it has: {', '.join(found)}."
                + near_miss(str(theirs), found)
            )
    back = {str(theirs): str(ours) for ours, theirs in columns.items()}
    if len(back) < len(columns):
        raise UserError("columns names one of the file's columns for two of fracnet's.")
    # A column of the file that has the name which another is given makes way.
    kept = [name for name in found if name in back or name not in back.values()]
    return table[kept].rename(columns=back)


def _named(column: pd.Series, labels: Mapping[Any, str]) -> pd.Series:
    def text(value: Any) -> str:
        """0, "0" and "0.0" are one label."""
        try:
            return f"{float(value):g}"
        except ValueError:
            return str(value)

    known = {text(theirs): name for theirs, name in labels.items()}
    return column.map(lambda value: known.get(text(value), value), na_action="ignore")


def _check_filled(table: pd.DataFrame, name: str, columns: Mapping[str, Any], path: Path) -> None:
    empty = ~known(table[name])
    if empty.any():
        n, row = int(empty.sum()), int(np.flatnonzero(empty)[0])
        more = f" and in {counted(n - 1, 'other')}"
        raise UserError(
            f"table={path}: {_called(name, columns)} is empty {place(table, row)}"
            f"{more if n > 1 else ''}; each row needs it."
        )


def _called(name: str, columns: Mapping[str, Any]) -> str:
    """A column by the file's name, and by fracnet's where that is another."""
    theirs = str(columns.get(name, name))
    return f"the column {theirs!r}" + (f" ({name})" if theirs != name else "")


def _with_scores(
    table: pd.DataFrame, columns: Mapping[str, Any], named: Iterable[str], path: Path
) -> pd.DataFrame:
    """Probabilities as numbers, and those that follow from what there is.

    `named` are classes that the user has named besides the columns.
    """
    scores = [c for c in table.columns if c.startswith((PROB, LOGIT))]
    for name in scores:
        _check_filled(table, name, columns, path)
        numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        whole = np.isfinite(numbers) if name.startswith(LOGIT) else numbers.between(0, 1)
        if not whole.all():
            row = int(np.flatnonzero(~whole)[0])
            wanted = "a probability is a number from 0 to 1"
            if name.startswith(LOGIT):
                wanted = "a logit is a finite number"
            raise UserError(
                f"table={path}: {_called(name, columns)} holds {table[name].iloc[row]!r} "
                f"{place(table, row)}; {wanted}."
            )
        table[name] = numbers
    probs = [c for c in scores if c.startswith(PROB)]
    logits = [c for c in scores if c.startswith(LOGIT)]
    if not probs:
        names = [c.removeprefix(LOGIT) for c in logits]
        rest = table.drop(columns=logits)
        return assemble(rest, names, table[logits].to_numpy(dtype=np.float64))
    if len(probs) == 1:
        positive = probs[0].removeprefix(PROB)
        others = sorted({*table["label"], *named} - {positive})
        if len(others) != 1:
            raise UserError(
                f"table={path} has the probability of {positive!r} alone, so its labels must be "
                f"{positive!r} and one other; they are: {_few({*table['label'], *named})}."
                f" {_labels_hint(table, [positive])}"
            )
        left = int(table.columns.get_loc(probs[0]))  # type: ignore[arg-type]
        table.insert(left, f"{PROB}{others[0]}", 1 - table[probs[0]])
    return table


def _ordered(wanted: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Classes in the order in which `columns` names them; others before, as the file has them."""
    named = [str(name).removeprefix(PROB) for name in wanted]
    return [*(name for name in classes if name not in named), *named]


def _check_labels(table: pd.DataFrame, classes: Sequence[str], path: Path) -> None:
    wrong = ~table["label"].isin(classes)
    if wrong.any():
        raise UserError(
            f"table={path}: the labels are {_few(set(table['label']))}, and the classes, by "
            f"the columns {PROB}<class>, {', '.join(classes)}. {_labels_hint(table, classes)}"
        )


def _labels_hint(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """How to say which label is which class; filled in only where the names are the same."""
    same = {name.casefold(): name for name in classes}
    theirs = sorted({str(value) for value in table["label"]})
    form = "<label>: <class>, ..."
    if len(theirs) <= MOST and any(label.casefold() in same for label in theirs):
        form = ", ".join(f"{label}: {same.get(label.casefold(), '<class>')}" for label in theirs)
    return f"Say which label is which class with labels={{{form}}}."


def _few(found: Iterable[Any]) -> str:
    values = sorted({str(value) for value in found})
    return ", ".join(values[:MOST]) + (f" and {len(values) - MOST} more" * (len(values) > MOST))


def _near_file(path: Path) -> str:
    """A file of the folder whose name but for the ending is near; all share the ending."""
    here = {p.stem: p.name for p in sorted(path.parent.glob("*")) if p.is_file()}
    near = difflib.get_close_matches(path.stem, here, n=1, cutoff=0.7)
    return f" Did you mean '{here[near[0]]}'?" if near else ""
