"""What every data set has in common: its facts, `prepare`, `manifest`, and walking its folder.

Patient and study from the headers of DICOM files, where a data set does not name them itself.

A data set without a split of its own, or without all of it: the lacking parts are carved.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from fracnet.data import dicom
from fracnet.data.image_io import MAX_PIXELS, BadImage, image_size, read_ids
from fracnet.data.manifest import Manifest, listed, typed
from fracnet.data.split_file import SplitFile
from fracnet.data.splits import carve, groups_of
from fracnet.utils.errors import UserError

Row = Mapping[str, Any]


def with_header_ids(
    rows: Sequence[Row], folder: Path
) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """The rows with patient and study from DICOM headers, notes, and `groups` where ids are theirs.

    rows: with path, relative to `folder`. A column that any row has stays as it is: names of two
    origins would hide that two images are of one patient. An id that all of several files share is
    what anonymizers write, and is left out.
    """
    filled = [dict(row) for row in rows]
    lacking = [key for key in ("patient", "study") if not any(key in row for row in filled)]
    of_dicom = [row for row in filled if dicom.may_be_dicom(row["path"])] if lacking else []
    if not of_dicom:
        return filled, [], {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        ids = list(pool.map(_ids, [folder / row["path"] for row in of_dicom]))
    notes, used = [], []
    for key in lacking:
        found = [of_file[key] for of_file in ids]
        n = sum(value is not None for value in found)
        if n > 1 and len(set(found) - {None}) == 1:
            notes.append(
                f"All {n} DICOM files have one {key} id, as anonymized files do; it is not used."
            )
        elif n:
            used.append(key)
            for row, value in zip(of_dicom, found, strict=True):
                row[key] = value
    if not used:
        return filled, notes, {}
    notes.append(
        f"The {' and '.join(used)} ids of {len(of_dicom)} images are those of their DICOM headers. "
        "They go into the run's tables as they are: be sure that they name nobody."
    )
    return filled, notes, {"groups": "DICOM headers"}


def _ids(path: Path) -> dict[str, str | None]:
    try:
        return dict(zip(("patient", "study"), read_ids(path), strict=True))
    except BadImage:
        # The policy for bad files applies when the pixels are read, where they are all listed.
        return {"patient": None, "study": None}


IMAGE_SUFFIXES = dicom.SUFFIXES | {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff"}
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(kw_only=True)
class Source(ABC):
    """A data set on disk. A new one is a subclass in its own file and one YAML that names it.

    root: folder of the files; "~" is expanded.
    on_bad_file: what becomes of unreadable files once their pixels are read, error or skip.

    Class attributes are the facts: `obtain` tells where to get the files and where under `{root}`
    they belong, `phantom` is the choice that runs without them, `notes` are for every user.
    """

    root: str
    on_bad_file: Literal["error", "skip"] = "error"

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    task: ClassVar[Literal["multiclass", "binary"]]
    license: ClassVar[str]
    citation: ClassVar[str]
    groups: ClassVar[str]
    obtain: ClassVar[str]
    phantom: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.root, str) or not self.root.strip():
            raise UserError(f"data.root={self.root!r}: it must name a folder.")
        check_choice("data.on_bad_file", self.on_bad_file, ("error", "skip"))

    @property
    def folder(self) -> Path:
        """`root` as an absolute path."""
        return Path(self.root).expanduser().resolve()

    @abstractmethod
    def prepare(self) -> None:
        """Make the files be there (download, generate). Called once, by one process; idempotent.

        Raises `missing(...)` where it cannot.
        """

    @abstractmethod
    def manifest(self) -> Manifest:
        """Read the folder, without decoding pixels. Raises UserError for what is wrong in it."""

    def missing(self, why: str) -> UserError:
        """The error for data that is not there, in three lines: get it, point to it, do without."""
        return UserError(
            f"No {self.name} data: {why.rstrip('.')}. {self.obtain.format(root=self.folder)}\n"
            "Or point to a copy: data.root=/path/to/a/copy\n"
            f"Or run on phantoms: data={self.phantom} model.pretrained=false"
        )

    def build(
        self,
        rows: Sequence[dict[str, Any]],
        folder: Path,
        *,
        excluded: Sequence[dict[str, Any]] = (),
        notes: Sequence[str] = (),
        **facts: Any,
    ) -> Manifest:
        """A manifest from rows that have at least path (relative to `folder`), split and label.

        Fills in width and height from the headers, and patient and study from those of DICOM files
        where no row has one; other columns that a row lacks are missing.
        excluded: rows split, reason, n. notes: those of the class and of this very folder.
        facts: classes, task, groups, ... where they are not those of the class.
        """
        rows, from_headers, found = with_header_ids(rows, folder)
        table = pd.DataFrame(list(rows))
        sizes = header_sizes([folder / path for path in table.get("path", [])])
        table["width"] = pd.array([size and size[0] for size in sizes], dtype="Int64")
        table["height"] = pd.array([size and size[1] for size in sizes], dtype="Int64")
        keys = ("classes", "task", "name", "license", "citation", "groups")
        own = {key: getattr(self, key) for key in keys} | facts | found
        return Manifest(
            table=typed(table),
            root=folder,
            excluded=pd.DataFrame(list(excluded), columns=["split", "reason", "n"]),
            notes=(*notes, *from_headers),
            **own,
        )


def check_choice(key: str, value: object, allowed: Sequence[str]) -> None:
    """Raise UserError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError(f"{key}={value!r}: allowed are {', '.join(allowed)}.")


def header_sizes(paths: Iterable[Path]) -> list[tuple[int, int] | None]:
    """(width, height) of each file from its header; None where that cannot be read."""
    files = list(paths)
    length = min(64, len(files) // 32 + 1)  # a thread's order: one file each would cost more
    orders = [files[start : start + length] for start in range(0, len(files), length)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [size for sizes in pool.map(_sizes, orders) for size in sizes]


def _sizes(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    return [_png_size(file) or _header_size(file) for file in files]


def _png_size(path: Path) -> tuple[int, int] | None:
    """A short cut: the first 24 bytes of a PNG are all that is needed. None for anything else."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(24)
    except OSError:
        return None  # left to `image_size`, as all that is not a plain case
    width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    plain = head[:16] == PNG_START and 0 < width * height <= MAX_PIXELS
    return (width, height) if plain else None


def _header_size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except BadImage:
        # The policy for bad files applies when the pixels are read, where they are all listed.
        return None


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name, without hidden entries and archiver's leavings."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name != "__MACOSX"
    )


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder; none if there is no such folder."""
    return [entry for entry in visible(folder) if entry.is_dir()] if folder.is_dir() else []


def image_files(folder: Path) -> tuple[list[Path], int]:
    """The visible image files (see `is_image`), sorted, and the number of other files."""
    files = [entry for entry in visible(folder) if not entry.is_dir()]
    images = [file for file in files if is_image(file)]
    return images, len(files) - len(images)


def files_below(folder: Path, root: Path, skipped: Sequence[str] = ()) -> Iterator[str]:
    """Paths relative to `root` of the visible files in a folder of it and below, sorted by folder.

    skipped: names of folders that are not looked into. No Path of every file is made: each would
    leave a trace in memory.
    """
    for parent, below, names in os.walk(folder, followlinks=True):
        below[:] = sorted(n for n in below if n[0] != "." and n not in ("__MACOSX", *skipped))
        here = Path(parent).relative_to(root).as_posix()
        start = "" if here == "." else f"{here}/"
        yield from (start + name for name in sorted(names) if not name.startswith("."))


def is_image(file: Path | str) -> bool:
    """By its extension; DICOM files often have none, or the end of a UID, and tell by content."""
    if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
        return True
    if not dicom.may_be_dicom(file):
        return False
    try:
        with open(file, "rb") as opened:
            return dicom.is_dicom(opened.read(dicom.HEAD))
    except OSError:
        return False  # as any other file that does not look like an image


def contents(folder: Path) -> str:
    """One clause on what is found at a path, for messages."""
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is a file, not a folder"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in visible(folder)]
    named = "this folder" if folder == Path() else str(folder)  # a dot reads as the end
    return f"{named} holds {listed(names, len(names), 6)}" if names else f"{named} is empty"


SPLIT_FILE = "fracnet_split.csv"


class Split(NamedTuple):
    """rows with their split, notes on it, and what `Source.build` takes as facts."""

    rows: list[dict[str, Any]]
    notes: list[str]
    facts: dict[str, Any]


@dataclass(kw_only=True)
class OwnSplit(Source):
    """A source whose split fracnet makes: once, into a file beside the data, obeyed ever since.

    val_share, test_share: shares of all images that validate and test, in whole groups (patients,
        else studies, else images), alike in labels and regions.
    split_seed: which groups these are.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("val_share", "test_share"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"data.{key}={getattr(self, key)}: it must lie between 0 and 1.")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"data.val_share={self.val_share} and data.test_share={self.test_share} leave "
                "nothing to train on: their sum must be below 1."
            )

    def split(
        self,
        rows: Sequence[Mapping[str, Any]],
        folder: Path,
        parts: Sequence[str] = ("val", "test"),
        together: Callable[[str], str] | None = None,
    ) -> Split:
        """Part rows into train and `parts`.

        rows: with path, label, and region, patient, study where known; ids in DICOM headers are
            known. folder: of the images and of the split file.
        together: from the path of an image without patient and study to a key; images of one key
            are not parted. Asked only when the split is made.

        Raises UserError where a class has too few groups, and as SplitFile does.
        """
        filled, notes, facts = with_header_ids(rows, folder)
        table = typed(pd.DataFrame(filled))
        shares = {part: float(getattr(self, f"{part}_share")) for part in parts}
        groups = groups_of(table)
        units = sorted(groups["unit"].unique())
        named = groups["group"].astype(str)
        if len(units) > 1:  # a study may be called as a patient is
            named = groups["unit"] + " " + named
        unit = units[0] if len(units) == 1 else "group"
        recipe: dict[str, int | float] = {f"data.{part}_share": shares[part] for part in shares}
        file = SplitFile(
            folder=folder,
            file_name=SPLIT_FILE,
            title=f"Split of {self.name}",
            columns=(unit, "split"),
            parts=("train", *parts),
            recipe=recipe | {"data.split_seed": self.split_seed},
        )

        def make() -> dict[str, str]:
            dealt = table.reset_index(drop=True)
            alone = (groups["unit"] == "image").to_numpy()
            if together is not None and alone.any():
                study = dealt["study"].to_numpy(dtype=object).copy()
                study[alone] = [together(path) for path in dealt["path"][alone]]
                dealt = dealt.assign(study=study)
            return dict(zip(named, self._dealt(dealt, shares), strict=True))

        split_of = file.part_of(set(named), make)
        for row, group in zip(filled, named, strict=True):
            row["split"] = split_of[group]
            row.setdefault("patient", None)
            row.setdefault("study", None)
        told = ", ".join(f"{key}={value}" for key, value in file.recipe.items())
        note = f"{self.name}: the split is fracnet's own, by {unit} ({told}), as {SPLIT_FILE} says."
        return Split(filled, [*notes, note], facts)

    def _dealt(self, table: pd.DataFrame, shares: dict[str, float]) -> list[str]:
        split = np.full(len(table), "train", dtype=object)
        left = 1.0
        for part in sorted(shares):  # test, then val from what is left
            free = np.flatnonzero(split == "train")
            split[free[carve(table.iloc[free], shares[part] / left, self.split_seed)]] = part
            left -= shares[part]
        return split.tolist()
