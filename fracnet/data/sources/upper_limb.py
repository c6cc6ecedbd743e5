"""The six-class upper-limb set: fractures of elbow, fingers, forearm, humerus, shoulder, wrist."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fracnet.data.layouts import (
    UPPER_LIMB_CLASSES,
    UPPER_LIMB_FOLDER,
    UPPER_LIMB_MERGED,
    UPPER_LIMB_NAMES,
)
from fracnet.data.manifest import Manifest, listed
from fracnet.data.sources import kaggle
from fracnet.data.sources.base import (
    Source,
    check_choice,
    contents,
    image_files,
    subfolders,
)
from fracnet.data.sources.fetching import fetch_if_absent
from fracnet.data.sources.yolo import Mark, read_marks, read_names
from fracnet.data.splits import SPLITS
from fracnet.errors import DataFault
from fracnet.words import counted

HANDLE = "pkdarabi/bone-fracture-detection-computer-vision-project"
MERGE = UPPER_LIMB_MERGED | {name: name for name in UPPER_LIMB_CLASSES}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}

LICENCE_NOTE = (
    "upper_limb: the stated licence is CC BY 4.0, but image comparison shows that the pixels come "
    "from MURA, so MURA's research-use terms may apply, and MURA is no external test set for it."
)
TASK_NOTE = (
    "upper_limb: all labelled images show a fracture, so the six-way task is mostly which body "
    "part; there is no normal class."
)


@dataclass(kw_only=True)
class UpperLimb(Source):
    """Reads the YOLO-polygon layout and plain class folders, in `root` or root/BoneFractureYolo8.

    on_ambiguous: an image marked with two different classes is an error, dropped (and counted),
        or gets the class of its first line.
    download: whether `prepare` may fetch a missing set from Kaggle.
    """

    on_ambiguous: Literal["error", "drop", "first"] = "error"
    download: bool = True

    name: ClassVar[str] = "upper_limb"
    classes: ClassVar[tuple[str, ...]] = UPPER_LIMB_CLASSES
    task: ClassVar[Literal["multiclass", "binary"]] = "multiclass"
    licence: ClassVar[str] = "CC BY 4.0 as stated; the pixels are MURA's (research use)"
    citation: ClassVar[str] = f"Kaggle {HANDLE}; Roboflow bone-fracture-detection-daoon, version 4"
    groups: ClassVar[str] = "unknown"
    obtain: ClassVar[str] = (
        f"Get it from https://www.kaggle.com/datasets/{HANDLE} and unpack it so that "
        f"{{root}}/{UPPER_LIMB_FOLDER}/train exists."
    )
    phantom: ClassVar[str] = "upper_limb_phantom"
    notes: ClassVar[tuple[str, ...]] = (LICENCE_NOTE, TASK_NOTE)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.on_ambiguous", self.on_ambiguous, ("error", "drop", "first"))

    def prepare(self) -> None:
        """Download the set if it is not there; never into a folder that holds something else."""

        def fetch() -> None:
            kaggle.download(HANDLE, self.folder, find=find_base, note=LICENCE_NOTE)

        fetch_if_absent(self, find_base, fetch, allowed=self.download)

    def manifest(self) -> Manifest:
        """The labelled images of all splits; `excluded` counts the others by reason."""
        base = find_base(self.folder)
        if base is None:
            raise self.missing(contents(self.folder))
        folders = split_folders(base)
        notes = list(self.notes)
        if any((folder / "images").is_dir() for folder in folders.values()):
            rows, excluded = self._read_yolo(base, folders, notes)
        else:
            rows, excluded = list(_read_class_folders(base, folders, notes)), Counter()
        return self.build(
            rows,
            base,
            excluded=[
                {"split": split, "reason": reason, "n": n}
                for (split, reason), n in excluded.items()
            ],
            notes=notes,
        )

    def _read_yolo(
        self, base: Path, folders: dict[str, Path], notes: list[str]
    ) -> tuple[list[dict[str, Any]], Counter[tuple[str, str]]]:
        names, merged = _class_names(base, notes)
        rows: list[dict[str, Any]] = []
        excluded: Counter[tuple[str, str]] = Counter()
        ambiguous: list[str] = []
        for split, folder in folders.items():
            for part in ("images", "labels"):
                if not (folder / part).is_dir():
                    raise DataFault(f"{folder} has no folder {part}; {contents(folder)}.")
            images, others = image_files(folder / "images")
            labels = {file.stem: file for file in (folder / "labels").glob("[!.]*.txt")}
            _note_leftovers(notes, folder, others, set(labels) - {image.stem for image in images})
            for image in images:
                label_file = labels.get(image.stem)
                if label_file is None:
                    excluded[split, "no label file"] += 1
                    continue
                marks = read_marks(label_file, names)
                if not marks:
                    excluded[split, "empty label file"] += 1
                    continue
                row = _row(image, base, split, merged[marks[0].class_id])
                found = dict.fromkeys(merged[mark.class_id] for mark in marks)
                if len(found) > 1 and self.on_ambiguous == "drop":
                    excluded[split, "two classes"] += 1
                    continue
                if len(found) > 1 and self.on_ambiguous == "error":
                    ambiguous.append(f"{row['path']} ({' and '.join(found)})")
                row["polygons"] = _shapes(marks, merged, boxes=False)
                row["boxes"] = _shapes(marks, merged, boxes=True)
                rows.append(row)
        if ambiguous:
            raise DataFault(
                f"{base} has {counted(len(ambiguous), 'image')} marked with two different classes: "
                f"{listed(ambiguous, len(ambiguous))}. Choose data.on_ambiguous=drop to leave them "
                "out or data.on_ambiguous=first to take the class of the first line."
            )
        return rows, excluded


def find_base(folder: Path) -> Path | None:
    """The folder that holds the splits: root/BoneFractureYolo8 or root; None if neither does."""
    for base in (folder / UPPER_LIMB_FOLDER, folder):
        if (base / "data.yaml").is_file():
            return base
        for entry in subfolders(base):
            if entry.name.lower() == "train" and subfolders(entry):
                return base
    return None


def split_folders(base: Path) -> dict[str, Path]:
    """Split -> folder, in the order train, val, test; DataFault where one is lacking or double."""
    found: dict[str, Path] = {}
    for entry in subfolders(base):
        split = SPLIT_FOLDERS.get(entry.name.lower())
        if split in found:
            raise DataFault(
                f"{base} has both {found[split].name} and {entry.name}, two folders for one "
                "split; remove or rename one."
            )
        if split:
            found[split] = entry
    if lacking := [split for split in SPLITS if split not in found]:
        raise DataFault(
            f"{base} has no folder for the split {' and '.join(lacking)}; expected are train, "
            f"valid (or val) and test; {contents(base)}."
        )
    return {split: found[split] for split in SPLITS}


def merge_name(raw: str) -> str | None:
    """The class of a raw name, whatever its case and separators; None if it is unknown."""
    return MERGE.get(" ".join(raw.lower().replace("_", " ").replace("-", " ").split()))


def _class_names(base: Path, notes: list[str]) -> tuple[dict[int, str], dict[int, str]]:
    """Class id -> raw name, and class id -> class."""
    path = base / "data.yaml"
    if path.is_file():
        names = read_names(path)
    else:
        names = dict(enumerate(UPPER_LIMB_NAMES))
        notes.append(f"{base} has no data.yaml: the set's seven class names are assumed.")
    merged: dict[int, str] = {}
    for class_id, name in names.items():
        label = merge_name(name)
        if label is None:
            raise DataFault(
                f"{path}: the class name {name!r} is unknown; known are {', '.join(MERGE)}."
            )
        merged[class_id] = label
    return names, merged


def _read_class_folders(
    base: Path, folders: dict[str, Path], notes: list[str]
) -> Iterator[dict[str, Any]]:
    for split, folder in folders.items():
        for entry in subfolders(folder):
            label = merge_name(entry.name)
            if label is None:
                raise DataFault(
                    f"{entry}: this folder is none of the classes; known are {', '.join(MERGE)}."
                )
            images, others = image_files(entry)
            _note_leftovers(notes, entry, others, set())
            for image in images:
                yield _row(image, base, split, label)


def _row(image: Path, base: Path, split: str, label: str) -> dict[str, Any]:
    # File stems are not identities in this set: patient and study stay unknown.
    path = image.relative_to(base).as_posix()
    return {"path": path, "split": split, "label": label, "region": label}


def _shapes(marks: list[Mark], merged: dict[int, str], *, boxes: bool) -> list[Any] | None:
    return [
        {"label": merged[mark.class_id], "points": [list(point) for point in mark.points]}
        for mark in marks
        if mark.is_box == boxes
    ] or None


def _note_leftovers(notes: list[str], folder: Path, others: int, unused: set[str]) -> None:
    if others:
        notes.append(f"{folder}: left out {counted(others, 'file')} of another kind than images.")
    if unused:
        told = listed(sorted(unused), len(unused), 3)
        notes.append(f"{folder}: {counted(len(unused), 'label file')} without an image ({told}).")
