"""The six-class upper-limb set: fractures of elbow, fingers, forearm, humerus, shoulder, wrist.

YOLO labels: the class names of data.yaml and the lines of a label file.

A line is a class id and either a polygon, three or more x,y pairs, or a box, center x, center y,
width and height; all in shares of the image's width and height.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from fracnet.data.datasets import download
from fracnet.data.datasets.base import Source, check_choice, contents, image_files, subfolders
from fracnet.data.datasets.download import fetch_if_absent
from fracnet.data.datasets.layouts import (
    UPPER_LIMB_CLASSES,
    UPPER_LIMB_FOLDER,
    UPPER_LIMB_MERGED,
    UPPER_LIMB_NAMES,
)
from fracnet.data.manifest import Manifest, listed
from fracnet.data.splits import SPLITS
from fracnet.utils.errors import DataFault
from fracnet.utils.text import are, counted

# How far outside the image a coordinate may lie by rounding; it is then moved onto the edge.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Mark:
    """One line: class id and corner points; a box has two, the upper left and lower right."""

    class_id: int
    points: tuple[tuple[float, float], ...]
    is_box: bool


def read_names(path: Path) -> dict[int, str]:
    """Class id -> raw name from `names`, a list or a mapping; DataFault naming file and fault."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise DataFault(f"{path}{line}: this is not YAML.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list) and names:
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict) and names and all(str(key).isdecimal() for key in names):
        return {int(key): str(name) for key, name in names.items()}
    raise DataFault(
        f"{path}: names={names!r}; it must be a list of class names, or a mapping from class id "
        "to name."
    )


def read_marks(path: Path, names: Mapping[int, str]) -> list[Mark]:
    """The lines of a label file in their order; empty if it has none.

    DataFault with file, line number and line for a line that is not a class id of `names` and a
    polygon or a box inside the image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataFault(f"{path}: this is not a text file of YOLO labels.") from error
    return [
        _mark(line, f"{path}, line {number}", names)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _mark(line: str, where: str, names: Mapping[int, str]) -> Mark:
    shown = line.strip() if len(line.strip()) <= 80 else line.strip()[:77] + "..."

    def broken(why: str) -> DataFault:
        return DataFault(
            f"{where}: {why}: {shown!r}. A line is a class id and a polygon (three or more x,y "
            "pairs) or a box (center x, center y, width, height), in shares from 0 to 1."
        )

    first, *rest = line.split()
    try:
        class_id = int(first)
    except ValueError as error:
        raise broken(f"{first!r} is not a class id") from error
    try:
        numbers = [float(word) for word in rest]
    except ValueError as error:
        raise broken("not all coordinates are numbers") from error
    if len(numbers) < 4:
        raise broken(f"{counted(len(numbers), 'coordinate')} {are(len(numbers))} too few")
    if len(numbers) % 2:
        raise broken(f"{len(numbers)} coordinates do not make x,y pairs")
    if not all(math.isfinite(number) for number in numbers):
        raise broken("a coordinate is not finite")
    if class_id not in names:
        known = ", ".join(f"{key} {name}" for key, name in names.items())
        raise DataFault(f"{where}: class id {class_id} is not among the names ({known}).")
    is_box = len(numbers) == 4
    if is_box:
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise broken("a box needs a width and a height above 0")
        numbers = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
        raise broken("a coordinate lies outside the image")
    inside = [min(max(number, 0.0), 1.0) for number in numbers]
    return Mark(class_id, tuple(zip(inside[::2], inside[1::2], strict=True)), is_box)


HANDLE = "pkdarabi/bone-fracture-detection-computer-vision-project"
MERGE = UPPER_LIMB_MERGED | {name: name for name in UPPER_LIMB_CLASSES}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}

LICENSE_NOTE = (
    "upper_limb: the stated license is CC BY 4.0, but image comparison shows that the pixels come "
    "from MURA, so MURA's research-use terms may apply, and MURA is no external test set for it."
)
TASK_NOTE = (
    "upper_limb: all labeled images show a fracture, so the six-way task is mostly which body "
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
    license: ClassVar[str] = "CC BY 4.0 as stated; the pixels are MURA's (research use)"
    citation: ClassVar[str] = f"Kaggle {HANDLE}; Roboflow bone-fracture-detection-daoon, version 4"
    groups: ClassVar[str] = "unknown"
    obtain: ClassVar[str] = (
        f"Get it from https://www.kaggle.com/datasets/{HANDLE} and unpack it so that "
        f"{{root}}/{UPPER_LIMB_FOLDER}/train exists."
    )
    phantom: ClassVar[str] = "upper_limb_phantom"
    notes: ClassVar[tuple[str, ...]] = (LICENSE_NOTE, TASK_NOTE)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.on_ambiguous", self.on_ambiguous, ("error", "drop", "first"))

    def prepare(self) -> None:
        """Download the set if it is not there; never into a folder that holds something else."""

        def fetch() -> None:
            download.download_kaggle(HANDLE, self.folder, find=find_base, note=LICENSE_NOTE)

        fetch_if_absent(self, find_base, fetch, allowed=self.download)

    def manifest(self) -> Manifest:
        """The labeled images of all splits; `excluded` counts the others by reason."""
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
