"""The six-class upper-limb set: fractures of elbow, fingers, forearm, humerus, shoulder, wrist."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fracnet.data.datasets import download
from fracnet.data.datasets.base import (
    Dataset,
    describe_folder,
    image_files,
    skipped_note,
    subfolders,
)
from fracnet.data.datasets.layouts import (
    UPPER_LIMB_CLASSES,
    UPPER_LIMB_FOLDER,
    UPPER_LIMB_MERGED,
    UPPER_LIMB_NAMES,
)
from fracnet.data.datasets.yolo import LabelFiles, read_names, shapes
from fracnet.data.manifest import Manifest
from fracnet.data.splits import SPLITS
from fracnet.utils.errors import DataFault
from fracnet.utils.files import path_text
from fracnet.utils.text import are, counted, have, list_some

HANDLE = "pkdarabi/bone-fracture-detection-computer-vision-project"
CLASS_OF = UPPER_LIMB_MERGED | {name: name for name in UPPER_LIMB_CLASSES}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}

LICENSE_NOTE = (
    "upper_limb: the stated license is CC BY 4.0, but image comparison shows that the pixels come "
    "from MURA, so MURA's research-use terms may apply, and MURA is no external test set for it."
)
TASK_NOTE = (
    "upper_limb: all labeled images show a fracture, so the six-way task is mostly to name the "
    "body part; there is no normal class."
)


@dataclass(kw_only=True)
class UpperLimb(Dataset):
    """Reads the YOLO-polygon layout or plain class folders, in `root` or root/BoneFractureYolo8.

    on_ambiguous: what to do with an image marked with two classes: error, drop (and count it), or
        first for the class of its first line.
    download: whether `prepare` may download a missing dataset from Kaggle.
    """

    on_ambiguous: Literal["error", "drop", "first"] = "error"
    download: bool = True

    name = "upper_limb"
    classes = UPPER_LIMB_CLASSES
    task = "multiclass"
    license = "CC BY 4.0 as stated; the pixels are MURA's (research use)"
    citation = f"Kaggle {HANDLE}; Roboflow bone-fracture-detection-daoon, version 4"
    how_to_get = (
        f"Get it from https://www.kaggle.com/datasets/{HANDLE} and unpack it so that "
        f"{{root}}/{UPPER_LIMB_FOLDER}/train exists."
    )
    phantom = "upper_limb_phantom"
    notes: ClassVar[tuple[str, ...]] = (LICENSE_NOTE, TASK_NOTE)

    def prepare(self) -> None:
        """Download a missing dataset, but never into a folder that holds anything else."""

        def fetch() -> None:
            download.download_kaggle(HANDLE, self.folder, find=find_base, note=LICENSE_NOTE)

        download.download_if_missing(self, find_base, fetch, allowed=self.download)

    def manifest(self) -> Manifest:
        """The labeled images of all splits; `excluded` counts the others by reason."""
        base = find_base(self.folder)
        if base is None:
            raise self.missing_error(describe_folder(self.folder))
        folders = split_folders(base)
        notes = list(self.notes)
        excluded: Counter[tuple[str, str]] = Counter()
        missing = ""
        if any((folder / "images").is_dir() for folder in folders.values()):
            rows, missing = self._read_yolo(base, folders, notes, excluded)
        else:
            rows = list(_read_class_folders(base, folders, notes))
        return self.build(rows, base, excluded=excluded, notes=notes, missing=missing)

    def _read_yolo(
        self,
        base: Path,
        folders: dict[str, Path],
        notes: list[str],
        excluded: Counter[tuple[str, str]],
    ) -> tuple[list[dict[str, Any]], str]:
        """The rows, and a sentence on label files without an image."""
        names, classes = _class_names(base, notes)
        rows: list[dict[str, Any]] = []
        ambiguous: list[str] = []
        unused: list[str] = []
        label_files = LabelFiles(names)
        for split, folder in folders.items():
            for part in ("images", "labels"):
                if not (folder / part).is_dir():
                    raise DataFault(f"{folder} has no folder {part}; {describe_folder(folder)}.")
            images, others = image_files(folder / "images")
            labels = {file.stem: file for file in (folder / "labels").glob("[!.]*.txt")}
            notes += skipped_note(folder / "images", others)
            stems = {image.stem for image in images}
            unused += [f"{folder.name}/labels/{stem}" for stem in sorted(set(labels) - stems)]
            for image in images:
                if image.stem not in labels:
                    excluded[split, "no label file"] += 1
                    continue
                n_faults = len(label_files.faults)
                marks = label_files.read(labels[image.stem])
                if len(label_files.faults) > n_faults:
                    continue
                if not marks:
                    excluded[split, "empty label file"] += 1
                    continue
                row = _row(image, base, split, classes[marks[0].class_id])
                marked = dict.fromkeys(classes[mark.class_id] for mark in marks)
                if len(marked) > 1 and self.on_ambiguous == "drop":
                    excluded[split, "two classes"] += 1
                    continue
                if len(marked) > 1 and self.on_ambiguous == "error":
                    ambiguous.append(f"{row['path']} ({' and '.join(marked)})")
                row["polygons"] = shapes(marks, classes, boxes=False)
                row["boxes"] = shapes(marks, classes, boxes=True)
                rows.append(row)
        label_files.check()
        if ambiguous:
            raise DataFault(
                f"{base} has {counted(len(ambiguous), 'image')} marked with two different classes: "
                f"{list_some(ambiguous, len(ambiguous))}. Choose data.on_ambiguous=drop to exclude "
                "them or data.on_ambiguous=first to use the class of the first line."
            )
        missing = ""
        if n := len(unused):
            missing = (
                f"{base}: {counted(n, 'label file')} {have(n)} no image "
                f"({list_some(map(path_text, unused), n, 3)})."
            )
            notes.append(missing)
        return rows, missing


def find_base(folder: Path) -> Path | None:
    """The folder that holds the splits, root/BoneFractureYolo8 or root, or None."""
    for base in (folder / UPPER_LIMB_FOLDER, folder):
        if (base / "data.yaml").is_file():
            return base
        for entry in subfolders(base):
            if entry.name.lower() == "train" and subfolders(entry):
                return base
    return None


def split_folders(base: Path) -> dict[str, Path]:
    """Split -> folder, in the order train, val, test; DataFault if one is missing or double."""
    folders: dict[str, Path] = {}
    for entry in subfolders(base):
        split = SPLIT_FOLDERS.get(entry.name.lower())
        if split in folders:
            raise DataFault(
                f"{base} has both {folders[split].name} and {entry.name}, two folders for one "
                "split; remove or rename one."
            )
        if split:
            folders[split] = entry
    if absent := [split for split in SPLITS if split not in folders]:
        raise DataFault(
            f"{base} has no folder for the split {' and '.join(absent)}; expected train, valid "
            f"(or val) and test; {describe_folder(base)}."
        )
    return {split: folders[split] for split in SPLITS}


def class_of(raw: str) -> str | None:
    """The class of a raw name in any case and with any separators; None if it is unknown."""
    return CLASS_OF.get(" ".join(raw.lower().replace("_", " ").replace("-", " ").split()))


def _class_names(base: Path, notes: list[str]) -> tuple[dict[int, str], dict[int, str]]:
    """Class id -> raw name, and class id -> class."""
    path = base / "data.yaml"
    if path.is_file():
        names = read_names(path)
    else:
        names = dict(enumerate(UPPER_LIMB_NAMES))
        notes.append(f"{base} has no data.yaml; using the set's seven class names.")
    classes = {class_id: label for class_id, name in names.items() if (label := class_of(name))}
    if unknown := [repr(name) for class_id, name in names.items() if class_id not in classes]:
        raise DataFault(
            f"{path}: {counted(len(unknown), 'class name')} {are(len(unknown))} unknown: "
            f"{list_some(unknown, len(unknown))}; known are {', '.join(CLASS_OF)}."
        )
    return names, classes


def _read_class_folders(
    base: Path, folders: dict[str, Path], notes: list[str]
) -> Iterator[dict[str, Any]]:
    entries = [(split, entry) for split, folder in folders.items() for entry in subfolders(folder)]
    if unknown := [str(entry) for _, entry in entries if class_of(entry.name) is None]:
        raise DataFault(
            f"{list_some(unknown, len(unknown))}: not the name of a class; known are "
            f"{', '.join(CLASS_OF)}."
        )
    for split, entry in entries:
        if label := class_of(entry.name):
            images, others = image_files(entry)
            notes += skipped_note(entry, others)
            for image in images:
                yield _row(image, base, split, label)


def _row(image: Path, base: Path, split: str, label: str) -> dict[str, Any]:
    # File stems do not identify anybody in this set: patient and study stay unknown.
    path = path_text(image.relative_to(base).as_posix())
    return {"path": path, "split": split, "label": label, "region": label}
