"""Which images `input=` means: files, folders, patterns, and tables that name them.

Images for a model: files read ahead by a few threads, arrays taken as they are.
"""

import glob
import os
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.config.instantiate import near_miss
from fracnet.data.datasets.base import contents, is_image
from fracnet.data.datasets.csv_table import read_csv
from fracnet.data.dicom import NoDecoder
from fracnet.data.image_io import BadImage, read_grey, read_ids, single_threaded, stretched
from fracnet.data.manifest import listed
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError
from fracnet.utils.text import are, counted

OWN = "predictions.json"
"""A folder that holds it was left by an earlier prediction: its pictures are no radiographs."""


@dataclass(frozen=True)
class Item:
    """An image to look at; patient and study where a table names them, and in which line."""

    path: Path
    patient: str | None = None
    study: str | None = None
    line: str = field(default="", compare=False)


@dataclass
class Asked:
    """items: each file once, in the order named. notes: what was left out, in sentences."""

    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str = "images"


def find(words: Sequence[str], key: str = "input=") -> Asked:
    """The images that the words mean, each a file, a folder, a pattern or a table of paths.

    key: what stands before the words in messages; "" where no command was typed.

    - A folder: all images in it and below, by extension, DICOM also by content; hidden entries and
      what an earlier prediction has left there are not looked at.
    - A pattern: `*`, `?`, `[...]`, and `**` for any depth.
    - A table: a .csv with a column path, and perhaps patient and study; or a .txt with a path a
      line. Paths are relative to the table.
    - Any other file is taken for an image, whatever its name.

    Raises UserError for a word that means nothing, or no image, and for a file that is named for
    different patients or studies: which of them it shows cannot be told.
    """
    found = Asked()
    seen: dict[Path, Item] = {}
    twice = 0
    for word in words:
        for item in _meant(word, found, key):
            place = Path(os.path.abspath(item.path))
            if place in seen:
                twice += 1
                item = _same(seen[place], item)
            seen[place] = item
    found.items = list(seen.values())
    if twice:
        found.notes.append(
            f"{counted(twice, 'image')} {are(twice)} named more than once and predicted once."
        )
    if not found.items:
        left = f" {' '.join(found.notes)}" if found.notes else ""
        raise UserError(f"{key}{_said(words)} holds no image.{left}")
    first = Path(words[0]).expanduser()
    if len(words) == 1 and not _is_pattern(first):
        found.name = (first.resolve().name if first.is_dir() else first.stem) or "images"
    return found


def _meant(word: str, found: Asked, key: str) -> Iterator[Item]:
    path = Path(word).expanduser()
    if path.is_dir():
        yield from _below(path, found)
    elif _is_pattern(path):
        matched = sorted(glob.glob(str(path), recursive=True))
        if not matched:
            raise UserError(f"{key}{word}: nothing is called so.")
        for name in matched:
            if Path(name).is_dir():
                # Of `**` each folder comes by itself, and its files besides.
                yield from () if "**" in word else _below(Path(name), found)
            elif is_image(Path(name)) or "**" not in word:
                yield Item(Path(name))
    elif not path.exists():
        here = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        told = contents(path.parent)
        if path.parent == Path():  # which is told in words
            told = told[0].upper() + told[1:]
        hint = near_miss(path.name, here) or f" {told}."
        raise UserError(f"{key}{word}: there is no such file or folder.{hint}")
    elif path.suffix.lower() == ".csv":
        yield from _listed_in_csv(path)
    elif path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{key}{word} cannot be read: {error}.") from error
        yield from (Item(path.parent / line.strip()) for line in lines if line.strip())
    else:
        yield Item(path)


def _same(first: Item, again: Item) -> Item:
    """Which of the two that name a file is kept: the one that knows patient or study."""
    if not (again.patient or again.study):
        return first
    if not (first.patient or first.study):
        return again
    for key in ("patient", "study"):
        one, other = getattr(first, key), getattr(again, key)
        if one != other:
            raise UserError(
                f"{again.line}: {again.path.name} is of {key}={other or ''}, but {first.line}, "
                f"names the same file with {key}={one or ''}; allowed: one patient and one study "
                "for each file."
            )
    return first


def _is_pattern(path: Path) -> bool:
    return not path.exists() and glob.has_magic(str(path))


def _below(folder: Path, found: Asked) -> Iterator[Item]:
    """The images of a folder and those below it, sorted; others are counted."""
    others: list[str] = []
    walked: set[str] = set()

    def cannot(error: OSError) -> None:
        found.notes.append(f"{error.filename} cannot be looked into: {error.strerror}.")

    for parent, below, names in os.walk(folder, onerror=cannot, followlinks=True):
        real = os.path.realpath(parent)
        if real in walked:  # a link that leads back
            below.clear()
            continue
        walked.add(real)
        if OWN in names:
            below.clear()
            found.notes.append(f"{parent} holds an earlier prediction; left out.")
            continue
        below[:] = sorted(name for name in below if name[0] != "." and name != "__MACOSX")
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent, name)
            if is_image(path):
                yield Item(path)
            else:
                others.append(path.relative_to(folder).as_posix())
    if others:
        told = listed(others, len(others), 3)
        files = f"{counted(len(others), 'file')} {are(len(others))}"
        found.notes.append(f"{folder}: {files} no image by name ({told}).")


def _listed_in_csv(path: Path) -> Iterator[Item]:
    table = read_csv(path)
    table.require(["path"], " It needs one called path; patient and study may stand beside it.")
    if empty := [i for i, cells in enumerate(table.rows) if not cells["path"]]:
        table.refuse(empty, "path", "the path of an image")
    for cells, line in zip(table.rows, table.lines, strict=True):
        patient, study = (cells.get(key) or None for key in ("patient", "study"))
        yield Item(path.parent / cells["path"], patient, study, f"{path}, line {line}")


def _said(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"[{', '.join(words)}]"


Given = Item | np.ndarray


def meant(images: Any) -> tuple[list[Given], list[str]]:
    """The images that are meant, and what was left out of folders, in sentences.

    images: as `Predictor.predict` takes them; UserError for anything else.
    """
    allowed = (
        "allowed: a path of a file, a folder or a table, a pattern, a grey array [height, width], "
        "or a list of these"
    )
    if isinstance(images, str | Path | np.ndarray):
        images = [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | Mapping):
        raise UserError(f"{reprlib.repr(images)} is no image; {allowed}.")
    given: list[Given] = []
    notes: list[str] = []
    for place, one in enumerate(images):
        if isinstance(one, np.ndarray):
            given.append(one)
        elif isinstance(one, Path) or (isinstance(one, str) and one.strip()):
            found = find([str(one)], key="")
            given += found.items
            notes += found.notes
        else:
            raise UserError(
                f"image {place} is {reprlib.repr(one)} ({type(one).__name__}); {allowed}."
            )
    return given, notes


@dataclass(frozen=True)
class Decoded:
    """One image, prepared as the run's own were; `image` uint8 [S, S] is None where `error` says
    why the file cannot be read. `row` counts what was given."""

    row: int
    path: str
    patient: str | None
    study: str | None
    image: np.ndarray | None
    error: str = ""


def decoded(
    given: Iterable[Given], preprocess: Preprocess, workers: int, ahead: int
) -> Iterator[Decoded]:
    """Each in its turn; at most `ahead` are held in memory beside the one that is handed over.

    Raises UserError for an array that is no grey image. A file that cannot be read is told in
    `Decoded.error`, a missing decoder of DICOM likewise.
    """
    single_threaded()
    pool = ThreadPoolExecutor(workers)
    left = enumerate(given)
    waiting: deque[Future[Decoded]] = deque()
    one = _reader(preprocess)
    try:
        waiting.extend(pool.submit(one, *item) for item in islice(left, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(one, *item) for item in islice(left, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _reader(preprocess: Preprocess) -> Callable[[int, Given], Decoded]:
    def one(row: int, given: Given) -> Decoded:
        if isinstance(given, np.ndarray):
            return Decoded(row, f"array {row}", None, None, preprocess(_grey(given, row)))
        patient, study = given.patient, given.study
        image, error = _image(given.path, preprocess)
        if patient is None and study is None:
            try:
                # Also of a file whose pixels are broken: its study lacks a view.
                patient, study = read_ids(given.path)
            except BadImage as fault:
                image, error = None, error or fault.reason
        return Decoded(row, str(given.path), patient, study, image, error)

    return one


def _image(path: Path, preprocess: Preprocess) -> tuple[np.ndarray | None, str]:
    """The prepared image, or why there is none."""
    try:
        return preprocess(read_grey(path)), ""
    except BadImage as error:
        return None, error.reason
    except (NoDecoder, OSError) as error:  # a package is missing; the file has just gone
        return None, str(error)


def _grey(pixels: np.ndarray, row: int) -> np.ndarray:
    """An array as a file of that depth would be read: uint8 as it is, others stretched."""
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "uif":
        raise UserError(
            f"image {row} is an array of {pixels.dtype} with shape {list(pixels.shape)}; allowed: "
            "one grey image [height, width] of numbers, black low and white high."
        )
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    try:
        return stretched(pixels.astype(np.float64))
    except ValueError as error:
        raise UserError(f"image {row}: {error}.") from error
