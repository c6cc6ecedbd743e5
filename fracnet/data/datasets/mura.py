"""MURA v1.1: radiographs of the upper limb, normal or abnormal by study.

The files of MURA: its folder tree, and its official lists in the forms they are met in.
"""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from fracnet.data.datasets.base import IMAGE_SUFFIXES, Source, contents, subfolders
from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.manifest import Manifest, listed
from fracnet.data.split_file import SplitFile
from fracnet.data.splits import carve
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.text import are, counted

LAYOUT = "{train,valid}/XR_WRIST/patient00001/study1_positive/image1.png"

_STUDY = r"(?:^|/)((train|valid)/XR_(\w+)/(patient\w+)/(study\d+)(?:_(positive|negative))?)"
STUDY = re.compile(_STUDY + r"/?$")
IMAGE = re.compile(_STUDY + r"/([^/]+)$")
LISTED = {"0": "normal", "1": "abnormal", "0.0": "normal", "1.0": "abnormal"}
SUFFIXES = {"negative": "normal", "positive": "abnormal"}


@dataclass(frozen=True)
class Place:
    """What the path of an image tells: its study's folder, and the parts of that.

    suffix is positive, negative or None; region is lower-case without XR_.
    """

    path: str
    folder: str
    part: str
    region: str
    patient: str
    study: str
    suffix: str | None

    @classmethod
    def of(cls, path: str) -> "Place | None":
        """None where the path is not laid out like MURA's; what stands before train/ is cut."""
        found = IMAGE.search(path)
        if found is None:
            return None
        folder, part, region, patient, study, suffix, name = found.groups()
        return cls(f"{folder}/{name}", folder, part, region.lower(), patient, study, suffix)

    @property
    def number(self) -> str:
        """The study without its label, such as elbow/patient00001/study1."""
        return f"{self.region}/{self.patient}/{self.study}"


@dataclass
class Tree:
    """The files of one official part: images by path, and how many others there are."""

    images: dict[str, Place] = field(default_factory=dict)
    hidden: int = 0
    others: int = 0
    misplaced: list[str] = field(default_factory=list)


def read_tree(base: Path, part: str) -> Tree:
    """Walk base/train or base/valid, without opening a file."""
    tree = Tree()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    top = str(base / part)
    for folder, below, names in os.walk(top, onerror=refuse, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        relative = part + folder[len(top) :].replace(os.sep, "/")
        for name in names:
            if name.startswith("."):  # ._image1.png and .DS_Store, which macOS leaves behind
                tree.hidden += 1
            elif os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                tree.others += 1
            elif place := Place.of(f"{relative}/{name}"):
                tree.images[place.path] = place
            else:
                tree.misplaced.append(f"{relative}/{name}")
    return tree


def read_image_list(file: Path, part: str) -> list[Place]:
    """The images that {part}_image_paths.csv names, without those that macOS left behind.

    Raises DataFault for lines that are no path of this part.
    """
    places, wrong = [], []
    for number, cells in _lines(file):
        place = next(filter(None, map(Place.of, cells)), None)
        if place is None or place.part != part:
            wrong.append(f"line {number} ({','.join(cells)})")
        elif not place.path.rpartition("/")[2].startswith("."):
            places.append(place)
    _refuse(file, wrong, f"a path such as {LAYOUT.replace('{train,valid}', part)}")
    if not places:
        raise DataFault(f"{file} names no image; delete it to have the folders read instead.")
    return places


def study_labels(base: Path, part: str, places: Iterable[Place]) -> dict[str, str]:
    """The label of each study folder: by the official list where there is one, else by its name.

    Raises DataFault where the two contradict each other and where there is no label.
    """
    file = base / f"{part}_labeled_studies.csv"
    listed_label = _read_label_list(file, part) if file.is_file() else None
    labels: dict[str, str] = {}
    contradicting, unlabeled = [], []
    for place in {place.folder: place for place in places}.values():
        own = SUFFIXES.get(place.suffix or "")
        label = own if listed_label is None else listed_label(place)
        if label is None:
            unlabeled.append(place.folder)
        elif own not in (None, label):
            contradicting.append(f"{place.folder} ({label})")
        else:
            labels[place.folder] = label
    if contradicting:
        raise DataFault(
            f"{file} contradicts the names of {counted(len(contradicting), 'study folder')}: "
            f"{listed(contradicting, len(contradicting))}. Find out which is right and mend the "
            "other."
        )
    if unlabeled:
        told = listed(unlabeled, len(unlabeled))
        if listed_label is None:
            raise DataFault(
                f"{base} has {counted(len(unlabeled), 'study folder')} with neither _positive nor "
                f"_negative at the end of the name, and there is no {file.name} to tell the label: "
                f"{told}."
            )
        raise DataFault(f"{file} gives no label for {counted(len(unlabeled), 'study')}: {told}.")
    return labels


def _read_label_list(file: Path, part: str) -> Callable[[Place], str | None]:
    """What {part}_labeled_studies.csv says of a place, also where it names the other suffix."""
    of_folder: dict[str, str] = {}
    of_number: dict[str, set[str]] = defaultdict(set)
    wrong = []
    for number, cells in _lines(file):
        found = next(filter(None, map(STUDY.search, cells)), None)
        label = LISTED.get(cells[-1])
        if found is None or found[2] != part or label is None:
            wrong.append(f"line {number} ({','.join(cells)})")
            continue
        if of_folder.setdefault(found[1], label) != label:
            wrong.append(f"line {number} (a second label for {found[1]})")
        of_number[f"{found[3].lower()}/{found[4]}/{found[5]}"].add(label)
    _refuse(file, wrong, "the path of a study and its label, 0 or 1")

    def label_of(place: Place) -> str | None:
        labels = of_number.get(place.number, set())
        return of_folder.get(place.folder) or (next(iter(labels)) if len(labels) == 1 else None)

    return label_of


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and filled cells of each line, without a header: a first line that has no path."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error
    first = True
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip().replace("\\", "/") for cell in row if cell.strip()]
        if cells and not (first and not any("/" in cell for cell in cells)):
            yield number, cells
        first = first and not cells


def _refuse(file: Path, wrong: list[str], expected: str) -> None:
    if wrong:
        raise DataFault(
            f"{file} has {counted(len(wrong), 'line')} that cannot be understood: "
            f"{listed(wrong, len(wrong))}; expected is {expected}."
        )


SPLIT_FILE = "fracnet_split.csv"
REGIONS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")

# The official valid part is the test: the real test set is hidden. Validation comes from train.
PARTS = {"train": "train", "valid": "test"}

LABEL_NOTE = (
    "mura: the label says abnormal, of a whole study, and not what is abnormal: it includes "
    "hardware and degeneration, and about half of the positives are reported to show plates, "
    "casts or marks."
)
TEST_NOTE = (
    "mura: the public valid part serves as test; the official test set of 207 studies is hidden, "
    "so figures here are not those of the leaderboard."
)
LICENSE_NOTE = "mura: for research only, under Stanford's research-use agreement; not to be shared."


@dataclass(kw_only=True)
class Mura(Source):
    """Reads MURA-v1.1 in `root` or root/MURA-v1.1, by its lists where they lie there.

    val_share: share of the official train images that validates, in whole patients.
    split_seed: which patients these are. Both are used once; then the split file is obeyed.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split_seed: Annotated[int, Field(ge=0)] = 0

    name: ClassVar[str] = "mura"
    classes: ClassVar[tuple[str, ...]] = ("normal", "abnormal")
    task: ClassVar[Literal["multiclass", "binary"]] = "binary"
    license: ClassVar[str] = "Stanford University Dataset Research Use Agreement (no sharing)"
    citation: ClassVar[str] = (
        "Rajpurkar et al., MURA: Large Dataset for Abnormality Detection in Musculoskeletal "
        "Radiographs, MIDL 2018, arXiv:1712.06957"
    )
    groups: ClassVar[str] = "the data set's own folders of patients and studies"
    obtain: ClassVar[str] = (
        "It is never downloaded: accept the research-use agreement of Stanford AIMI at "
        "https://aimi.stanford.edu/datasets/mura-msk-xrays, and unpack MURA-v1.1 so that "
        "{root}/train/XR_WRIST exists."
    )
    phantom: ClassVar[str] = "mura_phantom"
    notes: ClassVar[tuple[str, ...]] = (LABEL_NOTE, TEST_NOTE, LICENSE_NOTE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.val_share < 1:
            raise UserError(f"data.val_share={self.val_share}: it must lie between 0 and 1.")

    def prepare(self) -> None:
        """Only look whether the files are there."""
        self._base()

    def manifest(self) -> Manifest:
        """All images that the lists name, or that lie in the folders where there are no lists.

        Carves the validation patients and writes them down where that has not been done.
        """
        base = self._base()
        notes = list(self.notes)
        excluded: Counter[tuple[str, str]] = Counter()
        rows: list[dict[str, Any]] = []
        for part, split in PARTS.items():
            places = _read_part(base, part, split, notes, excluded)
            rows += _rows(places, study_labels(base, part, places))
        _refuse_shared_patients(base, rows)
        val = self._val_patients(base, rows)
        for row in rows:
            official = PARTS[row["path"].partition("/")[0]]
            row["split"] = "val" if official == "train" and row["patient"] in val else official
        carved = (
            f"{self.name}: validation is {counted(len(val), 'patient')} of the official train part "
            f"(data.val_share={self.val_share}, data.split_seed={self.split_seed}), as "
            f"{SPLIT_FILE} says."
        )
        told = [{"split": split, "reason": why, "n": n} for (split, why), n in excluded.items()]
        manifest = self.build(rows, base, excluded=told, notes=[*notes, carved])
        return replace(manifest, split_note=carved)

    def _base(self) -> Path:
        for base in (self.folder / MURA_FOLDER, self.folder):
            parts = [part for part in PARTS if subfolders(base / part)]
            if len(parts) == len(PARTS):
                return base
            if parts:
                lacking = next(part for part in PARTS if part not in parts)
                raise DataFault(
                    f"{base} has images for {parts[0]}, but no folders in {lacking}: expected is "
                    f"{LAYOUT}; {contents(base)}."
                )
        raise self.missing(contents(self.folder))

    def _val_patients(self, base: Path, rows: Sequence[Mapping[str, Any]]) -> set[str]:
        table = pd.DataFrame([row for row in rows if row["path"].startswith("train/")])
        file = SplitFile(
            folder=base,
            file_name=SPLIT_FILE,
            title=f"Split of {self.name}",
            columns=("patient", "split"),
            parts=("train", "val"),
            recipe={"data.val_share": self.val_share, "data.split_seed": self.split_seed},
        )

        def make() -> dict[str, str]:
            splits = np.where(carve(table, self.val_share, self.split_seed), "val", "train")
            return dict(zip(table["patient"], splits.tolist(), strict=True))

        patients = set(table["patient"])
        split_of = file.part_of(patients, make)
        return {patient for patient in patients if split_of[patient] == "val"}


def _read_part(
    base: Path, part: str, split: str, notes: list[str], excluded: Counter[tuple[str, str]]
) -> list[Place]:
    """The images of one official part, sorted by path; what is left out is told or counted."""
    tree = read_tree(base, part)
    _note_leavings(base / part, tree, notes)
    images = tree.images
    file = base / f"{part}_image_paths.csv"
    if file.is_file():
        images = {place.path: place for place in read_image_list(file, part)}
        if lost := [path for path in images if path not in tree.images]:
            raise DataFault(
                f"{file} names {counted(len(lost), 'image')} that {are(len(lost))} not there: "
                f"{listed(lost, len(lost))}. Unpack the data set again, or take these lines out of "
                "the list."
            )
        if more := len(tree.images) - len(images):
            excluded[split, f"not in {file.name}"] += more
    else:
        notes.append(f"{file} is not there: the images are those of the folders.")
    if not images:
        raise DataFault(f"{base / part} holds no image laid out as {LAYOUT}.")
    if odd := sorted({place.folder for place in images.values() if place.region not in REGIONS}):
        told = listed(odd, len(odd), 3)
        raise DataFault(
            f"{base}: {counted(len(odd), 'study')} {are(len(odd))} of an unknown region: {told}; "
            f"known are {', '.join(f'XR_{region.upper()}' for region in REGIONS)}."
        )
    return [images[path] for path in sorted(images)]


def _rows(places: Sequence[Place], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Manifest rows without their split."""
    folders: dict[str, set[str]] = defaultdict(set)
    for place in places:
        folders[place.number].add(place.folder)
    return [
        {
            "path": place.path,
            "label": labels[place.folder],
            "patient": place.patient,
            # study1_positive beside study1_negative are two studies.
            "study": place.number
            + (f"_{place.suffix}" if place.suffix and len(folders[place.number]) > 1 else ""),
            "region": place.region,
        }
        for place in places
    ]


def _note_leavings(folder: Path, tree: Tree, notes: list[str]) -> None:
    if n := tree.hidden:
        notes.append(f"{folder}: left out {counted(n, 'hidden file')}, as macOS leaves them.")
    if n := tree.others:
        notes.append(f"{folder}: left out {counted(n, 'file')} with no image's extension.")
    if n := len(tree.misplaced):
        told = listed(tree.misplaced, n, 3)
        notes.append(f"{folder}: left out {counted(n, 'image')} lying where none should: {told}.")


def _refuse_shared_patients(base: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    of_part: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        of_part[row["path"].partition("/")[0]].add(row["patient"])
    if shared := sorted(of_part["train"] & of_part["valid"]):
        raise DataFault(
            f"{base}: {counted(len(shared), 'patient')} {are(len(shared))} in train and in valid, "
            f"so the test figures would be too good: {listed(shared, len(shared))}. MURA has none "
            "such; unpack it again."
        )
