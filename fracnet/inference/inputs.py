"""The images that `input=` selects, and how they are read for a model.

`input=` accepts files, folders, patterns, and tables that name files; arrays are accepted as well.
Files are read ahead by a few threads.
"""

import glob
import os
import re
import reprlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fracnet.data.datasets.base import describe_folder, is_ignored, is_image, skipped_note, walk
from fracnet.data.dicom import NoDecoder
from fracnet.data.image_io import (
    BadImage,
    class_without_image,
    limit_opencv_threads,
    read_grey,
    read_ids,
    stretch_to_uint8,
)
from fracnet.data.manifest import list_some
from fracnet.data.preprocess import Preprocess
from fracnet.utils.csv_table import BLANKS, listed_path, read_csv, read_text
from fracnet.utils.errors import UserError
from fracnet.utils.files import file_key, path_text
from fracnet.utils.result_files import PREDICTION_FILE
from fracnet.utils.text import are, as_clause, counted, near_miss

MAX_SIDE = 1024
"""Pixels of the longer side of an image that is kept for display."""
"""Marks the output of an earlier prediction, whose pictures are not radiographs."""


@dataclass(frozen=True)
class InputFile:
    """An image file; patient and study where a table names them, and the line that does."""

    path: Path
    patient: str | None = None
    study: str | None = None
    line: str = field(default="", compare=False)


@dataclass
class InputImages:
    """files: each once, in the order named. notes: sentences on what was skipped."""

    files: list[InputFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str = "images"


def find_images(inputs: Sequence[str], key: str = "input=") -> InputImages:
    """The images that the inputs select, each a file, a folder, a pattern or a table of paths.

    key: prefix of the inputs in messages; "" where no command was typed.

    - A folder: all images in it and below, by extension, DICOM also by content. Hidden entries and
      the output of earlier predictions are skipped.
    - A pattern: `*`, `?`, `[...]`, and `**` for any depth.
    - A table: a .csv with a column path, and optionally patient and study; or a .txt with a path
      per line. Paths are relative to the table.
    - Any other file is read as an image, whatever its name.

    Raises UserError for an input that matches nothing, or no image, and for a file that is listed
    with different patients or studies.
    """
    result = InputImages()
    seen: dict[Path | int | str, InputFile] = {}
    without_image: dict[str, list[str]] = defaultdict(list)
    duplicates = 0
    for text in inputs:
        for file in _matches(text, result, key):
            if kind := class_without_image(file.path):
                without_image[kind].append(str(file.path))
                continue
            place = file_key(file.path) or Path(os.path.abspath(file.path))
            if place in seen:
                duplicates += 1
                file = _merged(seen[place], file)
            seen[place] = file
    result.files = list(seen.values())
    for kind, names in without_image.items():
        files = counted(len(names), "DICOM file")
        result.notes.append(
            f"Skipped {files} without an image ({kind}): {list_some(names, len(names), 3)}."
        )
    result.notes = [path_text(note) for note in result.notes]
    if duplicates:
        result.notes.append(
            f"{counted(duplicates, 'image')} {are(duplicates)} listed more than once and predicted "
            "once."
        )
    if not result.files:
        listed = inputs[0] if len(inputs) == 1 else f"[{', '.join(inputs)}]"
        raise UserError(" ".join([f"{key}{listed} contains no image.", *result.notes]))
    first = Path(inputs[0]).expanduser()
    if len(inputs) == 1 and not _is_pattern(first):
        result.name = (first.resolve().name if first.is_dir() else first.stem) or "images"
    return result


def _matches(text: str, result: InputImages, key: str) -> Iterator[InputFile]:
    path = Path(text).expanduser()
    if path.is_dir():
        yield from _files_below(path, result)
    elif _is_pattern(path):
        names = sorted(glob.glob(str(path), recursive=True))
        if not names:
            raise UserError(f"{key}{text}: no file matches.")
        for name in names:
            if Path(name).is_dir():
                # `**` matches each folder by itself, and its files as well.
                yield from () if "**" in text else _files_below(Path(name), result)
            elif is_image(Path(name)) or "**" not in text:
                yield InputFile(Path(name))
    elif not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        content = describe_folder(path.parent)
        if path.parent == Path():  # described in words
            content = content[0].upper() + content[1:]
        hint = near_miss(path.name, names) or f" {content}."
        raise UserError(f"{key}{text}: no such file or folder.{hint}")
    elif path.suffix.lower() == ".csv":
        yield from _files_in_csv(path, result)
    elif path.suffix.lower() == ".txt":
        for line in re.split(r"[\r\n]+", read_text(path)):
            if name := line.strip(BLANKS):
                yield InputFile(listed_path(name, path.parent))
    else:
        yield InputFile(path)


def _merged(first: InputFile, second: InputFile) -> InputFile:
    """Of two entries for one file, the one that has patient or study."""
    if not (second.patient or second.study):
        return first
    if not (first.patient or first.study):
        return second
    for key in ("patient", "study"):
        left, right = getattr(first, key) or "", getattr(second, key) or ""
        if left != right:
            raise UserError(
                f"{second.line} lists {second.path.name} with {key}={right}, but {first.line} "
                f"lists it with {key}={left}; allowed: one patient and one study per file."
            )
    return first


def _is_pattern(path: Path) -> bool:
    return not path.exists() and glob.has_magic(str(path))


def _files_below(folder: Path, result: InputImages) -> Iterator[InputFile]:
    """The images of a folder and its subfolders, sorted; other files are counted."""
    others: list[str] = []
    repeated: list[str] = []
    earlier: list[str] = []  # folders of earlier predictions

    def unreadable(error: OSError) -> None:
        result.notes.append(f"{error.filename} cannot be read: {error.strerror}.")

    for parent, names in walk(folder, repeated=repeated, onerror=unreadable):
        if any(parent.startswith(f"{other}{os.sep}") for other in earlier):
            continue
        if PREDICTION_FILE in names:
            earlier.append(parent)
            result.notes.append(f"Skipped {parent}: it holds an earlier prediction.")
            continue
        for name in names:
            path = Path(parent, name)
            if is_ignored(name):
                continue
            if is_image(path):
                yield InputFile(path)
            else:
                others.append(path.relative_to(folder).as_posix())
    if repeated:
        n = len(repeated)
        result.notes.append(
            f"{folder}: skipped {counted(n, 'link')} to folders that are already read "
            f"({list_some(repeated, n, 3)})."
        )
    result.notes += skipped_note(folder, others)


def _files_in_csv(path: Path, result: InputImages) -> Iterator[InputFile]:
    table = read_csv(path)
    name = table.column_named("path") or "path"
    table.require([name], " It needs a column path; patient and study are optional.")
    if empty := [i for i, cells in enumerate(table.rows) if not cells[name]]:
        table.reject(empty, name, "the path of an image")
    groups = [table.column_named(key) for key in ("patient", "study")]
    for key, group in zip(("patient", "study"), groups, strict=True):
        if group is None and (unread := table.named_like(key, ())):
            result.notes.append(
                f"{path}: the column {unread!r} is not read; if it names the {key}, call it {key}."
            )
    for cells, line in zip(table.rows, table.lines, strict=True):
        patient, study = (cells[group] or None if group else None for group in groups)
        file = listed_path(cells[name], path.parent)
        yield InputFile(file, patient, study, f"{path}, line {line}")


Given = InputFile | np.ndarray


def resolve_images(images: Any) -> tuple[list[Given], list[str]]:
    """The images, and sentences on what was skipped in folders.

    images: as `Predictor.predict` accepts them; UserError for anything else.
    """
    allowed = (
        "allowed: a path of a file, a folder or a table, a pattern, a grey array [height, width], "
        "or a list of these"
    )
    if isinstance(images, str | Path | np.ndarray):
        images = [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | Mapping):
        raise UserError(f"{reprlib.repr(images)} is not an image; {allowed}.")
    given: list[Given] = []
    notes: list[str] = []
    for place, image in enumerate(images):
        if isinstance(image, np.ndarray):
            given.append(image)
        elif isinstance(image, Path) or (isinstance(image, str) and image.strip()):
            result = find_images([str(image)], key="")
            given += result.files
            notes += result.notes
        else:
            raise UserError(
                f"image {place} is {reprlib.repr(image)} ({type(image).__name__}); {allowed}."
            )
    return given, notes


Frame = Callable[[int, int], tuple[float, float, float, float]]
"""`Preprocess.frame`."""


@dataclass(frozen=True)
class Original:
    """An image before preprocessing, for display.

    pixels: uint8 [h, w], at most `MAX_SIDE` a side. frame: its place in the preprocessed image, as
    `Preprocess.frame` gives it.
    """

    pixels: np.ndarray
    frame: tuple[float, float, float, float]


@dataclass(frozen=True)
class LoadedImage:
    """One image after the run's own preprocessing.

    image: uint8 [S, S]; None where `error` says why the file cannot be read. original: None unless
    requested.
    """

    path: str
    patient: str | None
    study: str | None
    image: np.ndarray | None
    error: str = ""
    original: Original | None = None


def read_images(
    given: Iterable[Given],
    preprocess: Preprocess | None,
    workers: int,
    ahead: int,
    frame: Frame | None = None,
) -> Iterator[LoadedImage]:
    """The images in order; at most `ahead` are held in memory besides the one handed over.

    preprocess: None leaves the images as decoded, of any size. frame: where a
    file of a width and height lies in the preprocessed image; also keeps a copy of each image
    before preprocessing.

    Raises UserError for an array that is not a grey image. A file that cannot be read, or a missing
    DICOM decoder, is reported in `LoadedImage.error`.
    """
    limit_opencv_threads()
    pool = ThreadPoolExecutor(workers)
    left = enumerate(given)
    waiting: deque[Future[LoadedImage]] = deque()

    def submit(count: int) -> None:
        for row, item in islice(left, count):
            waiting.append(pool.submit(_load, row, item, preprocess, frame))

    try:
        submit(ahead)
        while waiting:
            yield waiting.popleft().result()
            submit(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _load(
    row: int, given: Given, preprocess: Preprocess | None, frame: Frame | None
) -> LoadedImage:
    if isinstance(given, np.ndarray):
        grey = _as_grey(given, row)
        original = _original(grey, frame) if frame else None
        pixels = preprocess(grey) if preprocess else grey
        return LoadedImage(f"array {row}", None, None, pixels, original=original)
    patient, study = given.patient, given.study
    image, original, error = None, None, ""
    try:
        grey = read_grey(given.path)
        image = preprocess(grey) if preprocess else grey
        original = _original(grey, frame) if frame else None
    except BadImage as fault:
        error = fault.reason
    except (NoDecoder, OSError) as fault:  # a package is missing; the file was just removed
        error = str(fault)
    if patient is None and study is None:
        try:
            # Read even if the pixels are broken: then the study lacks a view.
            patient, study = read_ids(given.path)
        except BadImage as fault:
            image, error = None, error or fault.reason
    patient, study = patient and path_text(patient), study and path_text(study)
    return LoadedImage(path_text(given.path), patient, study, image, path_text(error), original)


def _original(grey: np.ndarray, frame: Frame) -> Original:
    height, width = grey.shape
    place = frame(width, height)
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Original(grey, place)


def _as_grey(pixels: np.ndarray, row: int) -> np.ndarray:
    """An array treated like a file of that depth: uint8 unchanged, others stretched."""
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "uif":
        raise UserError(
            f"image {row} is an array of {pixels.dtype} with shape {list(pixels.shape)}; allowed: "
            "one grey image [height, width] of numbers, black low and white high."
        )
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    try:
        return stretch_to_uint8(pixels.astype(np.float64))
    except ValueError as error:
        raise UserError(f"image {row}: {as_clause(error)}.") from error
