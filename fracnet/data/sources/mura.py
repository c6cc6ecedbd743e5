"""MURA v1.1: radiographs of the upper limb, normal or abnormal by study."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from fracnet.data.layouts import MURA_FOLDER
from fracnet.data.manifest import Manifest, listed
from fracnet.data.sources.base import Source, contents, subfolders
from fracnet.data.sources.mura_files import (
    LAYOUT,
    Place,
    Tree,
    read_image_list,
    read_tree,
    study_labels,
)
from fracnet.data.splitfile import SplitFile
from fracnet.data.splits import carve
from fracnet.errors import DataFault, UserError
from fracnet.words import are, counted

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
LICENCE_NOTE = "mura: for research only, under Stanford's research-use agreement; not to be shared."


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
    licence: ClassVar[str] = "Stanford University Dataset Research Use Agreement (no sharing)"
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
    notes: ClassVar[tuple[str, ...]] = (LABEL_NOTE, TEST_NOTE, LICENCE_NOTE)

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
