"""The manifest: one table, a row an image, that everything downstream reads instead of folders."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data.splits import SPLITS, group_overlap
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

COLUMNS = (
    "path",
    "split",
    "label",
    "patient",
    "study",
    "region",
    "polygons",
    "boxes",
    "width",
    "height",
)
TEXT = ("path", "split", "label", "patient", "study", "region")
SHAPES = ("polygons", "boxes")
PIXELS = ("width", "height")


@dataclass(frozen=True)
class Manifest:
    """A data set as fracnet sees it.

    table: RangeIndex, columns COLUMNS and any further ones of the source. `path` is POSIX and
        relative to `root`; `split` one of train, val, test; `label` a class name; patient and
        study are ids as text, unique over the data set. polygons are None or a list of
        {"label": class name, "points": [[x, y], ...]} in shares of width and height (0..1); boxes
        are the same with two points, the upper left and the lower right corner. width and height
        are pixels of the file (Int64). What is not known is missing: NaN, None or <NA>.
    classes: the order is the index of the logit; binary tasks have the positive class last.
    groups: where patient and study come from, or "unknown".
    excluded: the flow of exclusions, columns split, reason, n.
    notes: what whoever uses the data must know; printed with every run.
    split_note: the one of them that tells how validation was made, which folds make untrue.
    """

    table: pd.DataFrame
    root: Path
    classes: tuple[str, ...]
    task: Literal["multiclass", "binary"]
    name: str
    license: str
    citation: str
    groups: str
    excluded: pd.DataFrame
    notes: tuple[str, ...] = ()
    split_note: str | None = None

    def targets(self) -> npt.NDArray[np.int64]:
        """Class indices, int64 [N], in the order of the rows."""
        codes = pd.Categorical(self.table["label"], categories=list(self.classes)).codes
        assert (codes >= 0).all(), "a label outside the classes: call check() first"
        return codes.astype(np.int64)

    def check(self) -> None:
        """Raise UserError for whatever would make training or its numbers meaningless."""
        table, name = self.table, self.name
        if lacking := [column for column in COLUMNS if column not in table.columns]:
            raise UserError(f"The manifest of {name} lacks the columns {', '.join(lacking)}.")
        allowed = f"allowed are {', '.join(SPLITS)}"
        _refuse(
            table.loc[~table["split"].isin(SPLITS)],
            f"The manifest of {name} has an unknown split, {allowed}",
            "split",
        )
        _refuse(
            table.loc[~table["label"].isin(self.classes)],
            f"The manifest of {name} has a label outside its classes {', '.join(self.classes)}",
            "label",
        )
        _refuse(
            table.loc[table["path"].duplicated()],
            f"The manifest of {name} lists the same file twice",
            "split",
        )
        counts = table["split"].value_counts()
        if empty := [split for split in SPLITS if split not in counts.index]:
            have = ", ".join(f"{split} {counts.get(split, 0)}" for split in SPLITS)
            raise UserError(
                f"{name} in {self.root} has no labeled image in the split {' and '.join(empty)} "
                f"(images: {have}); train, val and test need at least one each."
            )
        trained = set(table.loc[table["split"] == "train", "label"])
        if untrained := [label for label in self.classes if label not in trained]:
            raise UserError(
                f"{name} in {self.root} has no train image of the class {', '.join(untrained)}; "
                f"each of {', '.join(self.classes)} needs at least one."
            )
        overlap = group_overlap(table)
        if len(overlap):
            told = (f"{row.unit} {row.group} ({row.splits})" for row in overlap.itertuples())
            raise UserError(
                f"{name} in {self.root} has {counted(len(overlap), 'group')} in more than one "
                f"split, so its test figures would be too good: {listed(told, len(overlap))}."
            )


def without_rows(manifest: Manifest, rows: Collection[int], reason: str) -> Manifest:
    """The manifest without some rows, which are counted as excluded for `reason`."""
    if not rows:
        return manifest
    table = manifest.table
    lost = table.loc[list(rows)].groupby("split").size()
    more = [{"split": split, "reason": reason, "n": int(n)} for split, n in lost.items()]
    excluded = manifest.excluded.to_dict("records") + more
    return replace(
        manifest,
        table=table.drop(index=list(rows)).reset_index(drop=True),
        excluded=pd.DataFrame(excluded, columns=["split", "reason", "n"]),
    )


def listed(items: Iterable[str], total: int, limit: int = 10) -> str:
    """The first `limit` of `total` items, then how many more there are."""
    shown = [item for item, _ in zip(items, range(limit), strict=False)]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _refuse(rows: pd.DataFrame, what: str, column: str) -> None:
    if len(rows):
        told = (f"{path} ({value})" for path, value in zip(rows["path"], rows[column], strict=True))
        raise UserError(f"{what}: {listed(told, len(rows))}.")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with RangeIndex and the manifest's dtypes; columns it lacks are added as missing.

    Text is object with NaN, shapes are object with None, pixels Int64.
    """
    table = table.reset_index(drop=True)
    for column in COLUMNS:
        held = list(table[column]) if column in table.columns else [None] * len(table)
        if column in PIXELS:
            table[column] = pd.array(held, dtype="Int64")
            continue
        missing = None if column in SHAPES else np.nan
        values = np.empty(len(held), dtype=object)
        for row, value in enumerate(held):
            values[row] = missing if not isinstance(value, list) and pd.isna(value) else value
        table[column] = pd.Series(values, dtype=object)
    further = [column for column in table.columns if column not in COLUMNS]
    for column in further:
        if isinstance(table[column].dtype, pd.StringDtype):  # pandas 3 infers it, 2 does not
            table[column] = table[column].astype(object).where(table[column].notna(), np.nan)
    return table[[*COLUMNS, *further]]


def serialize(table: pd.DataFrame) -> pd.DataFrame:
    """A copy that CSV can hold: polygons and boxes as JSON text, missing ones as None."""
    table = table.copy()
    for column in SHAPES:
        table[column] = pd.Series(
            [None if shapes is None else json.dumps(shapes) for shapes in table[column]],
            index=table.index,
            dtype=object,
        )
    return table


def deserialize(table: pd.DataFrame) -> pd.DataFrame:
    """The inverse of `serialize`, with the manifest's dtypes restored (see `typed`)."""
    table = table.copy()
    for column in SHAPES:
        parsed = np.empty(len(table), dtype=object)
        for row, text in enumerate(table[column]):
            parsed[row] = json.loads(text) if isinstance(text, str) else None
        table[column] = pd.Series(parsed, index=table.index, dtype=object)
    return typed(table)


def write_table(table: pd.DataFrame, path: Path | str) -> None:
    """Write a manifest or predictions table as CSV; `read_table` gives it back exactly."""
    serialize(table).to_csv(path, index=False, lineterminator="\n")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Ids stay text ("007"), only an empty field is missing ("NA" is a name), numbers are exact. The
    source's own columns become int64, float64 or bool where every value reads as such, else text.
    The manifest's columns are added as missing where the file lacks them.
    """
    table = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""])
    table = table.assign(**{name: np.nan for name in COLUMNS if name not in table})
    for column in table.columns:
        if column not in COLUMNS:
            table[column] = _numbers_if_so(table[column])
    for column in PIXELS:
        held = [None if pd.isna(text) else int(text) for text in table[column]]
        table[column] = pd.array(held, dtype="Int64")
    return deserialize(table)


def _numbers_if_so(texts: pd.Series) -> pd.Series:
    # Not left to read_csv: its floats are off by a last digit in some versions of pandas.
    known = texts.notna()
    if known.all() and texts.isin(["True", "False"]).all():
        return texts == "True"
    try:
        if known.all() and all(str(int(text)) == text for text in texts):
            return texts.astype(np.int64)
    except ValueError:
        pass  # no whole numbers; perhaps others
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return texts
    return pd.Series(values, index=texts.index, dtype=np.float64)
