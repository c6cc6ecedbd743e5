"""MURA v1.1: radiographs of the upper limb, labeled normal or abnormal by study.

Reads the folder tree and the official lists in the forms in which copies of the dataset have them.
"""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fracnet.data.datasets.base import (
    IMAGE_SUFFIXES,
    Dataset,
    describe_folder,
    is_ignored,
    skipped_note,
    subfolders,
    walk,
)
from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.manifest import Manifest
from fracnet.utils.csv_table import csv_reader, read_text, unreadable_cell
from fracnet.utils.errors import DataFault
from fracnet.utils.files import path_text
from fracnet.utils.text import are, counted, list_some

LAYOUT = "{train,valid}/XR_WRIST/patient00001/study1_positive/image1.png"
STUDY = r"(?:^|/)((train|valid)/XR_(\w+)/(patient\w+)/(study\d+)(?:_(positive|negative))?)"
STUDY_PATH = re.compile(STUDY + r"/?$")
IMAGE_PATH = re.compile(STUDY + r"/([^/]+)$")
LIST_LABELS = {"0": "normal", "1": "abnormal", "0.0": "normal", "1.0": "abnormal"}
SUFFIX_LABELS = {"negative": "normal", "positive": "abnormal"}
REGIONS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")
PARTS = {"train": "train", "valid": "test"}
"""Official part -> split. The real test set is hidden; validation is carved from train."""

LABEL_NOTE = (
    "mura: the label says that a study is abnormal, not what is abnormal: it includes hardware and "
    "degeneration, and about half of the positives are reported to show plates, casts or marks."
)
TEST_NOTE = (
    "mura: the public valid part serves as test; the official test set of 207 studies is hidden, "
    "so these metrics are not those of the leaderboard."
)
LICENSE_NOTE = (
    "mura: for research only, under Stanford's research-use agreement; sharing is not allowed."
)


@dataclass(kw_only=True)
class Mura(Dataset):
    """Reads MURA-v1.1 in `root` or root/MURA-v1.1, by its lists if it has them.

    val_share: share of the official train images used for validation, in whole patients.
    split_seed: seed of that choice. Both are used once; afterwards the split file is reused.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split_seed: Annotated[int, Field(ge=0)] = 0

    name = "mura"
    classes = ("normal", "abnormal")
    task = "binary"
    license = "Stanford University Dataset Research Use Agreement (no sharing)"
    citation = (
        "Rajpurkar et al., MURA: Large Dataset for Abnormality Detection in Musculoskeletal "
        "Radiographs, MIDL 2018, arXiv:1712.06957"
    )
    groups = "the dataset's own folders of patients and studies"
    how_to_get = (
        "It is never downloaded: accept the research-use agreement of Stanford AIMI at "
        "https://aimi.stanford.edu/datasets/mura-msk-xrays, and unpack MURA-v1.1 so that "
        "{root}/train/XR_WRIST exists."
    )
    notes: ClassVar[tuple[str, ...]] = (LABEL_NOTE, TEST_NOTE, LICENSE_NOTE)
    split_text = "validation is {val} of the official train part ({recipe})"

    def prepare(self) -> None:
        """Check that the files exist."""
        self._base()

    def manifest(self) -> Manifest:
        """All images that the lists name; without lists, all images in the folders.

        Carves the validation patients once and writes them to the split file.
        """
        base = self._base()
        notes = list(self.notes)
        excluded: Counter[tuple[str, str]] = Counter()
        rows: list[dict[str, Any]] = []
        for part, split in PARTS.items():
            images = _read_part(base, part, notes, excluded)
            labels = study_labels(base, part, images)
            rows += [row | {"split": split} for row in _rows(images, labels)]
        _check_patients(base, rows)
        return self.build(rows, base, excluded=excluded, notes=notes, links="keep", parts=("val",))

    def _base(self) -> Path:
        for base in (self.folder / MURA_FOLDER, self.folder):
            missing = [part for part in PARTS if not subfolders(base / part)]
            if not missing:
                return base
            if len(missing) < len(PARTS):
                raise DataFault(
                    f"{base} has no folders in {missing[0]}; expected {LAYOUT}; "
                    f"{describe_folder(base)}."
                )
        raise self.missing_error(describe_folder(self.folder))


@dataclass(frozen=True)
class ImagePath:
    """The path of an image and its parts.

    folder: of its study. suffix: positive, negative or None. region: lower-case without XR_.
    """

    path: str
    folder: str
    part: str
    region: str
    patient: str
    study: str
    suffix: str | None

    @classmethod
    def parse(cls, path: str) -> "ImagePath | None":
        """None unless the path has MURA's layout; anything before train/ is cut off."""
        match = IMAGE_PATH.search(path)
        if match is None:
            return None
        folder, part, region, patient, study, suffix, name = match.groups()
        return cls(f"{folder}/{name}", folder, part, region.lower(), patient, study, suffix)

    @property
    def study_id(self) -> str:
        """The study without its label, such as elbow/patient00001/study1."""
        return f"{self.region}/{self.patient}/{self.study}"


def read_image_list(file: Path, part: str) -> list[ImagePath]:
    """The images that {part}_image_paths.csv names, without hidden files of macOS.

    Raises DataFault for lines that are not a path of this part.
    """
    images, wrong = [], []
    for number, cells in _lines(file):
        image = next(filter(None, map(ImagePath.parse, cells)), None)
        if image is None or image.part != part:
            wrong.append(f"line {number} ({','.join(cells)})")
        elif not image.path.rpartition("/")[2].startswith("."):
            images.append(image)
    _reject(file, wrong, f"a path such as {LAYOUT.replace('{train,valid}', part)}")
    if not images:
        raise DataFault(f"{file} names no image; delete it to use the images in the folders.")
    return images


def study_labels(base: Path, part: str, images: Iterable[ImagePath]) -> dict[str, str]:
    """The label of each study folder, from the official list if it exists, else from its name.

    Raises DataFault if the two contradict each other or a label is missing.
    """
    file = base / f"{part}_labeled_studies.csv"
    list_label = _read_label_list(file, part) if file.is_file() else None
    labels: dict[str, str] = {}
    contradicting, unlabeled = [], []
    for image in {image.folder: image for image in images}.values():
        name_label = SUFFIX_LABELS.get(image.suffix or "")
        label = name_label if list_label is None else list_label(image)
        if label is None:
            unlabeled.append(image.folder)
        elif name_label not in (None, label):
            contradicting.append(f"{image.folder} ({label})")
        else:
            labels[image.folder] = label
    if contradicting:
        raise DataFault(
            f"{file} contradicts the names of {counted(len(contradicting), 'study folder')}: "
            f"{list_some(contradicting, len(contradicting))}. Find out which is right and correct "
            "the other."
        )
    if unlabeled:
        raise DataFault(
            f"{base} has {counted(len(unlabeled), 'study folder')} without a label, neither in "
            f"{file.name} nor as _positive or _negative at the end of the name: "
            f"{list_some(unlabeled, len(unlabeled))}."
        )
    return labels


def _read_label_list(file: Path, part: str) -> Callable[[ImagePath], str | None]:
    """The label of an image by {part}_labeled_studies.csv, also if that names the other suffix."""
    by_folder: dict[str, str] = {}
    by_study: dict[str, set[str]] = defaultdict(set)
    wrong = []
    for number, cells in _lines(file):
        match = next(filter(None, map(STUDY_PATH.search, cells)), None)
        label = LIST_LABELS.get(cells[-1])
        if match is None or match[2] != part or label is None:
            wrong.append(f"line {number} ({','.join(cells)})")
            continue
        if by_folder.setdefault(match[1], label) != label:
            wrong.append(f"line {number} (a second label for {match[1]})")
        by_study[f"{match[3].lower()}/{match[4]}/{match[5]}"].add(label)
    _reject(file, wrong, "the path of a study and its label, 0 or 1")

    def label_of(image: ImagePath) -> str | None:
        labels = by_study.get(image.study_id, set())
        return by_folder.get(image.folder) or (next(iter(labels)) if len(labels) == 1 else None)

    return label_of


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and non-empty cells of each line; a first line without a path is a header."""
    first = True
    reader = csv_reader(read_text(file))
    try:
        for row in reader:
            cells = [cell.strip().replace("\\", "/") for cell in row if cell.strip()]
            if cells and not (first and not any("/" in cell for cell in cells)):
                yield reader.line_num, cells
            first = first and not cells
    except csv.Error as error:
        raise unreadable_cell(file, reader.line_num, error) from error


def _reject(file: Path, wrong: list[str], expected: str) -> None:
    if wrong:
        raise DataFault(
            f"{file} has {counted(len(wrong), 'line')} that cannot be parsed: "
            f"{list_some(wrong, len(wrong))}; expected {expected}."
        )


def _read_part(
    base: Path, part: str, notes: list[str], excluded: Counter[tuple[str, str]]
) -> list[ImagePath]:
    """The images of one official part, sorted by path; adds to notes and excluded."""
    folder = base / part
    images: dict[str, ImagePath] = {}
    n_hidden = 0
    others: list[str] = []
    misplaced: list[str] = []
    repeated: list[str] = []

    for parent, names in walk(folder, repeated=repeated):
        relative = path_text(Path(parent).relative_to(base).as_posix())
        for name in names:
            path = f"{relative}/{path_text(name)}"
            if is_ignored(name):  # macOS leaves ._image1.png and .DS_Store behind
                n_hidden += 1
            elif os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                others.append(path_text(name))
            elif image := ImagePath.parse(path):
                images[image.path] = image
            else:
                misplaced.append(path)
    if n_hidden:
        notes.append(f"{folder}: skipped {counted(n_hidden, 'hidden file')} left by macOS.")
    notes += skipped_note(folder, others)
    if n := len(repeated):
        notes.append(
            f"{folder}: skipped {counted(n, 'link')} to folders that are already read "
            f"({list_some(repeated, n, 3)})."
        )
    if n := len(misplaced):
        paths = list_some(misplaced, n, 3)
        notes.append(f"{folder}: skipped {counted(n, 'image')} outside the study folders: {paths}.")
    file = base / f"{part}_image_paths.csv"
    if file.is_file():
        listed = {image.path: image for image in read_image_list(file, part)}
        if absent := [path for path in listed if path not in images]:
            raise DataFault(
                f"{file} names {counted(len(absent), 'image')} that {are(len(absent))} missing: "
                f"{list_some(absent, len(absent))}. Unpack the dataset again, or delete these "
                "lines from the list."
            )
        if n := len(images) - len(listed):
            excluded[PARTS[part], f"not in {file.name}"] += n
        images = listed
    else:
        notes.append(f"{file} does not exist; using the images in the folders.")
    if not images:
        raise DataFault(f"{folder} holds no image with the layout {LAYOUT}.")
    if odd := sorted({image.folder for image in images.values() if image.region not in REGIONS}):
        raise DataFault(
            f"{base}: {counted(len(odd), 'study')} {are(len(odd))} of an unknown region: "
            f"{list_some(odd, len(odd), 3)}; known are "
            f"{', '.join(f'XR_{region.upper()}' for region in REGIONS)}."
        )
    return [images[path] for path in sorted(images)]


def _rows(images: Sequence[ImagePath], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Manifest rows without their split."""
    folders: dict[str, set[str]] = defaultdict(set)
    for image in images:
        folders[image.study_id].add(image.folder)

    def study(image: ImagePath) -> str:
        # study1_positive and study1_negative of one patient are two studies.
        suffix = image.suffix if len(folders[image.study_id]) > 1 else None
        return f"{image.study_id}_{suffix}" if suffix else image.study_id

    return [
        {
            "path": image.path,
            "label": labels[image.folder],
            "patient": image.patient,
            "study": study(image),
            "region": image.region,
        }
        for image in images
    ]


def _check_patients(base: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patients[row["split"]].add(row["patient"])
    if shared := sorted(patients["train"] & patients["test"]):
        raise DataFault(
            f"{base}: {counted(len(shared), 'patient')} {are(len(shared))} in train and in valid, "
            f"so the test metrics would be too good: {list_some(shared, len(shared))}. The "
            "original MURA has no such patients; unpack it again."
        )
