"""The cache of preprocessed images: decoded and preprocessed once, then mapped by every process.

Image i of the cache is row i of the manifest without the rows whose file cannot be read. A cache is
named by a hash of its files (path, size, modification time) and of its pipeline, so a changed file
or step makes another one; a damaged cache is rebuilt.
"""

import hashlib
import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.data.cache_folders import (
    discard,
    images_dir,
    locked,
    part_path,
    read_meta,
    remove_leftovers,
    write_meta,
)
from fracnet.data.image_features import SHORTCUT_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, limit_opencv_threads, read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.progress import progress_bar
from fracnet.utils.text import list_some

FORMAT = 1
ON_BAD_FILE = ("error", "skip")

log = logging.getLogger(__name__)


@dataclass
class ImageCache:
    """An open cache.

    images: uint8 [N, S, S], mapped read-only; image i belongs to row i of the manifest's table
        after the rows in `bad` have been dropped from it.
    features: float64 [N, F], `SHORTCUT_NAMES` of the images as stored in the files.
    bad: row of the manifest's full table -> why its file cannot be read.
    """

    path: Path
    images: np.memmap
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
        assert on_bad_file in ON_BAD_FILE, on_bad_file
        # Paths as text: a Path object per file would stay in memory.
        states = [_file_state(manifest.file(path)) for path in manifest.table["path"]]
        folder = images_dir() / _key(manifest, states, preprocess)
        cache = cls._open(folder)
        if cache is None:
            cache = cls._build(folder, manifest, states, preprocess, workers, progress)
        cache._report_bad_files(manifest, on_bad_file)
        return cache

    @classmethod
    def _open(cls, folder: Path) -> "ImageCache | None":
        """The cache if it exists and is complete."""
        if not folder.is_dir():
            return None
        meta = read_meta(folder)
        try:
            digest = sha256_of(folder / "features.npy")
            size = (folder / "images.uint8").stat().st_size
        except FileNotFoundError:
            meta = None
        if (
            meta is None
            or size != meta["images"] * meta["image_size"] ** 2
            or digest != meta["features_sha256"]
        ):
            log.warning("The image cache %s is damaged; rebuilding it.", folder)
            return None
        shape = (meta["images"], meta["image_size"], meta["image_size"])
        try:
            images = _map_images(folder, shape)
            features = np.asarray(np.load(folder / "features.npy", mmap_mode="r"))
        except FileNotFoundError:  # another process just cleared it
            return None
        bad = {int(row): str(reason) for row, reason in meta["bad"].items()}
        return cls(folder, images, features, bad)

    @classmethod
    def _build(
        cls,
        folder: Path,
        manifest: Manifest,
        states: Sequence[tuple[int, int]],
        preprocess: Preprocess,
        workers: int | None,
        progress: bool,
    ) -> "ImageCache":
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers()
            with locked(folder, wait=True, progress=progress):
                cache = cls._open(folder)
                if cache is not None:  # another process has built it meanwhile
                    return cache
                discard(folder)
                part = part_path(folder)
                part.mkdir()
                try:
                    _write_cache(part, manifest, states, preprocess, workers, progress)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
                os.replace(part, folder)
                _sync(folder.parent)
                cache = cls._open(folder)
        except OSError as error:
            n_bytes = len(states) * preprocess.image_size**2
            raise UserError(
                f"Cannot write the image cache to {folder.parent}: {error.strerror or error}. It "
                f"needs {max(1, round(n_bytes / 1e6))} MB. Free some space (`python -m "
                "fracnet.cache clear` removes old caches), or set the environment variable "
                "FRACNET_CACHE to a folder on another disk."
            ) from error
        assert cache is not None, folder
        return cache

    def _report_bad_files(self, manifest: Manifest, on_bad_file: str) -> None:
        if not self.bad:
            return
        paths = manifest.table["path"]
        names = list_some((f"{paths[row]} ({why})" for row, why in self.bad.items()), len(self.bad))
        message = f"Cannot read {len(self.bad)} of {len(paths)} images in {manifest.root}: {names}."
        if on_bad_file == "error":
            raise UserError(f"{message} Repair them, or leave them out with data.on_bad_file=skip.")
        log.warning("%s They are left out.", message)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["images"] = self.images.shape  # the other process maps the file itself
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.images = _map_images(self.path, state["images"])


def _map_images(folder: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.memmap(folder / "images.uint8", dtype=np.uint8, mode="r", shape=shape)


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


def _sync(folder: Path) -> None:
    """Make a rename within `folder` survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_cache(
    folder: Path,
    manifest: Manifest,
    states: Sequence[tuple[int, int]],
    preprocess: Preprocess,
    workers: int | None,
    progress: bool,
) -> None:
    """Write images.uint8, features.npy and meta.json of a manifest's files into `folder`.

    Unreadable files are left out and listed in the description. Raises OSError if something cannot
    be written, UserError if no file can be read.
    """
    start = time.perf_counter()
    files = [manifest.file(path) for path in manifest.table["path"]]
    if progress:
        print(f"Preprocessing {len(files)} images of {manifest.name} (once)", file=sys.stderr)
    n_pixels = preprocess.image_size**2
    features = np.full((len(files), len(SHORTCUT_NAMES)), np.nan)
    bad: dict[int, str] = {}
    handle = os.open(folder / "images.uint8", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def process(row: int) -> None:
        try:
            image = read_grey(files[row])
        except BadImage as error:
            bad[row] = error.reason
            return
        features[row] = shortcut_features(image, states[row][0])
        _write(handle, preprocess(image), row * n_pixels)

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
        _close_gaps(handle, bad, len(files), n_pixels)
        os.fsync(handle)
    finally:
        os.close(handle)
    if len(bad) == len(files):
        raise UserError(f"Cannot read any of the {len(files)} images of {manifest.name}: {bad[0]}.")
    good = [row for row in range(len(files)) if row not in bad]
    buffer = io.BytesIO()
    np.save(buffer, features[good])
    (folder / "features.npy").write_bytes(buffer.getvalue())
    content = {
        "name": manifest.name,
        "images": len(good),
        "image_size": preprocess.image_size,
        "pipeline": preprocess.key(),
        "bad": {str(row): reason for row, reason in sorted(bad.items())},
        "features_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
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


def _close_gaps(handle: int, bad: dict[int, str], n_files: int, n_pixels: int) -> None:
    """Move images up over the gaps of bad ones, so that the good ones are contiguous."""
    if not bad:
        return
    target = min(bad)
    for row in range(target, n_files):
        if row not in bad:
            image = os.pread(handle, n_pixels, row * n_pixels)
            _write(handle, np.frombuffer(image, np.uint8), target * n_pixels)
            target += 1
    os.ftruncate(handle, target * n_pixels)
