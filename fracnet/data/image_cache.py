"""The cache of preprocessed images: decoded and preprocessed once, then mapped by every process.

Image i of the cache is row i of the manifest without the rows whose file cannot be read. A cache is
named by a hash of its files (path, size, modification time) and of its pipeline, so a changed file
or step makes another one. A damaged cache is rebuilt: its files have checksums, and so has each
image, which is compared when a process first reads it. The folder of a cache is private to its
owner, because it shows patients.
"""

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fracnet.data.cache_folders import (
    DAMAGED,
    images_dir,
    mark_as_damaged,
    open_or_build,
    read_meta,
    write_meta,
)
from fracnet.data.image_features import SHORTCUT_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, limit_opencv_threads, read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError
from fracnet.utils.files import path_from_text, sha256_of
from fracnet.utils.progress import progress_bar
from fracnet.utils.text import list_some

FORMAT = 3
"""Of the files, and of what is read from images: raise it when a reader gives other pixels."""
SAMPLED = 32
"""Images that are compared with their checksums whenever a cache is opened."""

log = logging.getLogger(__name__)


def _digest(image: np.ndarray) -> int:
    """64-bit checksum of an image: 2 us for 224 x 224 pixels."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(image).data)


class Checksums:
    """Compares cached images with their checksums, each once, and reads damaged ones again.

    expected: uint64 [N]. read_file: gives image i from its file, preprocessed.
    """

    def __init__(self, folder: Path, expected: np.ndarray, read_file: Callable[[int], np.ndarray]):
        self._folder, self._expected, self._read_file = folder, expected, read_file
        self._checked = np.zeros(len(expected), dtype=bool)
        self._repaired: dict[int, np.ndarray] = {}

    def fits(self, row: int, image: np.ndarray) -> bool:
        """Whether the image has the checksum of this row."""
        return _digest(image) == int(self._expected[row])

    def correct(self, row: int, image: np.ndarray) -> np.ndarray:
        """The image, or the one from its file if the cached one is damaged.

        Raises UserError if the file does not give the image that was cached either.
        """
        if row in self._repaired:
            return self._repaired[row]
        if self._checked[row]:
            return image
        if not self.fits(row, image):
            image = self._repaired[row] = self._repair(row)
        self._checked[row] = True
        return image

    def correct_all(self, rows: np.ndarray, images: np.ndarray, index: Any) -> np.ndarray:
        """`images[index]` as `correct` gives them. rows: those of the index; images: all."""
        for row in np.unique(rows[~self._checked[rows]]):
            self.correct(int(row), images[row])
        selected = images[index]
        if self._repaired:
            selected = np.array(selected)
            for row, image in self._repaired.items():
                selected[rows == row] = image
        return selected

    def _repair(self, row: int) -> np.ndarray:
        damaged = f"The image cache {self._folder} is damaged: image {row} is not what was written."
        mark_as_damaged(self._folder)
        image = self._read_file(row)
        if not self.fits(row, image):
            raise UserError(
                f"{damaged} Its file has changed since. Run the command again to build a new cache."
            )
        if not self._repaired:
            log.warning(
                f"{damaged} Damaged images are read from their files; the next run rebuilds "
                "the cache. Check the disk."
            )
        return image


class CachedImages(np.memmap):
    """uint8 [N, S, S], mapped read-only. Indexing it gives plain arrays of correct images."""

    checksums: Checksums | None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.checksums = None  # of views, whose rows are others

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.checksums is None or self.filename is None:  # a view, or a result in memory
            return super().__reduce__()
        # The other process maps the file itself.
        return _map_images, (Path(self.filename).parent, self.shape, self.checksums)

    def __getitem__(self, index: Any) -> Any:
        """Images by row, rows, slice or mask of rows; a part of them after these, as in NumPy."""
        plain = self.view(np.ndarray)
        if self.checksums is None:
            return plain[index]
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, int | np.integer):
            row = range(len(self))[first]
            image = self.checksums.correct(row, plain[row])
            return image[tuple(rest)] if rest else image
        rows = np.arange(len(self))
        if not isinstance(first, slice) and np.ndim(first) != 1:  # a mask of pixels, for example
            return self.checksums.correct_all(rows, plain, slice(None))[index]
        images = self.checksums.correct_all(rows[first], plain, first)
        return images[(slice(None), *rest)] if rest else images


@dataclass
class ImageCache:
    """An open cache.

    images: uint8 [N, S, S]; image i belongs to row i of the manifest's table after the rows in
        `bad` have been dropped from it.
    features: float64 [N, F], `SHORTCUT_NAMES` of the images as stored in the files.
    bad: row of the manifest's full table -> why its file cannot be read.
    """

    path: Path
    images: CachedImages
    features: np.ndarray
    bad: dict[int, str]

    @classmethod
    def open_or_build(
        cls,
        manifest: Manifest,
        preprocess: Preprocess,
        *,
        on_bad_file: str = "error",
        workers: int | None = None,
        progress: bool = True,
    ) -> "ImageCache":
        """Open the cache of these files and this pipeline; build it first if there is none.

        workers: threads that build (default: one per core of this process). Processes that need
        the same cache at the same time build it once. Raises UserError for unreadable files if
        `on_bad_file` is "error" (it names all of them), and if the cache cannot be written.
        """
        # Paths as text: a Path object per file would stay in memory.
        states = [_file_state(manifest.file(path)) for path in manifest.table["path"]]
        folder = images_dir() / _key(manifest, states, preprocess)
        cache = open_or_build(
            folder,
            "image cache",
            n_bytes=len(states) * preprocess.image_size**2,
            opened=lambda: cls._opened(folder, manifest, preprocess),
            write=lambda part: _write_cache(part, manifest, states, preprocess, workers, progress),
            progress=progress,
        )
        cache._report_bad_files(manifest, on_bad_file)
        return cache

    @classmethod
    def _opened(
        cls, folder: Path, manifest: Manifest, preprocess: Preprocess
    ) -> "ImageCache | None":
        """The cache if it is complete and not damaged."""
        meta = read_meta(folder)
        if meta is None or (folder / DAMAGED).exists():
            return None
        n, side = meta["images"], meta["image_size"]
        if (folder / "images.uint8").stat().st_size != n * side**2:
            return None
        for name in ("features", "checksums"):
            if sha256_of(folder / f"{name}.npy") != meta[f"{name}_sha256"]:
                return None
        features = np.asarray(np.load(folder / "features.npy", mmap_mode="r"))
        bad = {int(row): str(reason) for row, reason in meta["bad"].items()}
        paths = [path for row, path in enumerate(manifest.table["path"]) if row not in bad]
        expected = np.load(folder / "checksums.npy")
        read_file = partial(_read_file, manifest.root, paths, preprocess)
        checksums = Checksums(folder, expected, read_file)
        images = _map_images(folder, (n, side, side), checksums)
        sample = np.unique(np.linspace(0, n - 1, SAMPLED).astype(int))
        if not all(checksums.fits(row, images.view(np.ndarray)[row]) for row in sample):
            return None
        return cls(folder, images, features, bad)

    def same_pixels(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Pairs (first, other) of rows whose files hold the same picture, to the pixel.

        rows: int64 [n]. The features of the stored image, except the file's size, and the
        preprocessed image must agree. Blank images, which show no picture, have no copies.
        """
        columns = [i for i, name in enumerate(SHORTCUT_NAMES) if name != "file_size"]
        rows = rows[self.features[rows, SHORTCUT_NAMES.index("standard_deviation")] > 0]
        images = self.images.view(np.ndarray)
        firsts: dict[bytes, list[int]] = {}
        pairs = []
        for row in rows.tolist():
            others = firsts.setdefault(self.features[row, columns].tobytes(), [])
            same = (first for first in others if np.array_equal(images[first], images[row]))
            if (first := next(same, None)) is None:
                others.append(row)
            else:
                pairs.append((first, row))
        return pairs

    def _report_bad_files(self, manifest: Manifest, on_bad_file: str) -> None:
        if not self.bad:
            return
        paths = manifest.table["path"]
        names = list_some((f"{paths[row]} ({why})" for row, why in self.bad.items()), len(self.bad))
        message = f"Cannot read {len(self.bad)} of {len(paths)} images in {manifest.root}: {names}."
        if on_bad_file == "error":
            raise UserError(f"{message} Repair them, or leave them out with data.on_bad_file=skip.")
        log.warning("%s They are left out.", message)


def _map_images(folder: Path, shape: tuple[int, ...], checksums: Checksums | None) -> CachedImages:
    images = CachedImages(folder / "images.uint8", dtype=np.uint8, mode="r", shape=shape)
    images.checksums = checksums
    return images


def _read_file(root: Path, paths: Sequence[str], preprocess: Preprocess, row: int) -> np.ndarray:
    return preprocess(read_grey(path_from_text(root, paths[row])))


def _file_state(file: Path) -> tuple[int, int]:
    """(bytes, modification time in ns), (-1, -1) for a missing file."""
    try:
        state = os.stat(file)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _key(manifest: Manifest, states: Sequence[tuple[int, int]], preprocess: Preprocess) -> str:
    """Name of the cache: equal for equal files in equal order and an equal pipeline."""
    digest = hashlib.sha256(f"{FORMAT}\n{manifest.root.resolve()}\n{preprocess.key()}\n".encode())
    for path, (size, changed) in zip(manifest.table["path"], states, strict=True):
        digest.update(f"{path}\t{size}\t{changed}\n".encode())
    return digest.hexdigest()[:32]


def _write_cache(
    folder: Path,
    manifest: Manifest,
    states: Sequence[tuple[int, int]],
    preprocess: Preprocess,
    workers: int | None,
    progress: bool,
) -> None:
    """Write images.uint8, features.npy, checksums.npy and meta.json of a manifest's files.

    Unreadable files are left out and listed in the description. Raises OSError if something cannot
    be written, UserError if no file can be read.
    """
    start = time.perf_counter()
    files = [manifest.file(path) for path in manifest.table["path"]]
    if progress:
        print(f"Preprocessing {len(files)} images of {manifest.name} (once)", file=sys.stderr)
    n_pixels = preprocess.image_size**2
    features = np.full((len(files), len(SHORTCUT_NAMES)), np.nan)
    checksums = np.zeros(len(files), np.uint64)
    bad: dict[int, str] = {}
    handle = os.open(folder / "images.uint8", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def process(row: int) -> None:
        try:
            image = read_grey(files[row])
        except BadImage as error:
            bad[row] = error.reason
            return
        features[row] = shortcut_features(image, states[row][0])
        prepared = preprocess(image)
        checksums[row] = _digest(prepared)
        _write(handle, prepared, row * n_pixels)

    try:
        # Space is reserved first: a full disk raises here instead of a bus error later.
        os.posix_fallocate(handle, 0, len(files) * n_pixels)
        limit_opencv_threads()
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            done = pool.map(process, range(len(files)))
            for _ in progress_bar(done, len(files), "preprocess", visible=progress):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        good = [row for row in range(len(files)) if row not in bad]
        for place, row in enumerate(good):
            if place < row:  # close the gaps of bad ones
                image = np.frombuffer(os.pread(handle, n_pixels, row * n_pixels), np.uint8)
                _write(handle, image, place * n_pixels)
        os.ftruncate(handle, len(good) * n_pixels)
        os.fsync(handle)
    finally:
        os.close(handle)
    if not good:
        raise UserError(f"Cannot read any of the {len(files)} images of {manifest.name}: {bad[0]}.")
    digests = {}
    for name, values in (("features", features[good]), ("checksums", checksums[good])):
        np.save(folder / f"{name}.npy", values)
        digests[f"{name}_sha256"] = sha256_of(folder / f"{name}.npy")
    content = {
        "name": manifest.name,
        "images": len(good),
        "image_size": preprocess.image_size,
        "pipeline": preprocess.key(),
        "bad": {str(row): reason for row, reason in sorted(bad.items())},
        **digests,
    }
    write_meta(folder, content)
    if progress:
        seconds = time.perf_counter() - start
        rate = len(files) / seconds
        print(f"Cached {len(good)} images in {seconds:.1f} s ({rate:.0f} per s)", file=sys.stderr)


def _write(handle: int, image: np.ndarray, offset: int) -> None:
    """Write all of `image` at `offset`; threads write to separate ranges and need no lock."""
    data = image.data.cast("B")
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
