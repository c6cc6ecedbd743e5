"""The files of MURA: its folder tree, and its official lists in the forms they are met in."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fracnet.data.manifest import listed
from fracnet.data.sources.base import IMAGE_SUFFIXES
from fracnet.errors import DataFault, UserError
from fracnet.words import counted

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
    contradicting, unlabelled = [], []
    for place in {place.folder: place for place in places}.values():
        own = SUFFIXES.get(place.suffix or "")
        label = own if listed_label is None else listed_label(place)
        if label is None:
            unlabelled.append(place.folder)
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
    if unlabelled:
        told = listed(unlabelled, len(unlabelled))
        if listed_label is None:
            raise DataFault(
                f"{base} has {counted(len(unlabelled), 'study folder')} with neither _positive nor "
                f"_negative at the end of the name, and there is no {file.name} to tell the label: "
                f"{told}."
            )
        raise DataFault(f"{file} gives no label for {counted(len(unlabelled), 'study')}: {told}.")
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
