"""Any dataset of the user: class folders, or a CSV file that names the images."""

import json
import math
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from fracnet.config.overrides import hydra_text, shell_quoted
from fracnet.data.annotations import NEGATIVE, is_negative
from fracnet.data.datasets.base import (
    UnsplitDataset,
    describe_folder,
    files_below,
    header_sizes,
    is_image,
    skipped_note,
    subfolders,
    valid_rows,
    visible_entries,
)
from fracnet.data.image_io import class_without_image
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.utils.csv_table import Table, listed_path, read_csv
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.files import path_from_text, path_text
from fracnet.utils.text import are, counted, list_some, near_miss, number_in, override_value

COLUMNS = ("path", "label", "split", "patient", "study", "region", "boxes")
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
COPY = re.compile(r"([\s_-]+copy)?([\s_-]+\(\d+\))?$", re.IGNORECASE)
"""What a file manager adds to the name of a copied folder."""
SPLIT_SUFFIXES = {"set", "data", "dataset", "images", "split"}
"""Words that may follow the name of a split, as in test_set."""


@dataclass(kw_only=True)
class Folder(UnsplitDataset):
    """Reads class folders below `root`, with split folders above or in them or without, or a CSV.

    csv: file that names the images, in `root` or absolute; None for class folders.
    columns: path, label, split, patient, study, region and boxes -> column of the CSV; None for
        the column of that name, in any case, if it exists; of splits, also for one named subset.
    class_order: names of the classes; of two, the positive one last. None: by name, but of two
        classes the one called normal, negative, no..., non... or not... comes first.

    Splits in the data are used as they are; missing ones are created (see UnsplitDataset).
    """

    csv: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    class_order: Sequence[str | bool | int | float | None] | None = None

    name = "folder"
    classes = ()
    task = "binary"
    license = "the user's own matter"
    citation = "none"
    how_to_get = (
        "Put the images into class folders, such as {root}/fractured and {root}/normal, or, with a "
        "split, {root}/train/fractured, or name a table of them with data.csv=labels.csv."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.columns:
            if key not in COLUMNS:
                hint = near_miss(key, COLUMNS)
                raise UserError(f"data.columns.{key}: allowed are {', '.join(COLUMNS)}.{hint}")
        if self.csv is None and (named := [key for key, column in self.columns.items() if column]):
            raise UserError(
                f"data.columns.{named[0]}={self.columns[named[0]]} needs a CSV file; also set "
                "data.csv=labels.csv."
            )

    def prepare(self) -> None:
        """Check that the folder holds data."""
        if not self.folder.is_dir():
            paths = f", and the paths in {self.csv} are relative to it" if self.csv else ""
            raise self.missing_error(f"{describe_folder(self.folder)}{paths}")
        if self.csv is None and not subfolders(self.folder):
            raise self.missing_error(f"no class folders; {describe_folder(self.folder)}")

    def manifest(self) -> Manifest:
        """All labeled images; creates and writes the splits that the data lack."""
        self.prepare()
        if self.csv is None:
            self._reject_other_layouts()
            images = read_class_folders(self.folder)
            if self.class_order is None:
                _reject_other_classes(self.folder, images)
        else:
            roots = (self.folder, Path(self.root).expanduser().absolute())
            images = read_listed(roots, Path(self.csv).expanduser(), self.columns)
        images.notes += unify_labels(images.rows, self.csv or self.folder, self.class_order or ())
        images.rows = valid_rows(images.rows)
        classes, notes = self._class_order(images)
        known = {key for key in ("patient", "study") if any(row.get(key) for row in images.rows)}
        groups = f"the column {' and '.join(sorted(known))} of {self.csv}"
        manifest = self.build(
            images.rows,
            self.folder,
            excluded=images.excluded,
            notes=[*images.notes, *notes],
            parts=[split for split in SPLITS[1:] if split not in images.splits],
            classes=classes,
            task="binary" if len(classes) == 2 else "multiclass",
            missing=images.missing,
            **({"groups": groups} if known else {}),
        )
        if manifest.table[["patient", "study"]].notna().any(axis=None):
            return manifest
        note = (
            f"{self.name}: patients are unknown, so one person may be in train and in test, and "
            "test metrics may be too good."
        )
        return replace(manifest, notes=(*manifest.notes, note))

    def _reject_other_layouts(self) -> None:
        """Raise UserError for a tree of a published layout, whose folders are no classes."""
        for base in (self.folder, *subfolders(self.folder)):
            names = {entry.name for entry in subfolders(base)}
            splits = [base / name for name in sorted(names) if split_named(name)]
            pairs = [base, *splits]
            if any({"images", "labels"} <= {e.name for e in subfolders(part)} for part in pairs):
                raise UserError(
                    f"{base} is a YOLO tree (folders images and labels), not class folders. For "
                    f"the six-class upper-limb set, use data=upper_limb data.root={base}; for "
                    "another set, list its images with their labels in a table: "
                    "data.csv=labels.csv."
                )
            dataset = None
            if any(e.name.startswith("XR_") for part in splits for e in subfolders(part)):
                dataset = "mura"
            elif (base / "images" / "Fractured").is_dir():
                dataset = "fracatlas"
            elif any(n.startswith("images_part") for n in names) and any(base.glob("dataset.csv")):
                dataset = "grazped"
            if dataset and self.class_order is None:
                raise UserError(
                    f"{base} has the layout of {dataset}, whose folders are not classes. Use "
                    f"data={dataset} data.root={base}."
                )

    def _class_order(self, images: "Images") -> tuple[tuple[str, ...], list[str]]:
        """The classes in the order of the logits, and a note on which is positive."""
        names = sorted({row["label"] for row in images.rows})
        origin = self.csv or self.folder
        if self.class_order is not None:
            order = tuple(_class_name(name, names) for name in self.class_order)
            if sorted(order) != names:
                raise UserError(
                    f"data.class_order=[{','.join(order)}]: {origin} has the classes "
                    f"{', '.join(names)}; name each once."
                )
            return order, []
        if len(names) < 2:
            hint = ""
            if self.csv is None:
                inner = self.folder / "".join(names)
                hint = (
                    f" If the class folders are deeper, point data.root to their parent, such as "
                    f"{inner}."
                )
            raise UserError(
                f"{origin} has {counted(len(names), 'class')} ({', '.join(names) or 'none'}) but "
                f"needs at least two.{hint}{''.join(f' {note}' for note in images.notes)}"
            )
        if len(names) > 2:
            return tuple(names), []
        negative = [name for name in names if is_negative(name)]
        if len(negative) != 1:
            raise UserError(
                f"{origin} has two classes, {' and '.join(names)}, and it is unclear which one is "
                f"positive. Name the positive one last: {_typed(names)} or {_typed(names[::-1])}."
            )
        positive = next(name for name in names if name not in negative)
        return (negative[0], positive), [
            f"{self.name}: {positive!r} is taken as the positive class, {negative[0]!r} as the "
            "negative one (data.class_order changes this)."
        ]


def _typed(names: Sequence[str]) -> str:
    if any("," in name for name in names):
        return shlex.quote(f"data.class_order={override_value(list(names))}")
    return shell_quoted(f"data.class_order=[{','.join(names)}]")


def _class_name(value: str | float | None, names: Sequence[str]) -> str:
    """The class that a value of data.class_order names; Hydra reads null or true as no text."""
    if isinstance(value, str):
        return value
    text = "null" if value is None else str(value)
    return next((name for name in names if name.lower() == text.lower()), text)


def split_named(name: str) -> str | None:
    """The split that a folder or cell names (train, Training, test_set ...); None if it is none."""
    first, *others = re.split(r"[\s_-]+", name.strip().lower())
    return SPLIT_NAMES.get(first) if SPLIT_SUFFIXES.issuperset(others) else None


def unify_labels(
    rows: Sequence[dict[str, Any]], origin: Path | str, distinct: Sequence[object]
) -> list[str]:
    """Give labels that are one number (0, 0.0) one spelling; notes on it.

    distinct: classes that the user lists; two spellings that are both listed stay two classes.
    Raises DataFault if labels differ only in case, separators, blanks at the ends or Unicode form:
    probably a slip.
    """
    counts = Counter(row["label"] for row in rows)
    listed = set(map(str, distinct))
    keys = {label: _label_key(label) for label in sorted(counts)}
    spellings: dict[Decimal | str, list[str]] = defaultdict(list)
    for label, key in keys.items():
        original = _label_key(COPY.sub("", _visible(label)))
        spellings[original if original in keys.values() else key].append(label)
    several = [
        labels
        for labels in spellings.values()
        if len(labels) > 1 and not len(listed.intersection(labels)) > 1
    ]
    texts = [
        labels
        for labels in several
        if not all(isinstance(keys[label], Decimal) for label in labels)
    ]
    if texts:
        pairs = [
            " and ".join(f"{label!r} ({counted(counts[label], 'image')})" for label in labels)
            for labels in texts
        ]
        raise DataFault(
            f"{origin} spells {counted(len(texts), 'class')} in several ways: "
            f"{'; '.join(pairs)}. Use one spelling per class."
        )
    notes = []
    for labels in several:
        label = min(labels, key=lambda text: (text not in listed, len(text), text))
        for row in rows:
            if row["label"] in labels:
                row["label"] = label
        quoted = ", ".join(f"{name!r} ({counted(counts[name], 'image')})" for name in labels)
        notes.append(f"{origin}: the labels {quoted} are one number and count as one class.")
    return notes


def _label_key(label: str) -> Decimal | str:
    """Equal for two spellings of one number, or of one name."""
    name = _visible(label)
    if (number := number_in(name)) is not None:
        return number
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.casefold()).replace("_", " ")


def _visible(text: str) -> str:
    """The text in one Unicode form, without what nobody sees: blanks around it, joiners, marks."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(char for char in text if unicodedata.category(char) != "Cf").strip()


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


def read_class_folders(root: Path) -> Images:
    """Images of root/class/**, root/split/class/** or root/class/**/split/**.

    Raises DataFault for a mixture.
    """
    entries = subfolders(root)
    split_of = {entry.name: split_named(entry.name) for entry in entries}
    images = Images(splits={split for split in split_of.values() if split})
    parents = [root, *(entry for entry in entries if split_of[entry.name])]
    images.notes += [note for parent in parents for note in _stray_note(parent)]
    if not images.splits:
        for entry in entries:
            _add_class(images, root, entry, None)
    else:
        if other := [name for name, split in split_of.items() if split is None]:
            raise DataFault(
                f"{root} has folders of splits ({', '.join(set(split_of) - set(other))}) and "
                f"others ({list_some(other, len(other), 6)}). Move the others away, or move class "
                "folders into a split."
            )
        if len(images.splits) < len(entries):
            raise DataFault(f"{root} has two folders for one split: {', '.join(split_of)}.")
        for entry in entries:
            if not subfolders(entry):
                raise DataFault(f"{entry} has no class folders; {describe_folder(entry)}.")
            for folder in subfolders(entry):
                _add_class(images, root, folder, split_of[entry.name])
    if not images.rows:
        raise UserError(
            f"{root} has no image in its folders {', '.join(split_of)}."
            f"{''.join(f' {note}' for note in images.notes)}"
        )
    _check_splits(root, images)
    return images


def _reject_other_classes(root: Path, images: Images) -> None:
    """Raise UserError for folders that are probably splits, or stand above the classes.

    Not called where the user lists the classes.
    """
    labels = sorted({row["label"] for row in images.rows})
    used_as = f"{root}: the folders {list_some(labels, len(labels), 6)} would be the classes"
    otherwise = "If they are the classes, list them with data.class_order=[...]."
    splits = {_split_within(label) for label in labels}
    if "train" in splits and splits & {"val", "test"}:
        raise UserError(
            f"{used_as}, but look like splits. Name those train, val and test, with the class "
            f"folders in them. {otherwise}"
        )
    if len(labels) < 2 or any(is_negative(label) for label in labels):
        return
    inner: dict[str, set[str]] = defaultdict(set)
    for row in images.rows:
        parts = row["path"].split("/")[:-1]
        inner[row["label"]].update(parts[parts.index(row["label"]) + 1 :])
    common = sorted(set.intersection(*inner.values()))
    if len(common) > 1 and any(_is_class_without_finding(name, common) for name in common):
        raise UserError(
            f"{used_as}, but in each of them are the folders {list_some(common, len(common), 6)}, "
            f"which look like classes. Put those on top ({common[0]}/{labels[0]}/...), or list the "
            f"images with their labels in a table: data.csv=labels.csv. {otherwise}"
        )


def _is_class_without_finding(name: str, names: Sequence[str]) -> bool:
    """Whether a folder is called normal or 0, say, or `not X` beside X; `normal view` is a view."""
    first, _, rest = str(_label_key(name)).partition(" ")
    if not rest:
        return first in NEGATIVE
    return first in NEGATIVE and rest in {_label_key(other) for other in names}


def _split_within(name: str) -> str | None:
    """The split that a word of the name is, as in train2017, trainA, 01_test or trainset."""
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        for suffix in ("", *SPLIT_SUFFIXES):
            if split := SPLIT_NAMES.get(word.lower().removesuffix(suffix)):
                return split
    return None


def _stray_note(folder: Path) -> list[str]:
    """A note on images and broken links beside the class folders, if any: they have no class."""
    entries = [entry for entry in visible_entries(folder) if not entry.is_dir()]
    stray = [path_text(e.name) for e in entries if is_image(e) or not e.exists()]
    if not (n := len(stray)):
        return []
    what = "image or broken link" if n == 1 else "images or broken links"
    return [f"{folder}: skipped {n} {what} outside the class folders ({list_some(stray, n, 3)})."]


def _add_class(images: Images, root: Path, folder: Path, split: str | None) -> None:
    """Add the images in a class folder; a folder in it that is named like a split is its split."""
    others, contradicting = [], []
    known = len(images.rows)
    depth = len(folder.relative_to(root).parts)
    label = path_text(folder.name)
    spellings: dict[str, set[str]] = defaultdict(set)
    for path in files_below(folder, root, notes=images.notes):
        if not is_image(path_from_text(root, path)):
            others.append(path[len(path_text(folder.relative_to(root))) + 1 :])
            continue
        row = {"path": path, "label": label}
        inner = {name: named for name in path.split("/")[depth:-1] if (named := split_named(name))}
        for name, named in inner.items():
            spellings[named].add(name)
        named_splits = set(inner.values()) | ({split} if split else set())
        if len(named_splits) > 1:
            contradicting.append(path)
        elif named_splits:
            row["split"] = named_splits.pop()
        images.rows.append(row)
    if contradicting:
        raise DataFault(
            f"{root}: the folders of {counted(len(contradicting), 'image')} name two splits: "
            f"{list_some(contradicting, len(contradicting), 3)}."
        )
    if double := [names for names in spellings.values() if len(names) > 1]:
        raise DataFault(f"{folder} has two folders for one split: {', '.join(sorted(double[0]))}.")
    images.notes += skipped_note(folder, others)
    if len(images.rows) == known:
        # A class of train may lack images in another split.
        uncounted = " and does not count as a class" if split in (None, "train") else ""
        images.notes.append(f"{folder} holds no image{uncounted}.")


def _check_splits(root: Path, images: Images) -> None:
    """Add those of root/class/split; DataFault unless all splits cover all images and classes."""
    images.splits |= {row["split"] for row in images.rows if "split" in row}
    if not images.splits:
        return
    named = ", ".join(sorted(images.splits))
    if outside := [row["path"] for row in images.rows if "split" not in row]:
        raise DataFault(
            f"{root} has class folders with folders of splits ({named}), but "
            f"{counted(len(outside), 'image')} {are(len(outside))} in none of them: "
            f"{list_some(outside, len(outside), 3)}. Move every image into a split, or none."
        )
    if "train" not in images.splits:
        raise DataFault(f"{root} has no folder train, but {named}.")
    trained = {row["label"] for row in images.rows if row["split"] == "train"}
    for split in images.splits - {"train"}:
        names = {row["label"] for row in images.rows if row["split"] == split}
        if extra := sorted(names - trained):
            raise DataFault(
                f"{root}: the split {split} has class folders that train lacks: "
                f"{', '.join(extra)}; train has {', '.join(sorted(trained))}."
            )


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
        plain = re.sub(r"^(\d+)\.0+$", r"\1", _visible(text))
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
