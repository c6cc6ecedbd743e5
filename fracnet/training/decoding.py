"""Images for a model: files read ahead by a few threads, arrays taken as they are."""

import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.data.dicom import NoDecoder
from fracnet.data.enhance import Enhance
from fracnet.data.reading import BadImage, read_grey, read_ids, stretched
from fracnet.data.threads import single_threaded
from fracnet.errors import UserError
from fracnet.training.asked import Item, find

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
    given: Iterable[Given], enhance: Enhance, workers: int, ahead: int
) -> Iterator[Decoded]:
    """Each in its turn; at most `ahead` are held in memory beside the one that is handed over.

    Raises UserError for an array that is no grey image. A file that cannot be read is told in
    `Decoded.error`, a missing decoder of DICOM likewise.
    """
    single_threaded()
    pool = ThreadPoolExecutor(workers)
    left = enumerate(given)
    waiting: deque[Future[Decoded]] = deque()
    one = _reader(enhance)
    try:
        waiting.extend(pool.submit(one, *item) for item in islice(left, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(one, *item) for item in islice(left, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _reader(enhance: Enhance) -> Callable[[int, Given], Decoded]:
    def one(row: int, given: Given) -> Decoded:
        if isinstance(given, np.ndarray):
            return Decoded(row, f"array {row}", None, None, enhance(_grey(given, row)))
        patient, study = given.patient, given.study
        image, error = _image(given.path, enhance)
        if patient is None and study is None:
            try:
                # Also of a file whose pixels are broken: its study lacks a view.
                patient, study = read_ids(given.path)
            except BadImage as fault:
                image, error = None, error or fault.reason
        return Decoded(row, str(given.path), patient, study, image, error)

    return one


def _image(path: Path, enhance: Enhance) -> tuple[np.ndarray | None, str]:
    """The prepared image, or why there is none."""
    try:
        return enhance(read_grey(path)), ""
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
