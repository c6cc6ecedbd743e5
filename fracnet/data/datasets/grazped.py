"""GRAZPEDWRI-DX: wrist radiographs of children, with or without a visible fracture.

The layout is the published one: dataset.csv, images_part1 to images_part4, and, from
folder_structure.zip, folder_structure/yolov5/labels. It was gathered from descriptions and from
code that others wrote for it, not from the set itself; so were the ids of the YOLO classes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fracnet.data.datasets.base import OwnSplit, contents, files_below, is_image
from fracnet.data.datasets.csv_table import Table, read_csv
from fracnet.data.datasets.upper_limb import read_marks
from fracnet.data.manifest import Manifest, listed
from fracnet.utils.errors import DataFault

MARKS = (
    "boneanomaly",
    "bonelesion",
    "foreignbody",
    "fracture",
    "metal",
    "periostealreaction",
    "pronatorsign",
    "softtissue",
    "text",
)
LABEL_FOLDERS = ("folder_structure/yolov5/labels", "yolov5/labels", "labels")
FLAGS = ("initial_exam", "cast", "diagnosis_uncertain", "osteopenia", "metal")
TEXTS = ("projection", "laterality", "gender", "age", "ao_classification", "device_manufacturer")

LABEL_NOTE = (
    "grazped: the label is fracture_visible, of this very image; a fracture that shows only in the "
    "study's other view counts as none, and no fracture does not mean normal."
)
CAST_NOTE = (
    "grazped: a cast shows in about 28 % of the images, metal in about 3 %; both tell a fracture "
    "without a look at bone (the columns cast and metal say where)."
)


@dataclass(kw_only=True)
class Grazped(OwnSplit):
    """Reads GRAZPEDWRI-DX in `root`, split by patient_id; the images may lie anywhere below.

    The manifest keeps the columns FLAGS (0 or 1) and TEXTS of dataset.csv where it has them.
    """

    name: ClassVar[str] = "grazped"
    classes: ClassVar[tuple[str, ...]] = ("no_fracture", "fracture")
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Nagy et al., A pediatric wrist trauma X-ray dataset (GRAZPEDWRI-DX) for machine "
        "learning, Scientific Data 9, 222 (2022)"
    )
    groups: ClassVar[str] = "patient_id and study_number of dataset.csv"
    obtain: ClassVar[str] = (
        "Get dataset.csv, folder_structure.zip and images_part1.zip to images_part4.zip (16 GB) "
        "from https://doi.org/10.6084/m9.figshare.14825193 and unpack them so that "
        "{root}/dataset.csv and {root}/images_part1 exist."
    )
    phantom: ClassVar[str] = "mura_phantom"
    notes: ClassVar[tuple[str, ...]] = (LABEL_NOTE, CAST_NOTE)

    def prepare(self) -> None:
        """Only look whether the files are there."""
        if not (self.folder / "dataset.csv").is_file():
            raise self.missing(contents(self.folder))

    def manifest(self) -> Manifest:
        """The images that dataset.csv lists; makes and writes the split where there is none."""
        self.prepare()
        table = read_csv(self.folder / "dataset.csv")
        table.require(("filestem", "patient_id", "fracture_visible"))
        unnamed = [i for i, row in enumerate(table.rows) if not row["patient_id"]]
        table.refuse(unnamed, "patient_id", "an id")
        files = _images(self.folder)
        labels = next((f for f in LABEL_FOLDERS if (self.folder / f).is_dir()), None)
        notes = list(self.notes)
        if labels is None:
            notes.append(f"grazped: no {LABEL_FOLDERS[0]} in {self.folder}: there are no boxes.")
        rows, lost = [], []
        for row in _described(table):
            stem = row.pop("stem")
            if stem not in files:
                lost.append(stem)
                continue
            marks = self.folder / (labels or "") / f"{stem}.txt"
            if labels and marks.is_file():
                row["boxes"] = _boxes(marks)
            rows.append({"path": files[stem], **row})
        if not rows:
            raise self.missing(f"{self.folder} holds none of the images in dataset.csv")
        if lost:
            notes.append(
                f"grazped: {len(lost)} of the images in dataset.csv are not there "
                f"({listed(lost, len(lost), 3)})."
            )
        if uncertain := sum(row.get("diagnosis_uncertain", 0) for row in rows):
            notes.append(
                f"grazped: the diagnosis of {uncertain} images is uncertain (diagnosis_uncertain "
                "says of which); they are kept."
            )
        split = self.split(rows, self.folder)
        n_more = len(files) - len(rows)
        excluded = [{"split": "none", "reason": "not in dataset.csv", "n": n_more}]
        return self.build(
            split.rows,
            self.folder,
            excluded=excluded if n_more else [],
            notes=[*notes, *split.notes],
            **split.facts,
        )


def _images(root: Path) -> dict[str, str]:
    """Stem -> path of every image below; DataFault for two files of one stem."""
    found: dict[str, str] = {}
    twice = []
    for path in files_below(root, root, skipped=["labels"]):
        if not is_image(os.path.join(root, path)):
            continue
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem in found:
            twice.append(f"{found[stem]} and {path}")
        found[stem] = path
    if twice:
        raise DataFault(
            f"{root} holds {len(twice)} images twice: {listed(twice, len(twice), 3)}. Leave one "
            "copy of each."
        )
    return found


def _described(table: Table) -> list[dict[str, Any]]:
    """Manifest columns of each line, without path and split, and its stem."""
    visible = table.flags("fracture_visible")
    flags = {column: table.flags(column) for column in FLAGS if column in table.columns}
    texts = [column for column in TEXTS if column in table.columns]
    rows = []
    for i, row in enumerate(table.rows):
        study = row.get("study_number")
        rows.append(
            {
                "stem": row["filestem"],
                "label": "fracture" if visible[i] else "no_fracture",
                "patient": row["patient_id"],
                "study": f"{row['patient_id']}/{study}" if study else None,
                "region": "wrist",
                **{column: flags[column][i] for column in flags},
                **{column: row[column] or None for column in texts},
            }
        )
    return rows


def _boxes(marks: Path) -> list[dict[str, Any]] | None:
    """The boxes around fractures; those of the other eight classes mark other things."""
    names = dict(enumerate(MARKS))
    return [
        {"label": "fracture", "points": [list(point) for point in mark.points]}
        for mark in read_marks(marks, names)
        if names[mark.class_id] == "fracture"
    ] or None
