"""The manifest: one table, one row per image, that all later stages read instead of folders."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fracnet.data.splits import SPLITS, group_overlap
from fracnet.utils.errors import UserError
from fracnet.utils.files import path_from_text, write_atomically
from fracnet.utils.text import counted, list_some, one_line

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
SHAPE_COLUMNS = ("polygons", "boxes")
SIZE_COLUMNS = ("width", "height")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Manifest:
    """A dataset as fracnet sees it.

    table: RangeIndex, columns COLUMNS and any further ones of the dataset. `path` is POSIX and
        relative to `root`, with bytes that are not UTF-8 as `\\xe9` (see `file`); `split` is train,
        val or test; `label` is a class name; patient and study are ids as text, unique in the
        dataset. polygons are None or a list of
        {"label": class name, "points": [[x, y], ...]} in shares of width and height (0..1); boxes
        are the same with two points, the upper left and the lower right corner. width and height
        are pixels of the file (Int64). Unknown values are missing: NaN, None or <NA>.
    classes: their order is the index of the logit; binary tasks have the positive class last.
    groups: where patient and study come from, or "unknown".
    excluded: what was excluded, columns split, reason, n.
    notes: what users of the data must know; printed with every run.
    split_note: the note on how the validation split was made, which folds replace.
    missing: a sentence on listed images that do not exist, which may explain an error of `check`.
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
    missing: str = ""

    def file(self, path: str) -> Path:
        """The file of a `path` of the table."""
        return path_from_text(self.root, path)

    def targets(self) -> npt.NDArray[np.int64]:
        """Class indices, int64 [N], in the order of the rows."""
        codes = pd.Categorical(self.table["label"], categories=list(self.classes)).codes
        assert (codes >= 0).all(), "a label is not one of the classes: call check() first"
        return codes.astype(np.int64)

    def check(self) -> None:
        """Raise UserError for anything that would make training or its metrics meaningless."""
        table, name, where = self.table, self.name, f"{self.name} in {self.root}"
        missing_images = f"{self.missing} " if self.missing else ""
        if missing := [column for column in COLUMNS if column not in table.columns]:
            raise UserError(f"The manifest of {name} lacks the columns {', '.join(missing)}.")
        _raise_for_rows(
            table.loc[~table["split"].isin(SPLITS)],
            f"The manifest of {name} has an unknown split; allowed are {', '.join(SPLITS)}",
            "split",
        )
        _raise_for_rows(
            table.loc[~table["label"].isin(self.classes)],
            f"The manifest of {name} has a label that is not one of {', '.join(self.classes)}",
            "label",
        )
        _raise_for_rows(
            table.loc[table["path"].duplicated()],
            f"The manifest of {name} lists the same file twice",
            "split",
        )
        counts = table["split"].value_counts()
        if empty := [split for split in SPLITS if split not in counts.index]:
            images = ", ".join(f"{split} {counts.get(split, 0)}" for split in SPLITS)
            raise UserError(
                f"{missing_images}{where} has no labeled image in the split "
                f"{' and '.join(empty)} (images: {images}); train, val and test need at least one "
                "each."
            )
        trained = set(table.loc[table["split"] == "train", "label"])
        if untrained := [label for label in self.classes if label not in trained]:
            raise UserError(
                f"{missing_images}{where} has no train image of the class "
                f"{', '.join(untrained)}; each of {', '.join(self.classes)} needs at least one."
            )
        overlap = group_overlap(table)
        if len(overlap):
            groups = (f"{row.unit} {row.group} ({row.splits})" for row in overlap.itertuples())
            raise UserError(
                f"{where} has {counted(len(overlap), 'group')} in more than one split, so test "
                f"metrics would be too good: {list_some(groups, len(overlap))}."
            )


def without_rows(manifest: Manifest, rows: Collection[int], reason: str) -> Manifest:
    """The manifest without some rows, which count as excluded for `reason`."""
    if not rows:
        return manifest
    table = manifest.table
    counts = table.loc[list(rows)].groupby("split").size()
    excluded = manifest.excluded.to_dict("records")
    excluded += [{"split": split, "reason": reason, "n": int(n)} for split, n in counts.items()]
    return replace(
        manifest,
        table=table.drop(index=list(rows)).reset_index(drop=True),
        excluded=pd.DataFrame(excluded, columns=["split", "reason", "n"]),
    )


def _raise_for_rows(rows: pd.DataFrame, message: str, column: str) -> None:
    if len(rows):
        names = (
            f"{path} ({value})" for path, value in zip(rows["path"], rows[column], strict=True)
        )
        raise UserError(f"{message}: {list_some(names, len(rows))}.")


def with_manifest_types(table: pd.DataFrame) -> pd.DataFrame:
    """The table with RangeIndex and the manifest's dtypes; lacking columns are added as missing.

    Text is object with NaN, shapes are object with None, pixels Int64.
    """
    table = table.reset_index(drop=True)
    for column in COLUMNS:
        values = list(table[column]) if column in table.columns else [None] * len(table)
        if column in SIZE_COLUMNS:
            table[column] = pd.array(values, dtype="Int64")
            continue
        missing = None if column in SHAPE_COLUMNS else np.nan
        objects = [missing if not isinstance(v, list) and pd.isna(v) else v for v in values]
        table[column] = pd.Series(objects, dtype=object)
    others = [column for column in table.columns if column not in COLUMNS]
    for column in others:
        if isinstance(table[column].dtype, pd.StringDtype):  # pandas 3 infers it, 2 does not
            table[column] = table[column].astype(object).where(table[column].notna(), np.nan)
    return table[[*COLUMNS, *others]]


def serialize(table: pd.DataFrame) -> pd.DataFrame:
    """A copy for CSV: polygons and boxes as JSON text, missing ones as None."""
    table = table.copy()
    for column in SHAPE_COLUMNS:
        table[column] = pd.Series(
            [None if shapes is None else json.dumps(shapes) for shapes in table[column]],
            index=table.index,
            dtype=object,
        )
    return table


def write_table(table: pd.DataFrame, path: Path | str) -> None:
    """Write a manifest or predictions table as CSV; `read_table` restores it exactly."""
    write_atomically(Path(path), serialize(table).to_csv(index=False, lineterminator="\n"))


def read_table(path: Path | str) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Ids stay text ("007"), only an empty field is missing ("NA" is a name), numbers are exact.
    Further columns become int64, float64 or bool if every value can be read as such, else text.
    Manifest columns that the file lacks are added as missing.

    Raises UserError for a file that is damaged or no such table, OSError for one that is missing.
    """
    try:
        return _read_table(path)
    # Of pandas for torn rows, and of cells that hold no number or no shape.
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)[:300]}.") from error


def _read_table(path: Path | str) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""])
    for column, texts in table.items():
        if column in SIZE_COLUMNS:
            table[column] = [None if pd.isna(text) else int(text) for text in texts]
        elif column in SHAPE_COLUMNS:
            shapes = [json.loads(text) if isinstance(text, str) else None for text in texts]
            table[column] = pd.Series(shapes, index=table.index, dtype=object)
        elif column not in COLUMNS:
            table[column] = _infer_numbers(texts)
    return with_manifest_types(table)


def _infer_numbers(texts: pd.Series) -> pd.Series:
    # Not left to read_csv: in some versions of pandas its floats are off in the last digit.
    known = texts.notna()
    if known.all() and texts.isin(["True", "False"]).all():
        return texts == "True"
    try:
        if known.all() and all(str(int(text)) == text for text in texts):
            return texts.astype(np.int64)
    except ValueError:
        pass  # not whole numbers; perhaps floats
    # Not float alone: it reads the word nan as missing, and 1_0 as 10.
    if not all(NUMBER.fullmatch(text) for text in texts[known]):
        return texts
    values = [float(text) for text in texts]
    return pd.Series(values, index=texts.index, dtype=np.float64)
