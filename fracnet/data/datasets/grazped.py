"""GRAZPEDWRI-DX: wrist radiographs of children, with or without a visible fracture.

The layout is the published one: dataset.csv, images_part1 to images_part4, and, from
folder_structure.zip, folder_structure/yolov5/labels. The layout and the ids of the YOLO classes
come from published descriptions and other people's code, not from the dataset itself.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracnet.data.datasets.base import UnsplitDataset, describe_folder, files_below, is_image
from fracnet.data.datasets.yolo import LabelFiles, shapes
from fracnet.data.manifest import Manifest
from fracnet.utils.csv_table import Table, read_csv
from fracnet.utils.errors import DataFault
from fracnet.utils.files import file_key, path_from_text
from fracnet.utils.text import are, counted, list_some

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
    "grazped: the label is fracture_visible for this image; a fracture visible only in the study's "
    "other view counts as no fracture, and no fracture does not mean normal."
)
CAST_NOTE = (
    "grazped: about 28 % of the images show a cast and about 3 % metal; both hint at a fracture "
    "without looking at bone (see the columns cast and metal)."
)


@dataclass(kw_only=True)
class Grazped(UnsplitDataset):
    """Reads GRAZPEDWRI-DX in `root`, split by patient_id; the images may be in any subfolder.

    The manifest keeps the columns FLAGS (0 or 1) and TEXTS of dataset.csv if present.
    """

    name = "grazped"
    classes = ("no_fracture", "fracture")
    task = "binary"
    license = "CC BY 4.0"
    citation = (
        "Nagy et al., A pediatric wrist trauma X-ray dataset (GRAZPEDWRI-DX) for machine "
        "learning, Scientific Data 9, 222 (2022)"
    )
    groups = "patient_id and study_number of dataset.csv"
    how_to_get = (
        "Get dataset.csv, folder_structure.zip and images_part1.zip to images_part4.zip (16 GB) "
        "from https://doi.org/10.6084/m9.figshare.14825193 and unpack them so that "
        "{root}/dataset.csv and {root}/images_part1 exist."
    )
    notes = (LABEL_NOTE, CAST_NOTE)

    def prepare(self) -> None:
        """Check that the files exist."""
        if not (self.folder / "dataset.csv").is_file():
            raise self.missing_error(describe_folder(self.folder))

    def manifest(self) -> Manifest:
        """The images that dataset.csv lists, with a split that is created once and reused."""
        self.prepare()
        table = read_csv(self.folder / "dataset.csv")
        table.require(("filestem", "patient_id", "fracture_visible"))
        without_id = [i for i, row in enumerate(table.rows) if not row["patient_id"]]
        table.reject(without_id, "patient_id", "an id")
        notes = list(self.notes)
        paths = _image_paths(self.folder, notes)
        labels = next((f for f in LABEL_FOLDERS if (self.folder / f).is_dir()), None)
        if labels is None:
            notes.append(f"grazped: no boxes, because {self.folder} has no {LABEL_FOLDERS[0]}.")
        rows, absent = [], []
        label_files = LabelFiles(dict(enumerate(MARKS)))
        for stem, row in _described(table):
            if stem not in paths:
                absent.append(stem)
                continue
            marks = self.folder / (labels or "") / f"{stem}.txt"
            if labels and marks.is_file():
                # The other eight classes mark other things than fractures.
                fracture = {MARKS.index("fracture"): "fracture"}
                row["boxes"] = shapes(label_files.read(marks), fracture, boxes=True)
            rows.append({"path": paths[stem], **row})
        missing = ""
        if n := len(absent):
            missing = (
                f"grazped: {n} of the {counted(n + len(rows), 'image')} in dataset.csv {are(n)} "
                f"missing ({list_some(absent, n, 3)})."
            )
            notes.append(missing)
        if not rows:
            raise self.missing_error(
                f"{self.folder} holds none of the {counted(len(absent), 'image')} in dataset.csv"
            )
        label_files.check()
        if uncertain := sum(row.get("diagnosis_uncertain", 0) for row in rows):
            notes.append(
                f"grazped: the diagnosis of {uncertain} images is uncertain (see the column "
                "diagnosis_uncertain); they are included."
            )
        n_unlisted = len(paths) - len(rows)
        return self.build(
            rows,
            self.folder,
            excluded={("none", "not in dataset.csv"): n_unlisted} if n_unlisted else {},
            notes=notes,
            missing=missing,
        )


def _image_paths(root: Path, notes: list[str]) -> dict[str, str]:
    """Stem -> path of every image below `root`; DataFault if two files have one stem.

    Links to one file are one image; adds a note on them to `notes`.
    """
    paths: dict[str, str] = {}
    twice = []
    n_links = 0
    for path in files_below(root, root, ["labels"], notes):
        file = path_from_text(root, path)
        if not is_image(file):
            continue
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem in paths:
            if file_key(file) == file_key(path_from_text(root, paths[stem])):
                n_links += 1
                continue
            twice.append(f"{paths[stem]} and {path}")
        paths[stem] = path
    if twice:
        raise DataFault(
            f"{root} holds {len(twice)} images twice: {list_some(twice, len(twice), 3)}. Keep one "
            "copy of each."
        )
    if n_links:
        notes.append(
            f"{root}: skipped {counted(n_links, 'link')} to images that are listed already."
        )
    return paths


def _described(table: Table) -> list[tuple[str, dict[str, Any]]]:
    """Stem and manifest columns, without path and split, of each line."""
    visible = table.flags("fracture_visible")
    flags = {column: table.flags(column) for column in FLAGS if column in table.columns}
    texts = [column for column in TEXTS if column in table.columns]
    described = []
    for i, row in enumerate(table.rows):
        study = row.get("study_number")
        columns = {
            "label": "fracture" if visible[i] else "no_fracture",
            "patient": row["patient_id"],
            "study": f"{row['patient_id']}/{study}" if study else None,
            "region": "wrist",
            **{column: flags[column][i] for column in flags},
            **{column: row[column] or None for column in texts},
        }
        described.append((row["filestem"], columns))
    return described
