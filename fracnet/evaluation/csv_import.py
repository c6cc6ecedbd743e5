"""Predictions from any csv, with its columns mapped by name."""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.config.overrides import hydra_text
from fracnet.evaluation.predictions import (
    LOGIT,
    PROB,
    REQUIRED,
    Predictions,
    assemble,
    classes_of,
    is_known,
    locate_row,
)
from fracnet.utils.csv_table import read_csv
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.text import counted, list_some, near_miss, number_in

GROUPS = ("patient", "study", "region")
MAX_LABELS_LISTED = 8
"""Labels named in a message."""


def read_csv_predictions(
    path: Path,
    columns: Mapping[str, Any] | None = None,
    labels: Mapping[Any, str] | None = None,
) -> tuple[Predictions, list[str]]:
    """Read a csv of predictions; returns them and sentences on what was assumed.

    Args:
        path: the file. Its columns are text; an empty field is missing.
        columns: fracnet's name of a column -> the file's, such as {"label": "truth", "prob_normal":
            "p0"}. Other columns keep their names. The order of its prob_<class> is that of the
            classes. A single one is the positive class of two.
        labels: the file's labels -> names of classes, such as {0: "normal", 1: "abnormal"}. A
            class that it names counts even if no row has it.

    Without a split column every row is test; without a path column the rows are numbered; without
    prob_<class> columns the probabilities are computed from logit_<class>. Raises UserError for a
    file that is missing or no csv, a column that does not exist, a missing label or probability,
    labels that are not classes, and what `Predictions` rejects.
    """
    columns, labels = columns or {}, labels or {}
    file, notes = _read(path, columns)
    table = _rename(file, columns, path)
    if "label" not in table:
        raise UserError(
            f"table={path} has no column 'label' (the true class of each row); name it, as in "
            f"columns={{label: truth}}. The file has: {', '.join(file.columns)}."
        )
    if "path" not in table:
        table.insert(0, "path", [f"row {i:07d}" for i in range(1, len(table) + 1)])
        notes.append("The table has no column 'path': its rows are numbered.")
    if "split" not in table:
        table.insert(1, "split", "test")
        notes.append(
            "The table has no column 'split': every row is test, so nothing can be chosen."
        )
    table = table.assign(**{name: np.nan for name in GROUPS if name not in table})
    _check_filled(table, "label", columns, path)
    if labels:
        table["label"] = _apply_labels(table["label"], labels)
    if not {c for c in table.columns if c.startswith((PROB, LOGIT))}:
        raise UserError(
            f"table={path} has no column {PROB}<class> (the probability of a class); name them, as "
            "in columns={prob_normal: p0, prob_abnormal: p1}, or only the positive one of two "
            f"classes. The file has: {', '.join(file.columns)}."
        )
    table = _with_scores(table, columns, labels.values(), path)
    first = [str(c).removeprefix(PROB) for c in columns if str(c).startswith(PROB)]
    # In the order in which `columns` names them; others before, in the order of the file.
    classes = [*(name for name in classes_of(table) if name not in first), *first]
    others = [c for c in table.columns if not str(c).startswith((PROB, LOGIT))]
    logits = [f"{LOGIT}{name}" for name in classes]
    logits = logits if set(logits) <= set(table.columns) else []
    table = table[[*others, *logits, *(f"{PROB}{name}" for name in classes)]]
    if not table["label"].isin(classes).all():
        raise UserError(
            f"table={path}: the labels are {_list_labels(table['label'])}, but the classes, by the "
            f"columns {PROB}<class>, are {', '.join(classes)}. {_labels_hint(table, classes)}"
        )
    return Predictions(table), notes


def origin(
    path: Path, columns: Mapping[str, Any] | None, labels: Mapping[Any, str] | None
) -> dict[str, Any]:
    """The file that a table was read from: name, SHA-256, columns and labels as given."""
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "columns": dict(columns or {}),
        "labels": {str(label): name for label, name in (labels or {}).items()},
    }


def _read(path: Path, columns: Mapping[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """The cells, with fracnet's names of columns in fracnet's case, and notes on unread columns."""
    if not path.is_file():
        # Compares names without the ending, which all candidates may share.
        names = {p.stem: p.name for p in sorted(path.parent.glob("*")) if p.is_file()}
        near = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.7)
        hint = f" Did you mean '{names[near[0]]}'?" if near else ""
        raise UserError(f"table={path}: no such file.{hint}")
    try:
        table = read_csv(path)
    except UserError as error:
        raise UserError(f"table={path} is not a csv of predictions: {error}") from error
    mapped = {*map(str, columns), *map(str, columns.values())}
    known = {
        name: table.column_named(name, mapped)
        for name in (*REQUIRED, *GROUPS)
        if name not in mapped
    }
    notes = [
        f"The column {unread!r} is not read; if it names the {key}, use "
        f"{shlex.quote(f'columns={{{key}: {hydra_text(unread)}}}')}."
        for key in ("patient", "study")
        if known.get(key, "") is None and (unread := table.named_like(key, mapped))
    ]
    cells = pd.DataFrame(table.rows, columns=list(table.columns), dtype=object)
    cells = cells.rename(columns={found: name for name, found in known.items() if found})
    return cells.where(cells != "", np.nan), notes


def _rename(table: pd.DataFrame, columns: Mapping[str, Any], path: Path) -> pd.DataFrame:
    available = list(table.columns)
    for ours, theirs in columns.items():
        if str(theirs) not in available:
            raise UserError(
                f"columns.{ours}={theirs}: {path} has no such column; it has: "
                f"{', '.join(available)}." + near_miss(str(theirs), available)
            )
    names = {str(theirs): str(ours) for ours, theirs in columns.items()}
    if len(names) < len(columns):
        raise UserError("columns maps one of the file's columns to two of fracnet's.")
    # A column of the file that already has a name assigned to another one is dropped.
    keep = [name for name in available if name in names or name not in names.values()]
    return table[keep].rename(columns=names)


def _apply_labels(column: pd.Series, labels: Mapping[Any, str]) -> pd.Series:
    def key(value: Any) -> Any:
        """0, "0" and "0.0" are the same label."""
        number = number_in(str(value))
        return str(value) if number is None else number

    names: dict[Any, str] = {}
    for label, name in labels.items():
        if names.setdefault(key(label), name) != name:
            raise UserError(f"labels names {label} twice: {names[key(label)]} and {name}.")
    return column.map(lambda value: names.get(key(value), value), na_action="ignore")


def _check_filled(table: pd.DataFrame, name: str, columns: Mapping[str, Any], path: Path) -> None:
    empty = ~is_known(table[name])
    if n := int(empty.sum()):
        more = f" and in {counted(n - 1, 'other')}" if n > 1 else ""
        where = locate_row(table, int(empty.argmax()))
        raise UserError(
            f"table={path}: {_describe_column(name, columns)} is empty {where}{more}; every row "
            "needs a value."
        )


def _describe_column(name: str, columns: Mapping[str, Any]) -> str:
    """A column by the file's name, and by fracnet's where they differ."""
    theirs = str(columns.get(name, name))
    return f"the column {theirs!r}" + (f" ({name})" if theirs != name else "")


def _with_scores(
    table: pd.DataFrame, columns: Mapping[str, Any], named: Iterable[str], path: Path
) -> pd.DataFrame:
    """Probabilities as numbers, including those that follow from the given scores.

    `named` are classes that the user named besides the columns.
    """
    scores = [c for c in table.columns if c.startswith((PROB, LOGIT))]
    for name in scores:
        _check_filled(table, name, columns, path)
        numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        valid, rule = numbers.between(0, 1).to_numpy(), "a probability is a number from 0 to 1"
        if name.startswith(LOGIT):
            valid, rule = np.isfinite(numbers.to_numpy()), "a logit is a finite number"
        if not valid.all():
            row = int(valid.argmin())
            raise UserError(
                f"table={path}: {_describe_column(name, columns)} holds {table[name].iloc[row]!r} "
                f"{locate_row(table, row)}; {rule}."
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
                f"table={path} has only the probability of {positive!r}, so its labels must be "
                f"{positive!r} and one other; they are: {_list_labels({*table['label'], *named})}."
                f" {_labels_hint(table, [positive])}"
            )
        position = int(table.columns.get_loc(probs[0]))  # type: ignore[arg-type]
        table.insert(position, f"{PROB}{others[0]}", 1 - table[probs[0]])
    return table


def _labels_hint(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """How to map labels to classes; filled in only where the names are the same."""
    same = {name.casefold(): name for name in classes}
    labels = sorted({str(value) for value in table["label"]})
    form = "<label>: <class>, ..."
    if len(labels) <= MAX_LABELS_LISTED and any(label.casefold() in same for label in labels):
        form = ", ".join(f"{label}: {same.get(label.casefold(), '<class>')}" for label in labels)
    return f"Map labels to classes with labels={{{form}}}."


def _list_labels(labels: Iterable[Any]) -> str:
    names = sorted({str(label) for label in labels})
    return list_some(names, len(names), MAX_LABELS_LISTED)
