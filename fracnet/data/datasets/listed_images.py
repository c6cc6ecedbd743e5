"""The images that a CSV file of the user names, with their labels, splits, ids and boxes."""

import json
import math
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fracnet.config.overrides import hydra_text
from fracnet.data.datasets.base import header_sizes
from fracnet.data.datasets.names import split_named, visible
from fracnet.data.image_io import class_without_image
from fracnet.utils.csv_table import Table, listed_path, read_csv
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.text import counted, list_some

COLUMNS = ("path", "label", "split", "patient", "study", "region", "boxes")


@dataclass
class Images:
    """rows: path, label, and what else is known. splits: those in the data.

    missing: a sentence on listed images that do not exist.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    splits: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    excluded: Counter[tuple[str, str]] = field(default_factory=Counter)
    missing: str = ""


def read_listed(roots: tuple[Path, Path], csv: Path, columns: Mapping[str, str | None]) -> Images:
    """Images that a CSV names. Raises UserError naming the lines.

    roots: the folder of the data, resolved and as the user wrote it; relative paths start there.
    """
    root = roots[0]
    table = read_csv(csv if csv.is_absolute() else root / csv)
    column = {key: columns.get(key) or table.column_named(key) or key for key in ("path", "label")}
    named = [name for name in columns.values() if name]
    for key in COLUMNS[2:]:
        # A split is never ignored, whatever else its column is.
        if chosen := columns.get(key) or table.column_named(key, () if key == "split" else named):
            column[key] = chosen
    for key, name in column.items():
        table.require([name], f" Name the right one with data.columns.{key}=...")
    split_notes = [] if "split" in column else _find_split(table, column)
    paths, missing = _paths(table, column["path"], roots)
    splits = _splits(table, column["split"]) if "split" in column else None
    ids = {  # a column without any value is the same as no column
        key: column[key]
        for key in ("patient", "study", "region")
        if key in column and any(cells[column[key]] for cells in table.rows)
    }
    images = Images(splits=set(splits or []), missing=missing)
    images.notes += [*filter(None, [missing]), *split_notes]
    for key in ("patient", "study"):
        if key in ids:
            images.notes += _unify_ids(table, ids[key], key)
        elif key not in column and (unread := table.named_like(key, column.values())):
            images.notes.append(
                f"{table.path}: the column {unread!r} is not read; if it names the {key}, set "
                f"{_typed_column(key, unread)}."
            )
    bad_boxes = []
    for i, cells in enumerate(table.rows):
        split = splits[i] if splits else None
        if not cells[column["label"]]:
            images.excluded[split or "none", "no label"] += 1
            continue
        if kind := class_without_image(root / paths[i]):
            images.excluded[split or "none", f"no image ({kind})"] += 1
            continue
        row: dict[str, Any] = {"path": paths[i], "label": cells[column["label"]]}
        row |= {key: cells[name] or None for key, name in ids.items()}
        if split:
            row["split"] = split
        if "boxes" in column:
            try:
                row["boxes"] = _boxes(cells[column["boxes"]], row["label"], root / paths[i])
            except ValueError:
                bad_boxes.append(i)
        images.rows.append(row)
    expected = "[[x0, y0, x1, y1], ...], upper left and lower right corner, inside the image"
    table.reject(bad_boxes, column.get("boxes", ""), expected)
    if not images.rows:
        raise DataFault(f"{table.path}: no line has a label in the column {column['label']!r}.")
    if splits and "train" not in images.splits:
        raise DataFault(f"{table.path}: no line belongs to the split train.")
    return images


def _paths(table: Table, column: str, roots: tuple[Path, Path]) -> tuple[list[str], str]:
    """Paths relative to the root, and a sentence on those that do not exist.

    None may lead out of the root, and at least one must exist.
    """
    root = roots[0]
    paths, outside = [], []
    for i, cells in enumerate(table.rows):
        path = _path_inside(listed_path(cells[column], root), roots) if cells[column] else None
        if path is None:
            outside.append(i)
        else:
            paths.append(path)
    table.reject(outside, column, f"a file in {root}")
    missing = [path for path in paths if not (root / path).is_file()]
    if len(missing) == len(paths):
        raise UserError(
            f"{table.path}: none of its {len(paths)} images exists, e.g. {root / paths[0]}. "
            f"The column {column!r} must hold paths relative to data.root."
        )
    if not missing:
        return paths, ""
    return paths, (
        f"{table.path} lists {counted(len(paths), 'image')}, of which {len(missing)} "
        f"{'does' if len(missing) == 1 else 'do'} not exist "
        f"({list_some(missing, len(missing), 3)})."
    )


def _path_inside(path: Path, roots: tuple[Path, Path]) -> str | None:
    """The path relative to the root: as written, else without links; None if it is outside."""
    written = Path(os.path.normpath(path))
    for candidate in (written, written.parent.resolve() / written.name, written.resolve()):
        for root in roots:
            if candidate.is_relative_to(root) and candidate != root:
                return candidate.relative_to(root).as_posix()
    return None


def _splits(table: Table, column: str) -> list[str]:
    splits = [split_named(cells[column]) for cells in table.rows]
    wrong = [i for i, split in enumerate(splits) if split is None]
    table.reject(wrong, column, "train, val (or valid) or test")
    return [split for split in splits if split]


def _find_split(table: Table, column: dict[str, str]) -> list[str]:
    """Add a column subset that holds splits to `column`; notes on it and on others with splits."""
    found: dict[str, str] = {}
    for name in table.columns:
        cells = {row[name] for row in table.rows}
        splits = {split_named(cell) for cell in cells}
        if None not in splits and "train" in splits and len(splits) > 1:
            found[name] = ", ".join(sorted(cells))
    unread = [name for name in found if name not in column.values()]
    subsets = [name for name in unread if name.casefold() == "subset"]
    if len(subsets) == 1:
        column["split"] = subsets[0]
        return [f"{table.path}: the column {subsets[0]!r} is used as the split."]
    return [
        f"{table.path}: the column {name!r} holds {found[name]} but is not read; to use it as the "
        f"split, set {_typed_column('split', name)}."
        for name in unread
    ]


def _typed_column(key: str, name: str) -> str:
    """What to type in a shell to read a column."""
    return shlex.quote(f"data.columns.{key}={hydra_text(name)}")


def _unify_ids(table: Table, column: str, key: str) -> list[str]:
    """Give ids that only look different (12 and 12.0) one spelling; notes on them, and on others.

    Ids that differ in case or in leading zeros may be of different people: they stay as they are.
    """
    same: dict[str, set[str]] = defaultdict(set)
    similar: dict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        text = row[column]
        plain = re.sub(r"^(\d+)\.0+$", r"\1", visible(text))
        same[plain].add(text)
        similar[plain.casefold().lstrip("0") or plain].add(plain)
    spelling = {
        text: min(texts, key=lambda text: (len(text), text))
        for texts in same.values()
        for text in texts
    }
    for row in table.rows:
        row[column] = spelling[row[column]]

    def pairs(spellings: Mapping[str, set[str]]) -> str:
        several = [
            " and ".join(map(repr, sorted(ids))) for ids in spellings.values() if len(ids) > 1
        ]
        return list_some(sorted(several), len(several), 3)

    notes = []
    if listed := pairs(same):
        notes.append(f"{table.path}: the {key} ids {listed} count as one each.")
    if listed := pairs(similar):
        notes.append(
            f"{table.path}: the {key} ids {listed} count as different; write those that are the "
            "same in one way."
        )
    return notes


def _boxes(text: str, label: str, image: Path) -> list[Any] | None:
    """JSON [[x0, y0, x1, y1], ...]: in shares if no number is above 1, else in pixels.

    Raises ValueError for anything else.
    """
    if not text:
        return None
    try:
        boxes = [[float(number) for number in box] for box in json.loads(text)]
    except TypeError as error:
        raise ValueError("no list of lists of numbers") from error
    if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in boxes):
        raise ValueError("not four finite numbers")
    if max((number for box in boxes for number in box), default=0) > 1:
        size = header_sizes([image])[0]
        if size is None:  # on_bad_file applies when the pixels are read
            return None
        boxes = [[n / size[place % 2] for place, n in enumerate(box)] for box in boxes]
    if not all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes):
        raise ValueError("outside the image")
    return [{"label": label, "points": [box[:2], box[2:]]} for box in boxes] or None
