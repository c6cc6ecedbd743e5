"""What every dataset shares: its facts, reading its folder, and a split where it has none."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from fracnet.config.hints import phantom_command
from fracnet.data import dicom_files
from fracnet.data.image_io import MAX_PIXELS, BadImage, class_without_image, image_size, read_ids
from fracnet.data.manifest import Manifest, with_manifest_types
from fracnet.data.split_file import SplitFile
from fracnet.data.splits import groups_of, name_groups, sample_groups
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.files import file_key, path_from_text, path_text, without_waiting
from fracnet.utils.text import are, counted, list_some

Row = dict[str, Any]

SPLIT_FILE = "fracnet_split.csv"
JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"}
IMAGE_SUFFIXES = dicom_files.SUFFIXES | JPEG_SUFFIXES | {".png", ".gif", ".bmp", ".tif", ".tiff"}
SYSTEM_FOLDERS = {
    "__macosx",
    "@eadir",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
"""Folders of operating systems and file servers, in lower case; some hold thumbnails."""
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(kw_only=True)
class Dataset(ABC):
    """A dataset on disk. A new one is a subclass in its own file and one YAML that names it.

    root: folder of the files; "~" is expanded.
    on_bad_file: what to do with files whose pixels cannot be read, error or skip.

    The class attributes are its facts. how_to_get: where to get the files and where under `{root}`
    they belong. phantom: the data choice that runs without them. notes: shown to every user.
    """

    root: str
    on_bad_file: Literal["error", "skip"] = "error"

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    task: ClassVar[Literal["multiclass", "binary"]]
    license: ClassVar[str]
    citation: ClassVar[str]
    groups: ClassVar[str] = "unknown"
    how_to_get: ClassVar[str]
    phantom: ClassVar[str] = "mura_phantom"
    notes: ClassVar[tuple[str, ...]] = ()
    split_text: ClassVar[str] = "fracnet split the images by {unit} ({recipe})"

    def __post_init__(self) -> None:
        if not isinstance(self.root, str) or not self.root.strip():
            raise UserError(f"data.root={self.root!r}: it must name a folder.")

    @property
    def folder(self) -> Path:
        """`root` as an absolute path."""
        return Path(self.root).expanduser().resolve()

    @abstractmethod
    def prepare(self) -> None:
        """Provide the files (download, generate, or only check). Called by one process; idempotent.

        Raises `missing_error(...)` if the files are not available.
        """

    @abstractmethod
    def manifest(self) -> Manifest:
        """Read the folder without decoding pixels. Raises UserError for faults in it."""

    def missing_error(self, why: str) -> UserError:
        """The error for missing data, in three lines: get it, point to a copy, use phantoms."""
        return UserError(
            f"No {self.name} data: {why.rstrip('.')}. {self.how_to_get.format(root=self.folder)}\n"
            "Or point to a copy: data.root=/path/to/a/copy\n"
            f"Or run on phantoms: {phantom_command(self.phantom)}"
        )

    def build(
        self,
        rows: Iterable[Mapping[str, Any]],
        folder: Path,
        *,
        excluded: Mapping[tuple[str, str], int] | None = None,
        notes: Sequence[str] = (),
        links: Literal["once", "keep"] = "once",
        parts: Sequence[str] = (),
        **facts: Any,
    ) -> Manifest:
        """A manifest from rows with at least path (relative to `folder`), split and label.

        Adds width and height from the file headers, and patient and study from DICOM headers where
        no row has one. Other columns that a row lacks are missing.
        links: "once" lists each real file once (see `distinct_rows`); "keep" is for a dataset whose
        own list gives each path its meaning.
        excluded: number of images by (split, reason). notes: those of the class and of this folder.
        parts: splits to create from the rows of train, or without a split (see `UnsplitDataset`).
        facts: classes, task, groups, ... where they differ from the class attributes.

        Raises UserError if a class has too few groups, or for a split file that does not fit.
        """
        valid = valid_rows(rows)
        distinct, link_notes = distinct_rows(valid, folder) if links == "once" else (valid, [])
        table_rows, id_notes, id_facts = add_dicom_ids(distinct, folder)
        notes = [*notes, *link_notes, *id_notes]
        if parts:
            table_rows, split_note = self._split(table_rows, folder, parts, facts.get("missing"))
            notes.append(split_note)
            if "val" in parts and len(parts) == 1:  # folds replace such a split
                facts["split_note"] = path_text(split_note)
        table = pd.DataFrame(table_rows)
        sizes = header_sizes([path_from_text(folder, path) for path in table.get("path", [])])
        table["width"] = pd.array([size and size[0] for size in sizes], dtype="Int64")
        table["height"] = pd.array([size and size[1] for size in sizes], dtype="Int64")
        keys = ("classes", "task", "name", "license", "citation", "groups")
        return Manifest(
            table=with_manifest_types(table),
            root=folder,
            excluded=pd.DataFrame(
                [(*key, n) for key, n in (excluded or {}).items()], columns=["split", "reason", "n"]
            ),
            notes=tuple(path_text(note) for note in notes),
            **({key: getattr(self, key) for key in keys} | facts | id_facts),
        )

    def group_key(self, file: Path) -> str | None:
        """Equal for images without patient and study that belong into one created split."""
        return None

    def _split(
        self, rows: Sequence[Row], folder: Path, parts: Sequence[str], missing: str | None
    ) -> tuple[list[Row], str]:
        """The rows, those of train first and split into train and `parts`; a note on it."""
        train = [row for row in rows if row.get("split", "train") == "train"]
        others = [row for row in rows if row.get("split", "train") != "train"]
        table = with_manifest_types(pd.DataFrame(train))
        groups = groups_of(table)
        unit, names = name_groups(groups)
        keys = (*(f"{part}_share" for part in parts), "split_seed")
        recipe = {f"data.{key}": getattr(self, key) for key in keys}
        shares = {part: recipe[f"data.{part}_share"] for part in parts}
        file = SplitFile(
            folder=folder,
            file_name=SPLIT_FILE,
            title=f"Split of {self.name}",
            columns=(unit, "split"),
            parts=("train", *shares),
            recipe=recipe,
        )

        def create() -> dict[str, str]:
            single = (groups["unit"] == "image").to_numpy()
            study = table["study"].to_numpy(dtype=object).copy()
            study[single] = [
                self.group_key(path_from_text(folder, path)) for path in table["path"][single]
            ]
            splits = assign_splits(table.assign(study=study), shares, recipe["data.split_seed"])
            return dict(zip(names, splits, strict=True))

        try:
            split_of = file.load_or_create(set(names), create)
        except UserError as error:
            raise UserError(f"{missing or ''} {error}".strip()) from error
        for row, name in zip(train, names, strict=True):
            row["split"] = split_of[name]
        note = self.split_text.format(
            unit=unit,
            val=counted(len({name for name in names if split_of[name] == "val"}), unit),
            recipe=", ".join(f"{key}={value}" for key, value in recipe.items()),
        )
        return [*train, *others], f"{self.name}: {note}; see {SPLIT_FILE}."


@dataclass(kw_only=True)
class UnsplitDataset(Dataset):
    """A dataset without an official split. fracnet creates one, writes it to a file and reuses it.

    val_share, test_share: shares of all images for validation and test, in whole groups (patients,
        else studies, else images) with a similar mix of labels and regions.
    split_seed: seed of that choice.
    """

    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"data.val_share={self.val_share} and data.test_share={self.test_share} leave "
                "nothing to train on: their sum must be below 1."
            )

    def build(self, rows: Iterable[Mapping[str, Any]], folder: Path, **known: Any) -> Manifest:
        """As `Dataset.build`, of rows without a split; by default with both parts."""
        return super().build(rows, folder, **{"parts": ("val", "test")} | known)


def assign_splits(table: pd.DataFrame, shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each row: whole groups in these shares of all images, the rest in train."""
    table = table.reset_index(drop=True)
    split = np.full(len(table), "train", dtype=object)
    rest = 1.0
    for part in sorted(shares):  # test, then val from what remains
        free = np.flatnonzero(split == "train")
        split[free[sample_groups(table.iloc[free], shares[part] / rest, seed)]] = part
        rest -= shares[part]
    return split.tolist()


def valid_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Copies of the rows with all text valid (see `path_text`) and empty ids missing."""
    copies: list[Row] = [
        {key: path_text(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    for row in copies:
        row |= {key: None for key in ("patient", "study", "region") if row.get(key) == ""}
    return copies


def distinct_rows(rows: Iterable[Row], folder: Path) -> tuple[list[Row], list[str]]:
    """The rows, each real file once, and notes on what was skipped.

    Links may give one file several paths; the first one counts. A path that is listed twice is left
    to `Manifest.check`.

    Raises DataFault if the paths of one file have different labels, splits, patients or studies.
    """
    rows = list(rows)
    with ThreadPoolExecutor(max_workers=8) as pool:
        files = [path_from_text(folder, row["path"]) for row in rows]
        keys = list(pool.map(file_key, files, chunksize=64))
    first: dict[int | str, Row] = {}
    distinct, repeated, conflicts = [], [], []
    for key, row in zip(keys, rows, strict=True):
        earlier = row if key is None else first.setdefault(key, row)
        if earlier is row or earlier["path"] == row["path"]:
            distinct.append(row)
            continue
        repeated.append(f"{row['path']} is {earlier['path']}")
        for name in ("label", "split", "patient", "study"):
            if (left := earlier.get(name)) != (right := row.get(name)):
                conflicts.append(f"{repeated[-1]}, with {name} {right} and {left}")
                break
    if conflicts:
        raise DataFault(
            f"{folder} has {counted(len(conflicts), 'link')} to images that are also listed with "
            f"another label, split, patient or study: {'; '.join(conflicts[:10])}"
            f"{f' and {len(conflicts) - 10} more' if len(conflicts) > 10 else ''}. Remove one path "
            "of each."
        )
    notes = []
    if n := len(repeated):
        notes.append(
            f"{folder}: skipped {counted(n, 'link')} to images that are already listed "
            f"({list_some(repeated, n, 3)})."
        )
    return distinct, notes


def add_dicom_ids(
    rows: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[list[Row], list[str], dict[str, Any]]:
    """Copies of the rows with patient and study from DICOM headers, notes, and facts (`groups`).

    rows: with path, relative to `folder`. A column that any row has stays as it is: names of two
    origins could hide that two images show one patient. An id that is the same in all of several
    files was written by an anonymizer and is ignored.
    """
    filled: list[Row] = [dict(row) for row in rows]
    absent = [key for key in ("patient", "study") if not any(key in row for row in filled)]
    candidates = [row for row in filled if dicom_files.may_be_dicom(row["path"])] if absent else []
    if not candidates:
        return filled, [], {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        files = [path_from_text(folder, row["path"]) for row in candidates]
        ids = list(pool.map(_header_ids, files))
    notes, used = [], []
    for key in absent:
        values = [getattr(file_ids, key) for file_ids in ids]
        n = sum(value is not None for value in values)
        if n > 1 and len(set(values) - {None}) == 1:
            notes.append(
                f"All {n} DICOM files have one {key} id, as anonymized files do; it is ignored."
            )
        elif n:
            used.append(key)
            for row, value in zip(candidates, values, strict=True):
                row[key] = value and path_text(value)
    if not used:
        return filled, notes, {}
    notes.append(
        f"The {' and '.join(used)} ids of {len(candidates)} images come from their DICOM headers. "
        "The run's tables contain them unchanged: make sure that they identify nobody."
    )
    return filled, notes, {"groups": "DICOM headers"}


def _header_ids(path: Path) -> dicom_files.Ids:
    try:
        return read_ids(path)
    except BadImage:  # on_bad_file applies when the pixels are read, where all bad files are listed
        return dicom_files.Ids(None, None)


def header_sizes(paths: Iterable[Path]) -> list[tuple[int, int] | None]:
    """(width, height) of each file from its header; None if that cannot be read."""
    files = list(paths)
    length = min(64, len(files) // 32 + 1)  # one task per file would cost more
    batches = [files[start : start + length] for start in range(0, len(files), length)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        sizes = pool.map(lambda batch: list(map(_size, batch)), batches)
        return [size for batch in sizes for size in batch]


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with open(path, "rb", buffering=0, opener=without_waiting) as file:
            head = file.read(24) or b""  # a shortcut: in most PNG files these hold the size
        width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
        usual = head[:16] == PNG_START and 0 < width * height <= MAX_PIXELS
        return (width, height) if usual else image_size(path)
    except (BadImage, OSError):  # as in `_header_ids`
        return None


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a folder of the system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def visible_entries(folder: Path) -> list[Path]:
    """The entries of a folder sorted by name, without those that `is_ignored`."""
    return sorted(entry for entry in folder.iterdir() if not is_ignored(entry.name))


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    # Not DirEntry.is_dir, which raises for a link to itself.
    return [entry for entry in visible_entries(folder) if entry.is_dir()]


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The visible image files (see `is_image`), sorted, and the names of the other files."""
    files = [entry for entry in visible_entries(folder) if not entry.is_dir()]
    images = [file for file in files if is_image(file)]
    others = set(files) - set(images)
    return images, sorted(path_text(file.name) for file in others)


def _unlisted(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be listed: {error.strerror}.") from error


def walk(
    folder: Path | str,
    *,
    ignored: Sequence[str] = (),
    repeated: list[str] | None = None,
    onerror: Callable[[OSError], None] = _unlisted,
) -> Iterator[tuple[str, list[str]]]:
    """Each folder in `folder` and below with the sorted names of its files, hidden ones included.

    Follows links, but visits a folder that has several paths only once, so that a link to a parent
    does not repeat its files; the other paths are appended to `repeated`. Folders that
    `is_ignored`, or that are named in `ignored`, are left out. By default, a folder that cannot be
    listed raises UserError.
    """
    visited: set[int | str] = set()
    for parent, folders, names in os.walk(folder, onerror=onerror, followlinks=True):
        key = file_key(parent)
        if key in visited:
            folders.clear()
            if repeated is not None:
                repeated.append(parent)
            continue
        if key is not None:
            visited.add(key)
        folders[:] = sorted(name for name in folders if not (is_ignored(name) or name in ignored))
        yield parent, sorted(names)


def files_below(
    folder: Path, root: Path, ignored: Sequence[str] = (), notes: list[str] | None = None
) -> Iterator[str]:
    """Paths relative to `root` of the visible files in `folder` and below, sorted by folder.

    ignored: names of folders to leave out. notes: gets a note on folders that have several paths.
    Yields text, because a Path for every file of a large dataset takes much memory.
    """
    repeated: list[str] = []
    for parent, names in walk(folder, ignored=ignored, repeated=repeated):
        relative = path_text(Path(parent).relative_to(root).as_posix())
        start = "" if relative == "." else f"{relative}/"
        yield from (start + path_text(name) for name in names if not is_ignored(name))
    if repeated and notes is not None:
        n = len(repeated)
        notes.append(
            f"{folder}: skipped {counted(n, 'link')} to {'a folder' if n == 1 else 'folders'} that "
            f"{are(n)} already read ({list_some(repeated, n, 3)})."
        )


def skipped_note(folder: Path, names: Sequence[str]) -> list[str]:
    """A note on files that are not images: endings or DICOM classes, and the first names.

    names: relative to `folder`. No note if there are none.
    """
    if not names:
        return []
    endings = Counter(
        class_without_image(path_from_text(folder, name))
        or os.path.splitext(name)[1].lower()
        or "no ending"
        for name in names
    )
    kinds = [f"{ending} {n}" for ending, n in endings.most_common()]
    n = len(names)
    return [
        f"{folder}: skipped {counted(n, 'file')}, not images ({list_some(kinds, len(kinds), 5)}): "
        f"{list_some(names, n, 5)}."
    ]


def is_image(file: Path | str) -> bool:
    """By its extension; DICOM files, which often have none or the end of a UID, by content.

    A DICOM file of a class without images, such as a structured report, is none.
    """
    named_as_image = os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES
    if not dicom_files.may_be_dicom(file):
        return named_as_image
    try:
        with open(file, "rb", opener=without_waiting) as opened:
            head = opened.read(dicom_files.HEADER_LENGTH) or b""
            is_dicom = dicom_files.is_dicom(head)
    except OSError:
        return named_as_image  # a broken image, or any other file
    return class_without_image(file) is None if is_dicom else named_as_image


def describe_folder(folder: Path) -> str:
    """One clause about what a path holds, for messages."""
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is a file, not a folder"
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in visible_entries(folder)]
    subject = "this folder" if folder == Path() else str(folder)  # a dot would end the sentence
    return f"{subject} holds {list_some(names, len(names), 6)}" if names else f"{subject} is empty"
