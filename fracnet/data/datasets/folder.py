"""Any data set of the user's own: class folders, or a csv that names the images.

The layouts of a user's own data: class folders, and a csv that names the images.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fracnet.config.instantiate import near_miss
from fracnet.data.datasets.base import (
    OwnSplit,
    contents,
    files_below,
    header_sizes,
    is_image,
    subfolders,
)
from fracnet.data.datasets.csv_table import Table, read_csv
from fracnet.data.manifest import Manifest, listed
from fracnet.data.splits import SPLITS
from fracnet.utils.errors import DataFault, UserError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
SPLITS_TOLD = "train, val (or valid) and test"


@dataclass
class Found:
    """rows: path, label, and what else is known. splits: those that the data have."""

    rows: list[dict[str, Any]]
    splits: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    excluded: Counter[tuple[str, str]] = field(default_factory=Counter)


def read_class_folders(root: Path) -> Found:
    """Images of root/class/** or root/split/class/**. Raises DataFault for a mixture."""
    entries = subfolders(root)
    split_of = {e.name: SPLIT_NAMES.get(e.name.lower()) for e in entries}
    splits = {split for split in split_of.values() if split}
    found = Found([], splits)
    if not splits:
        for entry in entries:
            _add_class(found, root, entry, None)
    else:
        if other := [name for name, split in split_of.items() if split is None]:
            raise DataFault(
                f"{root} has folders of splits ({', '.join(set(split_of) - set(other))}) and "
                f"others ({listed(other, len(other), 6)}). Move the others away, or class folders "
                "into a split."
            )
        if len(splits) < len(entries):
            raise DataFault(f"{root} has two folders for one split: {', '.join(split_of)}.")
        if "train" not in splits:
            raise DataFault(f"{root} has no folder train, but {', '.join(split_of)}.")
        for entry in entries:
            if not subfolders(entry):
                raise DataFault(f"{entry} has no class folders; {contents(entry)}.")
            for folder in subfolders(entry):
                _add_class(found, root, folder, split_of[entry.name])
        _refuse_differing_classes(root, found)
    if not found.rows:
        raise UserError(f"{root} has no image in its folders {', '.join(split_of)}.")
    return found


def _add_class(found: Found, root: Path, folder: Path, split: str | None) -> None:
    others = 0
    for path in files_below(folder, root):
        if not is_image(os.path.join(root, path)):
            others += 1
            continue
        row = {"path": path, "label": folder.name}
        found.rows.append(row | ({"split": split} if split else {}))
    if others:
        found.notes.append(f"{folder}: {others} files are no images; left out.")


def _refuse_differing_classes(root: Path, found: Found) -> None:
    trained = {row["label"] for row in found.rows if row["split"] == "train"}
    for split in found.splits - {"train"}:
        names = {row["label"] for row in found.rows if row["split"] == split}
        if more := sorted(names - trained):
            raise DataFault(
                f"{root}: the split {split} has class folders that train has not: "
                f"{', '.join(more)}; train has {', '.join(sorted(trained))}."
            )


def read_listed(root: Path, csv: Path, columns: Mapping[str, str | None]) -> Found:
    """Images that a csv names; paths are relative to `root`. Raises UserError naming the lines."""
    table = read_csv(csv if csv.is_absolute() else root / csv)
    column = {key: columns.get(key) or key for key in ("path", "label")}
    for key in ("split", "patient", "study", "region", "boxes"):
        if chosen := columns.get(key) or (key if key in table.columns else None):
            column[key] = chosen
    for key, name in column.items():
        table.require([name], f" Say which it is: data.columns.{key}=...")
    paths = _paths(table, column["path"], root)
    found = Found([])
    splits = _splits(table, column["split"]) if "split" in column else None
    # A column without any value says no more than none.
    ids = {
        key: column[key]
        for key in ("patient", "study", "region")
        if key in column and any(cells[column[key]] for cells in table.rows)
    }
    for i, cells in enumerate(table.rows):
        split = splits[i] if splits else None
        if not cells[column["label"]]:
            found.excluded[split or "none", "no label"] += 1
            continue
        row: dict[str, Any] = {"path": paths[i], "label": cells[column["label"]]}
        row |= {key: cells[name] or None for key, name in ids.items()}
        if split:
            row["split"] = split
        if "boxes" in column:
            row["boxes"] = _boxes(table, i, column["boxes"], row["label"], root / paths[i])
        found.rows.append(row)
    found.splits = set(splits or [])
    if not found.rows:
        raise DataFault(f"{table.path}: no line has a label in the column {column['label']!r}.")
    if splits and "train" not in found.splits:
        raise DataFault(f"{table.path}: no line is of the split train.")
    return found


def _paths(table: Table, column: str, root: Path) -> list[str]:
    """Paths relative to the root; none may lead out of it, and one at least must be there."""
    paths, outside = [], []
    for i, cells in enumerate(table.rows):
        path = Path(cells[column].replace("\\", "/"))
        path = path.resolve() if path.is_absolute() else Path(os.path.normpath(root / path))
        if not cells[column] or not path.is_relative_to(root) or path == root:
            outside.append(i)
        else:
            paths.append(path.relative_to(root).as_posix())
    table.refuse(outside, column, f"a file in {root}")
    if not any((root / path).is_file() for path in paths):
        raise UserError(
            f"{table.path}: none of its {len(paths)} images is there, such as {root / paths[0]}. "
            f"The column {column!r} must hold paths relative to data.root."
        )
    return paths


def _splits(table: Table, column: str) -> list[str]:
    found = [SPLIT_NAMES.get(cells[column].lower()) for cells in table.rows]
    table.refuse([i for i, split in enumerate(found) if split is None], column, SPLITS_TOLD)
    return [split for split in found if split]


def _boxes(table: Table, i: int, column: str, label: str, image: Path) -> list[Any] | None:
    """JSON [[x0, y0, x1, y1], ...]: in shares where no number is above 1, else in pixels."""
    text = table.rows[i][column]
    if not text:
        return None
    expected = "[[x0, y0, x1, y1], ...], upper left and lower right corner, inside the image"
    try:
        boxes = [[float(number) for number in box] for box in json.loads(text)]
    except (ValueError, TypeError):
        table.refuse([i], column, expected)
        raise AssertionError("refused") from None
    if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in boxes):
        table.refuse([i], column, expected)
    if max((number for box in boxes for number in box), default=0) > 1:
        size = header_sizes([image])[0]
        if size is None:  # the policy for bad files applies when the pixels are read
            return None
        boxes = [[n / size[place % 2] for place, n in enumerate(box)] for box in boxes]
    for x0, y0, x1, y1 in boxes:
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            table.refuse([i], column, expected)
    return [{"label": label, "points": [box[:2], box[2:]]} for box in boxes] or None


COLUMNS = ("path", "label", "split", "patient", "study", "region", "boxes")

# First words of the names that people give to the class without a finding.
NEGATIVE = ("no", "non", "not", "normal", "negative", "neg", "healthy", "without", "0")


@dataclass(kw_only=True)
class Folder(OwnSplit):
    """Reads class folders below `root`, with or without split folders, or a csv.

    csv: file that names the images, in `root` or absolute; None for class folders.
    columns: what -> column of the csv, for path, label, split, patient, study, region and boxes;
        None for the column of that name, where the csv has one.
    class_order: names of the classes; of two, the positive last. None: by name, but where of two
        classes one is called normal, negative, no..., non... or not..., that one comes first.

    Splits that the data have are obeyed; lacking ones are carved (see OwnSplit).
    """

    csv: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    class_order: Sequence[str | int] | None = None

    name: ClassVar[str] = "folder"
    classes: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "the user's own matter"
    citation: ClassVar[str] = "none"
    groups: ClassVar[str] = "unknown"
    obtain: ClassVar[str] = (
        "Put the images into class folders, such as {root}/fractured and {root}/normal, or, with a "
        "split, {root}/train/fractured, or name a table of them with data.csv=labels.csv."
    )
    phantom: ClassVar[str] = "mura_phantom"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.columns:
            if key not in COLUMNS:
                hint = near_miss(key, COLUMNS)
                raise UserError(f"data.columns.{key}: allowed are {', '.join(COLUMNS)}.{hint}")
        if self.csv is None and (named := [key for key, held in self.columns.items() if held]):
            raise UserError(
                f"data.columns.{named[0]}={self.columns[named[0]]}: columns are those of a csv; "
                "name it too, data.csv=labels.csv."
            )

    def prepare(self) -> None:
        """Only look whether something is there."""
        if not self.folder.is_dir():
            raise self.missing(contents(self.folder))
        if self.csv is None and not subfolders(self.folder):
            raise self.missing(f"no class folders, as {contents(self.folder)}")

    def manifest(self) -> Manifest:
        """All images with a label; makes and writes down the splits that the data lack."""
        self.prepare()
        if self.csv is None:
            found = read_class_folders(self.folder)
        else:
            found = read_listed(self.folder, Path(self.csv).expanduser(), self.columns)
        classes, notes = self._classes(found)
        rows, facts = found.rows, {}
        if lacking := [split for split in SPLITS[1:] if split not in found.splits]:
            whole = [row for row in rows if row.get("split", "train") == "train"]
            split = self.split(whole, self.folder, parts=lacking)
            rest = [row for row in rows if row.get("split", "train") != "train"]
            rows, facts = [*split.rows, *rest], split.facts
            notes += split.notes
        known = {key for key in ("patient", "study") if any(row.get(key) for row in rows)}
        if known and not facts:
            facts = {"groups": f"the column {' and '.join(sorted(known))} of {self.csv}"}
        if not known:
            notes.append(
                f"{self.name}: patients are unknown, so one person may be in train and in test, "
                "and test figures may be too good."
            )
        return self.build(
            rows,
            self.folder,
            excluded=_counted(found.excluded),
            notes=[*found.notes, *notes],
            classes=classes,
            task="binary" if len(classes) == 2 else "multiclass",
            **facts,
        )

    def _classes(self, found: Found) -> tuple[tuple[str, ...], list[str]]:
        """The classes in the order of the logits, and a note on which is positive."""
        names = sorted({row["label"] for row in found.rows})
        where = self.csv or self.folder
        if self.class_order is not None:
            order = tuple(map(str, self.class_order))
            if sorted(order) != names:
                raise UserError(
                    f"data.class_order=[{','.join(order)}]: {where} has the classes "
                    f"{', '.join(names)}; name each once."
                )
            return order, []
        if len(names) < 2:
            raise UserError(
                f"{where} has {len(names)} classes ({', '.join(names) or 'none'}); at least two "
                "are needed. If the class folders lie deeper, point data.root to their parent."
            )
        if len(names) > 2:
            return tuple(names), []
        negative = [name for name in names if _words(name)[0] in NEGATIVE]
        if len(negative) != 1:
            raise UserError(
                f"{where} has two classes, {' and '.join(names)}, and it is not clear which is the "
                f"positive one. Say so, the positive last: data.class_order=[{','.join(names)}] or "
                f"data.class_order=[{','.join(names[::-1])}]."
            )
        positive = next(name for name in names if name not in negative)
        return (negative[0], positive), [
            f"{self.name}: {positive!r} is taken as the positive class, {negative[0]!r} as the "
            "negative one (data.class_order changes it)."
        ]


def _words(name: str) -> list[str]:
    return name.lower().replace("_", " ").replace("-", " ").split() or [name]


def _counted(excluded: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"split": split, "reason": why, "n": n} for (split, why), n in excluded.items()]
