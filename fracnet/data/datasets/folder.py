"""Any dataset of the user: class folders, or a CSV file that names the images."""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fracnet.config.overrides import shell_quoted
from fracnet.data.annotations import is_negative
from fracnet.data.datasets.base import (
    UnsplitDataset,
    describe_folder,
    files_below,
    is_image,
    skipped_note,
    subfolders,
    valid_rows,
    visible_entries,
)
from fracnet.data.datasets.listed_images import COLUMNS, Images, read_listed
from fracnet.data.datasets.names import (
    is_class_without_finding,
    split_named,
    split_within,
    unify_labels,
)
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.files import path_from_text, path_text
from fracnet.utils.text import are, counted, list_some, near_miss, override_value


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
    splits = {split_within(label) for label in labels}
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
    if len(common) > 1 and any(is_class_without_finding(name, common) for name in common):
        raise UserError(
            f"{used_as}, but in each of them are the folders {list_some(common, len(common), 6)}, "
            f"which look like classes. Put those on top ({common[0]}/{labels[0]}/...), or list the "
            f"images with their labels in a table: data.csv=labels.csv. {otherwise}"
        )


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
